//! The journal: makes each metadata operation atomic, and durable as the domain allows.
//!
//! # Protocol
//! 1. An operation gathers the bytes it will change (a [`crate::tx::Tx`]). Blocks that nothing refers to yet are
//!    written directly and fenced first.
//! 2. It takes a lane, draws a sequence number, writes one checksummed record there, and fences. **Now it is
//!    committed.** A crash before leaves a record that does not verify: the operation never happened.
//! 3. It stores the bytes at home without waiting for them. A crash now is healed by replaying the record.
//! 4. From time to time a *checkpoint* makes everything at home durable and advances the generation in the volume's
//!    state; the records of the generation before are then void, and their half of each lane is used again.
//!
//! Two operations that touch the same bytes are ordered by the inode locks they hold until after step 3, so the
//! sequence numbers, drawn under those locks, are a valid order for replay. A record that is missing because of a
//! crash belongs to an operation that held its locks until the crash: no other record can depend on it.
//!
//! On a `page` volume the host may put any page of the shared mapping on the medium at any time. There the homes
//! are changed in a private overlay, which a checkpoint copies out after the records are on the medium; and the
//! state names the last sequence number that was completely on the medium, beyond which recovery does not replay
//! unless the host has been up all the time (its page cache then has everything that the process wrote).
//!
//! Lock order: inode locks, then one lane; or: the checkpoint lock, then all lanes in order.

pub(crate) mod lane;
pub(crate) mod replay;
pub(crate) mod state;

use lodefs_layout::journal::seal;
use lodefs_layout::state::{CLEAN, GATED, State};
use lodefs_pmem::{DirtyRanges, Domain, Durable, Medium, Ordered};
use zerocopy::little_endian::{U32, U64};

use self::lane::Lane;
use crate::error::{Error, Result};
use crate::volume::Volume;
use lodefs_sync::{AtomicU64, Mutex, MutexGuard, Ordering, thread_number};

pub(crate) struct Journal {
    lanes: Box<[Mutex<Lane>]>,
    /// The last sequence number drawn.
    seq: AtomicU64,
    /// Counts whatever makes a sync necessary, on `page` volumes.
    activity: AtomicU64,
    keeper: Mutex<Keeper>,
    /// Oldest generation that recovery would replay. Mirrors the durable state.
    live_generation: AtomicU64,
}

/// What only one checkpoint or sync at a time may touch.
struct Keeper {
    state: State,
    /// `activity` as of the last sync.
    synced_activity: u64,
    /// Why a checkpoint or sync failed. None is begun any more: a second checkpoint would use the half of the lanes again to
    /// which the first has turned, where others have put records since that only the journal has.
    failed: Option<String>,
}

/// What a clean close leaves for the next open.
pub(crate) struct CleanCounters {
    pub(crate) used_inodes: u64,
    pub(crate) inode_chunk_hint: u64,
    pub(crate) free_blocks: u64,
}

/// An operation is committed.
pub(crate) struct Committed {
    /// The generation of its record: blocks that it freed may be the target of records up to this generation.
    pub(crate) generation: u64,
}

impl Journal {
    /// Starts a journal on a volume whose homes are all up to date, in a new generation.
    ///
    /// `last` is the newest state on the medium, `last_seq` the last sequence number it ever used.
    pub(crate) fn start(volume: &Volume, last: &State, last_seq: u64, ready: &Durable) -> Result<Self> {
        // Records of the present and of the next generation may lie around from before a crash: skip both.
        let generation = last.generation.get() + 2;
        let mut state = State::new(last.update.get() + 1, generation);
        state.committed_seq = U64::new(last_seq);
        state.boot_id = volume.medium.boot_id();
        state.flags = U32::new(if volume.medium.domain() == Domain::Page { GATED } else { 0 });
        let _live = state::write(volume, state, ready)?;
        Ok(Self::with_state(volume, state, last_seq))
    }

    /// A journal that will never be written to, for volumes opened read-only.
    pub(crate) fn idle(volume: &Volume, last: &State) -> Self {
        Self::with_state(volume, *last, 0)
    }

