//! An open volume: opening, closing, and what every operation needs.

use std::time::Duration;

use lodefs_pmem::{Domain, DomainReport, Medium};
use rustix::io::Errno;

use crate::access::{DaxPolicy, Holders, Rules};
use crate::alloc::{BlockAllocator, FreeError, Run};
use crate::clock::{Clock, Timekeeper};
use crate::committer::Committer;
use crate::error::{Error, Result, ensure};
use crate::format::{self, FormatOptions, NewVolume};
use crate::inode::cache::{InodeCache, Node};
use crate::inode::table::InodeTable;
use crate::journal::{CleanCounters, Journal};
use crate::lease::{Quarantine, Words};
use crate::ops::ancestry::Forest;
use crate::ops::tail::AllowedTails;
use crate::types::{Ino, Kind, SpaceUse};
use crate::volume::{self, Volume, VolumeInfo};
use crate::{bitmap, recovery};
use lodefs_sync::{Arc, AtomicBool, AtomicU64, Mutex, OnceLock, Ordering};

/// How to open a volume.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Change nothing, not even to recover: what a crash left to be done is done in memory. The medium may then be
    /// opened read-only as well, and must be if it cannot be written.
    pub read_only: bool,
    /// Source of timestamps.
    pub clock: Clock,
    /// On a `page` volume: make everything durable at least this often, from a thread of its own. `None`: only when
    /// asked to.
    pub commit_interval: Option<Duration>,
    /// Do not update access times when files are read.
    pub no_atime: bool,
    /// Do not store when a directory was last read.
    pub no_dir_atime: bool,
    /// Which files are direct.
    pub dax: DaxPolicy,
}

/// What opening the volume found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// It had been closed properly, so that there was nothing to do.
    pub was_clean: bool,
    /// Journal records that were replayed.
    pub records_replayed: u64,
    /// Inodes that were looked at to find out which blocks are free.
    pub inodes_scanned: u64,
    /// Inodes without links that were reclaimed.
    pub orphans_reclaimed: u64,
}

/// Memory that the engine takes, in bytes unless the name says otherwise. Estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Number of inodes in memory.
    pub inodes_count: usize,
    /// Inodes with their extents and directory blocks.
    pub inodes: usize,
    /// Which inode numbers are free.
    pub inode_table: usize,
    /// Which blocks are free.
    pub allocator: usize,
}

/// An open volume.
pub struct Fs {
    pub(crate) volume: Volume,
    pub(crate) journal: Journal,
    pub(crate) blocks: BlockAllocator,
    pub(crate) table: InodeTable,
    pub(crate) cache: InodeCache,
    pub(crate) clock: Timekeeper,
    pub(crate) keeps_atime: bool,
    pub(crate) keeps_dir_atime: bool,
    pub(crate) dax_rules: Rules,
    pub(crate) holders: Holders,
    pub(crate) last_lease: AtomicU64,
    pub(crate) quarantine: Quarantine,
    pub(crate) words: Words,
    /// Held while a directory moves to another parent, so that the ancestors of directories stand still.
    pub(crate) moving_directories: Mutex<Forest>,
    read_only: bool,
    closed: AtomicBool,
    committer: Mutex<Option<Committer>>,
    /// An inode without links could not be reclaimed: the next open has to look for it.
    leaves_orphans: AtomicBool,
    pub(crate) tails: AllowedTails,
    latched: OnceLock<String>,
    report: RecoveryReport,
}

impl Fs {
    /// Makes a volume that fills `medium`. What was there is lost.
    pub fn format(medium: &Medium, options: &FormatOptions) -> Result<()> {
        format::format(medium, options)
    }

    /// Makes a volume in a new or empty file. A new file gets its name when the volume is complete. An empty file, or one
    /// that an interrupted attempt left, is [`Error::Unfinished`] until then.
    pub fn make(new: &NewVolume<'_>, options: &FormatOptions) -> Result<()> {
        format::create(new, options)
    }

    /// What the superblock on `medium` says. Nothing else is looked at, and nothing is changed.
    pub fn probe(medium: &Medium) -> Result<VolumeInfo> {
        volume::probe(medium)
    }

    /// Whether the volume on `medium` was closed cleanly, so that opening it has nothing to recover.
    pub fn probe_clean(medium: Medium) -> Result<bool> {
        let volume = Volume::open(medium)?;
        Ok(crate::journal::state::read(&volume)?.is_clean())
    }

