//! A program that maps a file: what it has mapped, and how it faults and answers.
//!
//! As in `model/`: answers to faults and recalls come to it in one order. One thread (the *pump*) takes them; a recall it answers itself,
//! a grant it hands to the thread that waits for it, which maps it later, unless there was a recall meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex as Plain, MutexGuard as PlainGuard, PoisonError};

use lodefs_core::{Effect, Grant, Hold, HolderKind, Lease, Lessee, Recall, Touch, Touched, What};
use lodefs_layout::BLOCK_SIZE;
use lodefs_sync::{Arc, Condvar, Mutex, point};
use rustix::io::Errno;

use super::Variant;
use super::content::Act;
use crate::rng::Rng;

/// How often other threads may come between before a program answers, and when it was given up on.
const PAUSE_MAX: u64 = 30;
const ABSENCE_MAX: u64 = 400;

/// What all programs have mapped.
pub(super) struct World {
    /// The medium as they have it.
    medium: File,
    /// Not a lock that a scheduler decides about: what is done under it happens at one moment.
    state: Plain<Vec<Mapped>>,
    pub(super) variant: Variant,
}

/// What a program has mapped.
#[derive(Default)]
struct Mapped {
    file: usize,
    /// By block number.
    pages: BTreeMap<u64, What>,
    /// Recalls that it has answered.
    epoch: u64,
    /// Blocks that it was asked to give back, and was given up on.
    given_up: Option<(u64, u64)>,
    /// It has mapped or opened the file as the host does it, by way of a cache; as long as that is so, it holds the file.
    host: Option<Arc<Hold>>,
}

impl World {
    /// Programs that have mapped nothing, one for each of these files.
    pub(super) fn new(medium: File, files: &[usize], variant: Variant) -> Self {
        let mapped = files.iter().map(|file| Mapped { file: *file, ..Mapped::default() });
        Self { medium, state: Plain::new(mapped.collect()), variant }
    }

    /// The medium, for one more program.
    pub(super) fn medium(&self) -> File {
        self.medium.try_clone().expect("there are descriptors")
    }

    fn state(&self) -> PlainGuard<'_, Vec<Mapped>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program has opened its file, or closes it.
    pub(super) fn open(&self, program: usize, hold: Option<Arc<Hold>>) {
        let buffered = hold.filter(|hold| hold.effect() == Effect::Buffered);
        let mut state = self.state();
        let before = std::mem::replace(&mut state[program].host, buffered);
        Self::check_one_copy(&state);
        drop(state);
        // This takes a lock that a scheduler decides about, so it comes last; as everywhere here.
        drop(before);
    }

    /// What one may reach through a cache, nobody else has mapped.
    fn check_one_copy(state: &[Mapped]) {
        for buffered in state.iter().filter(|mapped| mapped.host.is_some()) {
            let direct = state.iter().find(|mapped| mapped.file == buffered.file && !mapped.pages.is_empty());
            assert!(direct.is_none(), "two copies: one program has mapped what another one has in a cache");
        }
    }

    /// Nobody who has mapped anything of what is granted has it as a part of something else.
    fn check_nobody_elses(&self, file: usize, touched: &Touched) {
        let Touched::Granted(grant) = touched else { return };
        let state = self.state();
        for part in &grant.parts {
            let What::Medium(at) = part.what else { continue };
            for mapped in state.iter() {
                for (block, page) in &mapped.pages {
                    let What::Medium(reached) = *page else { continue };
                    if !(at..at + part.size).contains(&reached) {
                        continue;
                    }
                    let granted = (part.offset + (reached - at)) / BLOCK_SIZE;
                    assert_eq!(
                        (mapped.file, *block),
                        (file, granted),
                        "somebody else's block: it is granted to one while another may still reach it"
                    );
                }
            }
        }
    }
}

/// What the server sends to a program.
enum Message {
    Answer(Touched),
    Recall(Recall),
}