    fn with_state(volume: &Volume, state: State, last_seq: u64) -> Self {
        let generation = state.generation.get();
        let lanes = (0..volume.shape.lanes).map(|i| Mutex::new(Lane::new(volume, i, generation))).collect();
        Self {
            lanes,
            seq: AtomicU64::new(last_seq),
            activity: AtomicU64::new(0),
            keeper: Mutex::new(Keeper { state, synced_activity: 0, failed: None }),
            live_generation: AtomicU64::new(generation),
        }
    }

    /// Commits the record in `record` (with room for the head, which is filled in here) and applies it.
    ///
    /// `ready` shows that whatever the record refers to is in place.
    pub(crate) fn commit(&self, volume: &Volume, record: &mut [u8], ready: &Ordered) -> Result<Committed> {
        loop {
            let mut lane = self.take_lane();
            let Some(at) = lane.reserve(record.len()) else {
                let full = lane.generation;
                drop(lane);
                self.checkpoint(volume, full)?;
                continue;
            };
            let generation = lane.generation;
            self.record_and_apply(volume, &mut lane, at, record, ready)?;
            let filling = lane.is_filling();
            drop(lane);
            if filling {
                self.checkpoint_unless_busy(volume, generation)?;
            }
            return Ok(Committed { generation });
        }
    }