    /// Opens the volume on `medium`, and recovers it if it was not closed cleanly.
    pub fn open(medium: Medium, options: &OpenOptions) -> Result<Arc<Self>> {
        let volume = Volume::open(medium)?;
        let mut opened = recovery::open(&volume, options.read_only)?;
        let (orphans, tails) = (std::mem::take(&mut opened.orphans), std::mem::take(&mut opened.tails));
        let fs = Arc::new(Self::assemble(volume, opened, options));
        // What is left to be done is not done: the next open begins anew.
        fs.check_root().and_then(|()| fs.finish_recovery(&tails, &orphans)).inspect_err(|_| fs.abandon())?;
        let interval = options.commit_interval.filter(|_| fs.domain().domain == Domain::Page);
        if let Some(interval) = interval.filter(|_| !options.read_only) {
            *fs.committer.lock() = Some(Committer::start(&fs, interval)?);
        }
        Ok(fs)
    }

    fn check_root(self: &Arc<Self>) -> Result<()> {
        let damaged = |fault| Error::Corrupt { object: "root directory".into(), fault };
        let root = self.node(Ino::ROOT).map_err(|error| match error {
            Error::Refused(_) => damaged("it does not exist"),
            other => other,
        })?;
        if root.kind() != Kind::Directory {
            return Err(damaged("it is not a directory"));
        }
        Ok(())
    }