#[derive(Default)]
struct Inbox {
    /// In the order in which they were sent.
    messages: VecDeque<Message>,
    /// An answer for the thread that has faulted.
    in_hand: Option<Touched>,
    /// Nothing will come any more.
    is_over: bool,
}

/// A program.
pub(super) struct Program {
    number: usize,
    pub(super) file: usize,
    world: Arc<World>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

impl Lessee for Program {
    fn recall(&self, recall: Recall) {
        self.send(Message::Recall(recall));
    }
}

/// What became of an access.
pub(super) enum Access {
    /// It happened; with `false`, perhaps to what is no longer the file's.
    Done(Act, bool),
    /// There is nothing to be known.
    Unknown,
}

impl Program {
    pub(super) fn new(number: usize, file: usize, world: &Arc<World>) -> Self {
        let (inbox, changed) = (Mutex::default(), Condvar::default());
        Self { number, file, world: Arc::clone(world), inbox, changed }
    }

    fn send(&self, message: Message) {
        self.inbox.lock().messages.push_back(message);
        self.changed.notify_all();
    }

    /// Nothing will be sent any more.
    pub(super) fn end(&self) {
        self.inbox.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Takes what is sent, until the end.
    pub(super) fn pump(&self, mut rng: Rng) {
        loop {
            let mut inbox = self.inbox.lock();
            let message = loop {
                match inbox.messages.pop_front() {
                    Some(message) => break message,
                    None if inbox.is_over => return,
                    None => inbox = self.changed.wait(inbox),
                }
            };
            match message {
                Message::Answer(touched) => {
                    inbox.in_hand = Some(touched);
                    drop(inbox);
                    self.changed.notify_all();
                }
                Message::Recall(recall) => {
                    drop(inbox);
                    self.answer(recall, &mut rng);
                }
            }
        }
    }

    /// Answers a recall; sometimes only after somebody has given up.
    fn answer(&self, recall: Recall, rng: &mut Rng) {
        let Recall { offset, end, epoch, mut answer, .. } = recall;
        let range = (offset / BLOCK_SIZE, end / BLOCK_SIZE);
        let mut kept = None;
        let is_away = rng.one_in(3);
        if is_away {
            self.world.state()[self.number].given_up = Some(range);
        }
        if is_away && self.world.variant == Variant::EarlyReuse {
            drop(answer);
        } else {
            if is_away {
                answer.give_up();
            }
            kept = Some(answer);
        }
        let pause = if is_away { ABSENCE_MAX } else { PAUSE_MAX };
        (0..rng.below(pause)).for_each(|_| point());
        let mut state = self.world.state();
        let mapped = &mut state[self.number];
        mapped.given_up = None;
        mapped.epoch = epoch;
        let for_switch = offset == 0 && end == u64::MAX;
        let stays = |page: What| match self.world.variant {
            Variant::ZeroesStay => page == What::Zeroes,
            Variant::KindAtFault => for_switch,
            _ => false,
        };
        mapped.pages.retain(|block, page| !(range.0..range.1).contains(block) || stays(*page));
        let host = mapped.host.take();
        drop(state);
        drop(host);
        drop(kept);
    }

    /// Stores a value to a block by way of the mapping, or loads one.
    pub(super) fn access(
        &self,
        lease: &Lease,
        block: u64,
        store: Option<u64>,
        (window, rng): (u64, &mut Rng),
    ) -> Access {
        let offset = block * BLOCK_SIZE;
        let touch = Touch {
            offset,
            write: store.is_some(),
            from: 0,
            to: super::BLOCKS_MAX * BLOCK_SIZE,
            window: window * BLOCK_SIZE,
        };
        loop {
            point();
            if let Some(access) = self.reach(block, store) {
                return access;
            }
            let deliver = |touched: Touched| {
                self.world.check_nobody_elses(self.file, &touched);
                self.send(Message::Answer(touched));
            };
            match lease.touch(&touch, deliver).map_err(|error| error.errno()) {
                Ok(()) => {}
                Err(Errno::NOSPC) => return Access::Unknown,
                Err(errno) => panic!("a touch failed: {errno}"),
            }
            let touched = self.take_hand();
            let pause = if rng.one_in(4) { rng.below(PAUSE_MAX) } else { 1 };
            (0..pause).for_each(|_| point());
            match touched {
                Touched::Granted(grant) => self.map(&grant),
                Touched::Buffered { epoch } => self.map_as_host(lease, epoch),
                Touched::Switching | Touched::Cached => {}
                Touched::BeyondEnd { .. } => {
                    return Access::Done(Act::Read { block, value: None }, true);
                }
            }
        }
    }

    fn take_hand(&self) -> Touched {
        let mut inbox = self.inbox.lock();
        loop {
            match inbox.in_hand.take() {
                Some(touched) => return touched,
                None => inbox = self.changed.wait(inbox),
            }
        }
    }

    /// Whether it maps what it was told of after so many recalls.
    fn takes(&self, mapped: &Mapped, epoch: u64) -> bool {
        epoch == mapped.epoch || self.world.variant == Variant::LateGrant
    }

    /// Maps the file as the host does it, if it is still buffered.
    fn map_as_host(&self, lease: &Lease, epoch: u64) {
        let node = lease.node();
        let hold = node.fs().hold(node, HolderKind::OpenFile, 1).expect("everybody may open it");
        let hold = Some(Arc::new(hold)).filter(|hold| hold.effect() == Effect::Buffered);
        let mut state = self.world.state();
        let is_late = !self.takes(&state[self.number], epoch);
        let dropped = if is_late { hold } else { std::mem::replace(&mut state[self.number].host, hold) };
        World::check_one_copy(&state);
        drop(state);
        drop(dropped);
    }

    /// Maps what was granted, if there was no recall since.
    fn map(&self, grant: &Grant) {
        let mut state = self.world.state();
        let mapped = &mut state[self.number];
        if !self.takes(mapped, grant.epoch) {
            return;
        }
        for part in &grant.parts {
            for offset in (part.offset..part.offset + part.size).step_by(BLOCK_SIZE as usize) {
                let page = match part.what {
                    What::Medium(at) => What::Medium(at + (offset - part.offset)),
                    What::Zeroes => What::Zeroes,
                };
                mapped.pages.insert(offset / BLOCK_SIZE, page);
            }
        }
        World::check_one_copy(&state);
    }

    /// Does an access if there is a page for it.
    fn reach(&self, block: u64, store: Option<u64>) -> Option<Access> {
        let state = self.world.state();
        let mapped = &state[self.number];
        if mapped.host.is_some() {
            // What the host does with its cache is not looked at here.
            return Some(Access::Unknown);
        }
        let counts = mapped.given_up.is_none_or(|(from, to)| !(from..to).contains(&block));
        let page = *mapped.pages.get(&block)?;
        match (page, store) {
            (What::Medium(at), Some(value)) => {
                self.world.medium.write_all_at(&value.to_le_bytes(), at).expect("memory can be stored to");
                Some(Access::Done(Act::Store { block, value }, counts))
            }
            (What::Medium(at), None) => {
                let mut bytes = [0; 8];
                self.world.medium.read_exact_at(&mut bytes, at).expect("memory can be loaded from");
                let value = u64::from_le_bytes(bytes);
                let is_ours = value == 0 || super::file_of(value) == self.file;
                assert!(is_ours, "somebody else's block: a program has loaded {value:#x} from another file");
                Some(loaded(block, value, false, counts))
            }
            (What::Zeroes, None) => Some(loaded(block, 0, true, counts)),
            (What::Zeroes, Some(_)) => None,
        }
    }

    /// Unmaps everything.
    pub(super) fn unmap(&self) {
        let mut state = self.world.state();
        let mapped = &mut state[self.number];
        mapped.pages.clear();
        let host = mapped.host.take();
        drop(state);
        drop(host);
    }
}

fn loaded(block: u64, value: u64, zeroes: bool, counts: bool) -> Access {
    if counts { Access::Done(Act::Load { block, value, zeroes }, true) } else { Access::Unknown }
}