    fn record_and_apply(
        &self,
        volume: &Volume,
        lane: &mut Lane,
        at: u64,
        record: &mut [u8],
        _ready: &Ordered,
    ) -> Result<()> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        seal(record, lane.generation, seq, volume.seed);
        let flushed = volume.medium.write(at, record)?;
        let committed = volume.medium.fence(flushed)?;
        self.note_activity(volume);
        for write in lodefs_layout::journal::writes(record) {
            let (offset, bytes) = write.expect("the record was built by Tx, which pads every write");
            lane.dirty.push(volume.medium.store_meta(offset, bytes, &committed)?);
        }
        Ok(())
    }

    /// A lane that is free, or the one that this thread waits for.
    fn take_lane(&self) -> MutexGuard<'_, Lane> {
        // Each thread mostly finds its own lane free and in its cache.
        let first = thread_number();
        // Tests of schedules have few threads, which must meet in a lane.
        let count = if cfg!(lodefs_shuttle) { 2 } else { self.lanes.len() };
        (0..count)
            .find_map(|i| self.lanes[(first + i) % count].try_lock())
            .unwrap_or_else(|| self.lanes[first % count].lock())
    }

    fn all_lanes(&self) -> Vec<MutexGuard<'_, Lane>> {
        self.lanes.iter().map(|lane| lane.lock()).collect()
    }

    /// Something was written that a sync has to wait for.
    pub(crate) fn note_activity(&self, volume: &Volume) {
        // Elsewhere a sync does not ask, and threads would only take this counter from each other's caches.
        if volume.medium.domain() == Domain::Page {
            self.activity.fetch_add(1, Ordering::Release);
        }
    }

    /// Makes everything durable at home that was recorded in generation `generation` or before, so that its records
    /// are void. Returns at once if that is already so.
    pub(crate) fn checkpoint(&self, volume: &Volume, generation: u64) -> Result<()> {
        let mut keeper = self.keeper.lock();
        self.checkpoint_locked(volume, &mut keeper, generation)
    }

    /// Like [`Self::checkpoint`], but leaves it to whoever is already at it.
    fn checkpoint_unless_busy(&self, volume: &Volume, generation: u64) -> Result<()> {
        match self.keeper.try_lock() {
            Some(mut keeper) => self.checkpoint_locked(volume, &mut keeper, generation),
            None => Ok(()),
        }
    }

    fn checkpoint_locked(&self, volume: &Volume, keeper: &mut Keeper, generation: u64) -> Result<()> {
        if keeper.state.generation.get() > generation {
            return Ok(());
        }
        keeper.check()?;
        let done = self.move_home(volume, keeper);
        keeper.note_failure(volume, &done);
        done
    }

    fn move_home(&self, volume: &Volume, keeper: &mut Keeper) -> Result<()> {
        let next_generation = keeper.state.generation.get() + 1;
        let mut dirty = DirtyRanges::default();
        let (staged, seq, activity) = {
            let mut lanes = self.all_lanes();
            for lane in &mut lanes {
                dirty.append(&mut lane.turn_over(next_generation));
            }
            (
                volume.medium.stage(dirty),
                self.seq.load(Ordering::Relaxed),
                self.activity.load(Ordering::Acquire),
            )
        };
        let mut explained = volume.medium.sync(Medium::nothing_flushed())?;
        if keeper.state.is_gated() {
            // The overlay's pages hold the effects of records that a later boot replays only up to this number.
            explained = write_state(volume, keeper, &explained, |state| state.committed_seq = U64::new(seq))?;
        }
        let (settled, at_home) = volume.medium.settle(staged, &explained)?;
        let _void = write_state(volume, keeper, &at_home, |state| {
            state.generation = U64::new(next_generation);
            // So that no later life of the volume draws these numbers again.
            state.committed_seq = U64::new(seq);
        })?;
        keeper.synced_activity = activity;
        let lanes = self.all_lanes();
        let mut still_dirty = DirtyRanges::default();
        for lane in &lanes {
            still_dirty.extend_from(&lane.dirty);
        }
        volume.medium.release(settled, &still_dirty);
        self.live_generation.store(next_generation, Ordering::Release);
        Ok(())
    }

    /// The last sequence number that was drawn.
    pub(crate) fn last_seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// Checkpoints everything recorded so far.
    pub(crate) fn checkpoint_all(&self, volume: &Volume) -> Result<()> {
        let generation = self.keeper.lock().state.generation.get();
        self.checkpoint(volume, generation)
    }

    /// The oldest generation whose records recovery would still replay.
    pub(crate) fn live_generation(&self) -> u64 {
        self.live_generation.load(Ordering::Acquire)
    }

    /// Makes everything that returned so far durable, as far as the domain can.
    pub(crate) fn sync(&self, volume: &Volume) -> Result<()> {
        if volume.medium.domain() != Domain::Page {
            // Each operation fenced what it wrote before it returned.
            return Ok(());
        }
        let wanted = self.activity.load(Ordering::Acquire);
        let mut keeper = self.keeper.lock();
        if keeper.synced_activity >= wanted {
            return Ok(());
        }
        keeper.check()?;
        let done = self.sync_records(volume, &mut keeper);
        keeper.note_failure(volume, &done);
        done
    }

    fn sync_records(&self, volume: &Volume, keeper: &mut Keeper) -> Result<()> {
        let (seq, activity) = {
            let _lanes = self.all_lanes();
            (self.seq.load(Ordering::Relaxed), self.activity.load(Ordering::Acquire))
        };
        let durable = volume.medium.sync(Medium::nothing_flushed())?;
        if keeper.state.committed_seq.get() != seq {
            let _committed =
                write_state(volume, keeper, &durable, |state| state.committed_seq = U64::new(seq))?;
        }
        keeper.synced_activity = activity;
        Ok(())
    }

    /// Marks the volume as closed cleanly, after `save` has saved what belongs to the state update with the number that
    /// it gets. The caller has checkpointed; whoever is still on the way undoes the mark with what he writes.
    pub(crate) fn close(
        &self,
        volume: &Volume,
        save: impl FnOnce(u64) -> Result<(CleanCounters, Durable)>,
    ) -> Result<()> {
        // Held all the time, so that no other update takes that number.
        let mut keeper = self.keeper.lock();
        keeper.check()?;
        let (counters, saved) = save(keeper.state.update.get() + 1)?;
        let _clean = write_state(volume, &mut keeper, &saved, |state| {
            state.flags = U32::new(state.flags.get() | CLEAN);
            state.used_inodes = U64::new(counters.used_inodes);
            state.inode_chunk_hint = U64::new(counters.inode_chunk_hint);
            state.free_blocks = U64::new(counters.free_blocks);
        })?;
        Ok(())
    }
}

impl Keeper {
    /// Refuses once something has failed to become durable.
    fn check(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |reason| Err(Error::Latched(reason.clone())))
    }

    fn note_failure(&mut self, volume: &Volume, done: &Result<()>) {
        if let Err(error) = done {
            self.failed = Some(error.to_string());
            state::distrust_cache(volume, &self.state, error);
        }
    }
}

