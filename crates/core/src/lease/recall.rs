//! Taking back what was granted, and keeping back what cannot be.

use super::{Bounds, DataRight, Leased, Use};
use crate::alloc::Run;
use crate::fs::Fs;
use crate::inode::InodeState;
use crate::ops::locked::LockedInode;
use lodefs_layout::BLOCK_SIZE;
use lodefs_sync::{Arc, Condvar, Mutex, Weak};

/// A program is asked to give back what it has mapped.
pub struct Recall {
    /// The number of the lease ([`super::Lease::id`]).
    pub lease: u64,
    /// First byte of what is taken back.
    pub offset: u64,
    /// Behind its last byte; `u64::MAX`: all.
    pub end: u64,
    /// The number of this recall, for its lease: they count from 1.
    pub epoch: u64,
    /// To be dropped when the program has unmapped it, or is gone.
    pub answer: Answer,
}

/// That a program has answered a recall, when it is dropped.
pub struct Answer {
    round: Arc<Round>,
    fs: Weak<Fs>,
    is_given_up: bool,
}

/// The recalls of one operation.
struct Round {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    /// Recalls that are waited for.
    awaited: usize,
    /// Recalls that are no longer waited for, and not answered.
    lagging: usize,
}

impl Round {
    /// Whether somebody has still not answered.
    fn is_open(&self) -> bool {
        let counts = self.counts.lock();
        counts.awaited + counts.lagging > 0
    }
}

/// What a lease was asked to give back, which it may not have done yet.
pub(super) struct Asked {
    blocks: Bounds,
    zeroes: Bounds,
    round: Arc<Round>,
}

/// Recalls that were given up on.
#[derive(Clone)]
pub(crate) struct Lagging(Vec<Arc<Round>>);

impl Lagging {
    /// Whether somebody has still not answered.
    fn is_there(&self) -> bool {
        self.0.iter().any(|round| round.is_open())
    }
}

impl Answer {
    /// Nobody need wait for this program. What it may still reach is kept until this is dropped.
    pub fn give_up(&mut self) {
        if self.is_given_up {
            return;
        }
        self.is_given_up = true;
        let mut counts = self.round.counts.lock();
        counts.awaited -= 1;
        counts.lagging += 1;
        drop(counts);
        self.round.changed.notify_all();
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut counts = self.round.counts.lock();
        if !self.is_given_up {
            counts.awaited -= 1;
            drop(counts);
            self.round.changed.notify_all();
            return;
        }
        counts.lagging -= 1;
        let was_last = counts.lagging == 0;
        drop(counts);
        if was_last && let Some(fs) = self.fs.upgrade() {
            fs.end_quarantines();
        }
    }
}

/// What operations take back before they change a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Blocks, which will be freed.
    Blocks,
    /// Zeroes in place of holes, which will get blocks.
    Zeroes,
}

/// Takes blocks `[from, to)` of a file back from everybody who was granted any of them. Returns when all have answered or were
/// given up on: then, what it returns tells how long what is freed must be kept.
pub(crate) fn recall_blocks(locked: &mut LockedInode<'_>, from: u64, to: u64) -> Option<Lagging> {
    recall(locked, Taken::Blocks, Bounds { from, to })
}

/// The same with the zeroes that are mapped where there are holes. (Who was given up on goes on seeing zeroes until he answers.)
pub(crate) fn recall_zeroes(locked: &mut LockedInode<'_>, from: u64, to: u64) {
    recall(locked, Taken::Zeroes, Bounds { from, to });
}

/// Takes the content back from everybody but `asker` who may do more with it than somebody else with this right allows, and waits for
/// the answers. (Who was given up on may go on for a while; what he has not given back is not freed.)
pub(crate) fn recall_data(state: &mut InodeState, right: DataRight, asker: Option<u64>) {
    let most = match right {
        DataRight::None => DataRight::Write,
        DataRight::Read => DataRight::Read,
        DataRight::Write => DataRight::None,
    };
    let stands_in_the_way = |leased: &Leased| leased.data > most && Some(leased.id) != asker;
    if state.leases.iter().any(stands_in_the_way) {
        let _lagging = ask_back(state, Bounds { from: 0, to: u64::MAX }, stands_in_the_way).wait();
    }
}

/// A file has become longer, which had `end` blocks: programs that met its end there ask again. Returns when all know, or were given up on.
pub(crate) fn recall_end(state: &mut InodeState, end: u64) {
    if state.leases.iter().any(|leased| leased.met_end) {
        let asked = ask_back(state, Bounds { from: end, to: u64::MAX }, |leased| leased.met_end);
        state.leases.iter_mut().for_each(|leased| leased.met_end = false);
        let _lagging = asked.wait();
    }
}

/// Takes these blocks back from everybody who may store to them by a mapping, and waits for the answers. (Who was given up on may go on
/// for a while.)
pub(super) fn recall_stores(state: &mut InodeState, bounds: Bounds) {
    let may_store = |leased: &Leased| leased.may_store() && leased.blocks.meets(bounds);
    if state.leases.iter().any(may_store) {
        let _lagging = ask_back(state, bounds, may_store).wait();
    }
}

/// Whether a program may change the content by itself, or what one has appended is still to be settled.
pub(crate) fn has_writer(state: &InodeState) -> bool {
    state.tail.is_some() || state.leases.iter().any(|leased| leased.data == DataRight::Write)
}