    /// Settles files to which programs were appending, then reclaims inodes without links: before the first is done no block may be freed or
    /// taken, because words are in blocks that are free.
    fn finish_recovery(self: &Arc<Self>, tails: &[Ino], orphans: &[Ino]) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        for ino in tails {
            self.settle_after_crash(&self.node(*ino)?)?;
        }
        for orphan in orphans {
            if let Err(error) = self.reclaim_orphan(*orphan) {
                self.note_orphan(*orphan, &error);
            }
        }
        Ok(())
    }

    /// An open volume with what opening it yielded. Orphans are left to the caller.
    pub(crate) fn assemble(volume: Volume, opened: recovery::Opened, options: &OpenOptions) -> Self {
        Self {
            dax_rules: Rules::new(options.dax, volume.medium.domain()),
            holders: Holders::default(),
            last_lease: AtomicU64::new(0),
            quarantine: Quarantine::default(),
            words: Words::default(),
            volume,
            journal: opened.journal,
            blocks: opened.blocks,
            table: opened.table,
            cache: InodeCache::default(),
            clock: Timekeeper::new(options.clock.clone()),
            keeps_atime: !options.no_atime,
            keeps_dir_atime: !options.no_atime && !options.no_dir_atime,
            moving_directories: Mutex::new(Forest::default()),
            read_only: options.read_only,
            closed: AtomicBool::new(false),
            committer: Mutex::new(None),
            leaves_orphans: AtomicBool::new(false),
            latched: OnceLock::new(),
            tails: opened.allowed_tails,
            report: opened.report,
        }
    }

    /// Leaves the volume as after a crash: the next open recovers it.
    pub(crate) fn abandon(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Closes the volume cleanly: everything is at home, the bitmap is saved, and the next open has nothing to do.
    /// Later operations that would change something are refused. Closing again does nothing.
    ///
    /// If something failed to become durable before, or an unlinked file is still referred to, the volume is left as
    /// after a crash, and the next open recovers it.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || self.read_only {
            return Ok(());
        }
        // Whoever drops the volume next can be sure that no thread of ours still holds the medium.
        let committer = self.committer.lock().take();
        if let Some(committer) = committer {
            committer.stop();
        }
        self.check_latch()?;
        self.journal.checkpoint_all(&self.volume).map_err(|error| self.latch(error))?;
        // A program may still reach freed blocks: only an open that finds nobody at the volume may use them again.
        let is_reached = !self.quarantine.is_empty();
        if is_reached || self.leaves_orphans.load(Ordering::Acquire) || self.cache.has_unlinked() {
            return Ok(());
        }
        if !self.end_words() {
            return Ok(());
        }
        self.blocks.release_deferred(u64::MAX);
        let save = |update| {
            let saved = bitmap::save(&self.volume, &self.blocks, update)?;
            let counters = CleanCounters {
                used_inodes: self.table.used(),
                inode_chunk_hint: self.table.hint(),
                free_blocks: self.blocks.counts().free,
            };
            Ok((counters, saved))
        };
        self.journal.close(&self.volume, save).map_err(|error| self.latch(error))
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// What the superblock says.
    pub fn info(&self) -> VolumeInfo {
        self.volume.info()
    }

    /// The durability domain, and how it was found.
    pub fn domain(&self) -> &DomainReport {
        self.volume.medium.report()
    }

    /// Whether the volume was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The root directory.
    pub fn root(self: &Arc<Self>) -> Result<Node> {
        self.node(Ino::ROOT)
    }

    /// The inode with this number and generation (any, if `None`), whether or not a name leads to it. STALE if it is
    /// gone.
    pub fn node_by_handle(self: &Arc<Self>, ino: Ino, generation: Option<u32>) -> Result<Node> {
        let node = self.node(ino)?;
        let same = generation.is_none_or(|generation| generation == node.inode().generation);
        ensure(same, Errno::STALE)?;
        drop(node.inode().read()?);
        Ok(node)
    }

    /// Space and inodes, in use and free.
    pub fn space(&self) -> SpaceUse {
        let counts = self.blocks.counts();
        let shape = &self.volume.shape;
        let blocks = shape.data_end - shape.data_start;
        let used = self.table.used();
        // Number zero is none.
        let inodes = shape.inode_chunks_max * lodefs_layout::inode_map::CHUNK_INODES - 1;
        SpaceUse {
            block_size: lodefs_layout::BLOCK_SIZE,
            blocks,
            blocks_free: counts.free,
            blocks_available: counts.free.saturating_sub(counts.reserve),
            inodes,
            inodes_free: inodes.saturating_sub(used),
            blocks_free_huge: counts.whole_chunks_free * lodefs_layout::CHUNK_BLOCKS,
        }
    }

    /// Makes everything that returned so far durable, as far as the domain can.
    pub fn sync(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        // After a close as well: something that was on the way may have returned since.
        self.check_latch()?;
        self.journal.sync(&self.volume).map_err(|error| self.latch(error))
    }

    /// Memory in use, estimated.
    pub fn memory_use(&self) -> MemoryUse {
        let (inodes_count, inodes) = self.cache.memory();
        MemoryUse { inodes_count, inodes, inode_table: self.table.memory(), allocator: self.blocks.memory() }
    }

    /// Refuses if nothing may be changed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        ensure(!self.read_only && !self.closed.load(Ordering::Acquire), Errno::ROFS)?;
        self.check_latch()
    }

    fn check_latch(&self) -> Result<()> {
        if let Err(error) = self.volume.medium.check_whole() {
            self.latch(error.into());
        }
        match self.latched.get() {
            Some(reason) => Err(Error::Latched(reason.clone())),
            None => Ok(()),
        }
    }

    /// Whether a failure of the medium has made the volume read-only. If so, the log has it by the time this returns.
    pub fn is_latched(&self) -> bool {
        self.check_latch().is_err()
    }

    /// The failure of the medium that has made the volume read-only, if there was one.
    pub fn fault(&self) -> Option<String> {
        self.check_latch().err().and_then(|_| self.latched.get().cloned())
    }

    /// Notes that something could not be made durable: from now on nothing is changed any more.
    pub(crate) fn latch(&self, error: Error) -> Error {
        if self.latched.set(error.to_string()).is_ok() {
            tracing::error!(%error, "storing failed; the volume is read-only from now on");
        }
        error
    }

    /// Notes that an inode without links could not be reclaimed.
    pub(crate) fn note_orphan(&self, ino: Ino, error: &Error) {
        self.leaves_orphans.store(true, Ordering::Release);
        tracing::warn!(ino = ino.0, %error, "an unlinked inode could not be reclaimed; the next open tries again");
    }

    /// Moves everything home, so that blocks freed earlier can be used again.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.journal.checkpoint_all(&self.volume).map_err(|error| self.latch(error))?;
        self.release_deferred();
        Ok(())
    }

    fn release_deferred(&self) {
        let live = self.journal.live_generation();
        self.blocks.release_deferred(live - 1);
    }

    /// Frees the blocks of a committed operation: at once, if nothing can write to them or bring them back.
    ///
    /// Blocks of metadata may still be the target of records up to `generation`. On a `page` volume a power failure may
    /// undo the whole operation, so that even data must stay until its record is at home.
    pub(crate) fn free_committed(&self, data: &[Run], metadata: &[Run], generation: u64) {
        let at_once = self.domain().domain != Domain::Page;
        for run in data {
            if at_once {
                self.give_back(*run);
            } else {
                self.give_back_after(*run, generation);
            }
        }
        for run in metadata {
            self.give_back_after(*run, generation);
        }
        if !metadata.is_empty() || !at_once {
            self.release_deferred();
        }
    }

    /// Frees blocks that nothing refers to.
    pub(crate) fn give_back(&self, run: Run) {
        if let Err(error) = self.blocks.free(run) {
            report_double_free(&error);
        }
    }

    /// Frees blocks that nothing refers to once the records of `generation` are void.
    fn give_back_after(&self, run: Run, generation: u64) {
        if let Err(error) = self.blocks.defer_free(run, generation) {
            report_double_free(&error);
        }
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the volume failed; the next open recovers it");
        }
    }
}

/// Only a damaged volume, on which two files claim one block, gets here.
fn report_double_free(error: &FreeError) {
    tracing::error!(%error, "a block is freed twice; run `lodefs fsck`");
}