/// Replaces the volume's state; in memory too, once it is durable. The new one says that the volume is clean only if
/// `change` says so.
fn write_state(
    volume: &Volume,
    keeper: &mut Keeper,
    before: &Durable,
    change: impl FnOnce(&mut State),
) -> Result<Durable> {
    let mut state = keeper.state;
    state.update = U64::new(state.update.get() + 1);
    state.flags = U32::new(state.flags.get() & !CLEAN);
    change(&mut state);
    let durable = state::write(volume, state, before)?;
    keeper.state = state;
    Ok(durable)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use lodefs_pmem::{Access, OpenOptions, Reserve};
    use lodefs_sync::Arc;

    use super::*;
    use crate::fs::Fs;
    use crate::types::{NewInode, NewKind};

    /// A `page` volume in a file, to which the host may do anything.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            lodefs_pmem::create_file(&host.path(), 4 << 20, Reserve::Full).unwrap();
            Fs::format(&host.medium(), &crate::FormatOptions::default()).unwrap();
            host
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("volume")
        }

        fn medium(&self) -> Medium {
            let options = OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::Page) };
            Medium::open(&self.path(), &options).unwrap()
        }

        fn open(&self) -> Arc<Fs> {
            Fs::open(self.medium(), &crate::OpenOptions::default()).unwrap()
        }

        fn file(&self) -> File {
            File::options().read(true).write(true).open(self.path()).unwrap()
        }
    }

    #[test]
    fn what_a_failed_checkpoint_has_turned_over_is_not_turned_over_again() {
        let host = Host::new();
        let fs = host.open();
        let file = host.file();
        file.set_len((4 << 20) - 4096).unwrap();
        assert!(matches!(fs.journal.checkpoint_all(&fs.volume), Err(Error::Medium(_))));
        // Somebody who was on the way has put a record there.
        fs.journal.lanes[0].lock().used = 64;
        fs.journal.note_activity(&fs.volume);
        assert!(matches!(fs.journal.checkpoint_all(&fs.volume), Err(Error::Latched(_))));
        assert!(matches!(fs.journal.sync(&fs.volume), Err(Error::Latched(_))));
        assert_eq!(fs.journal.lanes[0].lock().used, 64);
    }

    #[test]
    fn a_failure_that_is_none_of_writing_back_costs_nothing_that_was_done() {
        let host = Host::new();
        let fs = host.open();
        let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
        fs.create(&fs.root().unwrap(), b"not synced", &new).unwrap();
        let file = host.file();
        let mut last = [0; 4096];
        file.read_exact_at(&mut last, (4 << 20) - 4096).unwrap();
        file.set_len((4 << 20) - 4096).unwrap();
        assert!(matches!(fs.journal.checkpoint_all(&fs.volume), Err(Error::Medium(_))));
        fs.abandon();
        drop(fs);
        file.write_all_at(&last, (4 << 20) - 4096).unwrap();
        let fs = host.open();
        fs.lookup(&fs.root().unwrap(), b"not synced").unwrap();
    }

    #[test]
    fn a_journal_that_has_failed_is_not_closed_as_clean() {
        let medium = Medium::anonymous(4 << 20, Domain::Volatile).unwrap();
        Fs::format(&medium, &crate::FormatOptions::default()).unwrap();
        let fs = Fs::open(medium, &crate::OpenOptions::default()).unwrap();
        let saved = fs.volume.medium.sync(Medium::nothing_flushed()).unwrap();
        let counters = CleanCounters { used_inodes: 1, inode_chunk_hint: 0, free_blocks: 0 };
        // By somebody who was still on the way when all was moved home.
        fs.journal.keeper.lock().failed = Some("it failed".into());
        let closed = fs.journal.close(&fs.volume, |_| Ok((counters, saved)));
        assert!(matches!(closed, Err(Error::Latched(_))), "{closed:?}");
        fs.abandon();
    }

    #[test]
    fn whoever_is_still_on_the_way_when_the_volume_is_closed_leaves_it_unclean() {
        let host = Host::new();
        let fs = host.open();
        fs.close().unwrap();
        fs.journal.seq.fetch_add(1, Ordering::Relaxed);
        fs.journal.note_activity(&fs.volume);
        fs.sync().unwrap();
        drop(fs);
        assert!(!host.open().recovery().was_clean);
    }
}