/// Whether the program with this lease may still do what it was asked not to do any more.
pub(crate) fn is_asked(state: &InodeState, lease: u64) -> bool {
    let leased = state.leases.iter().find(|leased| leased.id == lease);
    leased.is_some_and(|leased| leased.asked.iter().any(|asked| asked.round.is_open()))
}

/// Whether an unanswered program that writes by itself may still store to a block of the file.
pub(crate) fn is_reached_by_writer(state: &InodeState, block: u64) -> bool {
    let bounds = Bounds { from: block, to: block + 1 };
    let reaches = |asked: &Asked| asked.blocks.meets(bounds) && asked.round.is_open();
    let mut writers = state.leases.iter().filter(|leased| leased.purpose == Use::Data && leased.writable);
    writers.any(|leased| leased.asked.iter().any(reaches))
}

impl Fs {
    /// Frees data blocks that nobody reaches any more, or will free them when that is so.
    pub(crate) fn quarantine(&self, runs: &[Run], lagging: Lagging) {
        self.quarantine.0.lock().push((lagging, runs.to_vec()));
        // They may have answered just before.
        self.end_quarantines();
    }

    /// Frees what nobody can reach any more, under the lock: who finds nothing there finds the blocks free.
    fn end_quarantines(&self) {
        let mut kept = self.quarantine.0.lock();
        let all = std::mem::take(&mut *kept);
        let (staying, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|(lagging, _)| lagging.is_there());
        *kept = staying;
        for run in ended.iter().flat_map(|(_, runs)| runs) {
            self.give_back(*run);
        }
    }
}

/// Freed blocks that somebody may still reach.
#[derive(Default)]
pub(crate) struct Quarantine(Mutex<Vec<(Lagging, Vec<Run>)>>);

impl Quarantine {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Takes back what lies within `bounds` from everybody who was granted any like it there, and waits for the answers.
fn recall(locked: &mut LockedInode<'_>, taken: Taken, bounds: Bounds) -> Option<Lagging> {
    if locked.state.leases.is_empty() {
        return None;
    }
    let reached = |blocks: Bounds, zeroes: Bounds| match taken {
        Taken::Blocks => blocks.meets(bounds),
        Taken::Zeroes => zeroes.meets(bounds),
    };
    // What others have asked for, without waiting under the lock or in vain, may not have been given back.
    let asked = locked.state.leases.iter().flat_map(|leased| &leased.asked);
    let open =
        asked.filter(|asked| reached(asked.blocks, asked.zeroes)).map(|asked| Arc::clone(&asked.round));
    let open: Vec<Arc<Round>> = open.collect();
    let mut recalled = ask_back(&mut locked.state, bounds, |leased| reached(leased.blocks, leased.zeroes));
    recalled.0.extend(open);
    recalled.wait()
}

/// Recalls on their way.
pub(crate) struct Recalled(Vec<Arc<Round>>);

impl Recalled {
    /// Takes everything back from everybody, whatever it is.
    pub(crate) fn everything(state: &mut InodeState) -> Self {
        ask_back(state, Bounds { from: 0, to: u64::MAX }, |_| true)
    }

    /// Waits until all have answered, or were given up on.
    pub(crate) fn wait(self) -> Option<Lagging> {
        let mut lagging = self.0;
        lagging.retain(|round| {
            let mut counts = round.counts.lock();
            while counts.awaited > 0 {
                counts = round.changed.wait(counts);
            }
            counts.lagging > 0
        });
        (!lagging.is_empty()).then_some(Lagging(lagging))
    }
}

/// Asks those to whom it applies to give back what lies within `bounds`.
fn ask_back(state: &mut InodeState, bounds: Bounds, applies: impl Fn(&Leased) -> bool) -> Recalled {
    let round = Arc::new(Round { counts: Mutex::new(Counts::default()), changed: Condvar::default() });
    for leased in state.leases.iter_mut().filter(|leased| applies(leased)) {
        leased.epoch += 1;
        leased.asked.retain(|asked| asked.round.is_open());
        // Content is given back as a whole.
        let bounds = if leased.purpose == Use::Data { Bounds { from: 0, to: u64::MAX } } else { bounds };
        let could_use_data = std::mem::replace(&mut leased.data, DataRight::None) > DataRight::None;
        let (blocks, zeroes) = (leased.blocks.common(bounds), leased.zeroes.common(bounds));
        // Who may write has perhaps a word, if nothing else.
        if could_use_data || !blocks.is_empty() || !zeroes.is_empty() {
            leased.asked.push(Asked { blocks, zeroes, round: Arc::clone(&round) });
        }
        // Whatever it has mapped there goes.
        leased.blocks.remove(bounds);
        leased.zeroes.remove(bounds);
        round.counts.lock().awaited += 1;
        leased.lessee.recall(Recall {
            lease: leased.id,
            offset: bounds.from.saturating_mul(BLOCK_SIZE),
            end: bounds.to.saturating_mul(BLOCK_SIZE),
            epoch: leased.epoch,
            answer: Answer { round: Arc::clone(&round), fs: leased.fs.clone(), is_given_up: false },
        });
    }
    Recalled(vec![round])
}
