//! Programs that store to what they have mapped with `MAP_SYNC`, or append to files by themselves, and power failures: whatever they have
//! flushed is found again, without any fsync.
//!
//! On a [`Stage`] faults, operations and stores of programs come one after another. A program's stores are those of another process,
//! which maps the medium by itself: each is made to the medium and noted in the log of the engine's, as a cached store, a
//! flush of its lines and a fence, by a thread of its own. Then [`Play::judge`] makes the images that crashes leave.
//!
//! A program stores one thing after another, each flushed and fenced before the next: first data, say, then a pointer to it. So
//! whenever anything of a store is there, all that came before is there whole; and what was fenced is there in any case.
//! Whatever else the files hold is zero.

mod appends;
mod judge;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::Location;
use std::sync::Arc;

use lodefs_core::{
    DaxPolicy, FormatOptions, Fs, Lease, LeaseOptions, Lessee, Node, Recall, Touch, Touched, What as Shown,
};
use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::{Domain, Event, Recording, What};
use lodefs_sync::{AtomicU64, set_thread_number};

use self::appends::Appended;
pub use self::judge::{Play, Scope, Statistics};
use crate::crash::Snapshot;
use crate::explore::{homes_start, open_options};
use crate::memory_file::MemoryFile;
use crate::model::EPOCH_SECONDS;
use crate::path::TreePath;

/// The number of the program's thread in the log: none of the engine's has it.
const PROGRAM: u64 = 1 << 32;

/// What every block holds before it is first used.
const POISON: [u8; 8] = *b"unused\xa5\x5a";

/// How a program makes its stores durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// As it should: it flushes the lines and waits for them.
    Whole,
    /// It does not flush.
    NoFlush,
    /// It does not wait.
    NoFence,
}

/// When a program is told what it may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// When all that the fault has changed is durable.
    Committed,
    /// Before the last fence of the fault: what a wrong server would do. That fence, and what comes after it, is made when the
    /// program has stored something.
    TooEarly,
}

/// Something that a program has stored.
#[derive(Clone, Debug)]
struct Stored {
    path: TreePath,
    offset: u64,
    bytes: Vec<u8>,
}

/// A place of a file that a program has mapped.
#[derive(Debug)]
pub struct Mapped {
    path: TreePath,
    offset: u64,
    at: u64,
}

impl Mapped {
    /// The same, so many bytes further in its block.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        debug_assert!(self.offset % BLOCK_SIZE + bytes < BLOCK_SIZE, "no more was mapped");
        Self { offset: self.offset + bytes, at: self.at + bytes, ..self }
    }
}

/// A volume on which everything is recorded, and a program that has mapped files of it.
pub struct Stage {
    domain: Domain,
    fs: Arc<Fs>,
    /// The medium as another process has it.
    shared: File,
    recording: Recording,
    start: Snapshot,
    log: Vec<Event>,
    /// Events before anything is looked at.
    first: usize,
    /// Events before the first grant from there on had reached the program.
    granted: usize,
    leases: BTreeMap<TreePath, Lease>,
    /// Files to which the program appends by itself.
    appended: BTreeMap<TreePath, Appended>,
    /// Events of a fault that are still to come, if the grant came too early.
    held_back: Vec<Event>,
    stored: Vec<Stored>,
    /// Ways in which the program and the server behave.
    care: Care,
    timing: Timing,
    threads: usize,
}

/// A program that answers every recall at once.
struct Obedient;

impl Lessee for Obedient {
    fn recall(&self, recall: Recall) {
        drop(recall.answer);
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Stage {
    /// An empty volume, with old things in all its blocks.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(domain: Domain, size: u64) -> Result<Self, String> {
        Self::prepared(domain, size, |_| Ok(()))
    }

    /// One on which something was done before it was closed, so that nothing of that is on its way to the medium.
    ///
    /// # Errors
    /// If it cannot be made, or of what is done.
    pub fn prepared(
        domain: Domain,
        size: u64,
        prepare: impl FnOnce(&Arc<Fs>) -> lodefs_core::Result<()>,
    ) -> Result<Self, String> {
        set_thread_number(0);
        let file = MemoryFile::new(size).map_err(told)?;
        file.write(&POISON.repeat(size as usize / POISON.len())).map_err(told)?;
        Fs::format(&file.open(domain).map_err(told)?, &FormatOptions::default()).map_err(told)?;
        let clock = Arc::new(AtomicU64::new(EPOCH_SECONDS.unsigned_abs() * 1_000_000_000));
        let options = lodefs_core::OpenOptions { dax: DaxPolicy::Always, ..open_options(clock) };
        let fs = Fs::open(file.open(domain).map_err(told)?, &options).map_err(told)?;
        prepare(&fs).and_then(|()| fs.close()).map_err(told)?;
        drop(fs);
        let start = Snapshot::new(file.read().map_err(told)?, homes_start(size)?);
        let (medium, recording) = file.open(domain).map_err(told)?.watched();
        let shared = File::from(medium.share(true).map_err(told)?);
        let fs = Fs::open(medium, &options).map_err(told)?;
        Ok(Self {
            domain,
            fs,
            shared,
            recording,
            start,
            log: Vec::new(),
            first: 0,
            granted: 0,
            leases: BTreeMap::new(),
            appended: BTreeMap::new(),
            held_back: Vec::new(),
            stored: Vec::new(),
            care: Care::Whole,
            timing: Timing::Committed,
            threads: 0,
        })
    }

    /// The same with a program that is less careful, or a server that is too quick.
    #[must_use]
    pub fn with(self, care: Care, timing: Timing) -> Self {
        Self { care, timing, ..self }
    }

    /// The volume.
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// Of the engine.
    pub fn node(&self, path: &str) -> Result<Node, String> {
        let root = self.fs.root();
        let node = path.split('/').fold(root, |node, name| self.fs.lookup(&node?, name.as_bytes()));
        node.map_err(told)
    }

    /// Makes everything durable: crashes are looked at from here on.
    ///
    /// # Errors
    /// Of the engine.
    pub fn start(&mut self) -> Result<(), String> {
        self.fs.sync().map_err(told)?;
        self.note();
        self.mark();
        self.first = self.log.len();
        Ok(())
    }

    /// Something that a thread of its own does with the volume.
    ///
    /// # Errors
    /// Of the engine.
    pub fn beside(
        &mut self,
        work: impl FnOnce(&Arc<Fs>) -> lodefs_core::Result<()> + Send,
    ) -> Result<(), String> {
        self.threads += 1;
        let (fs, number) = (&self.fs, self.threads);
        let work = move || {
            set_thread_number(number);
            work(fs)
        };
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        self.note();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(told)
    }

    /// Takes over what the engine has logged.
    fn note(&mut self) {
        let events = self.recording.take().into_iter();
        self.log.extend(events.filter(|event| !matches!(event.what, What::Read { .. })));
    }

    /// Everybody knows of what was done so far. The mark has the number of things that were stored, and so are durable.
    fn mark(&mut self) {
        let number = self.stored.len() as u64;
        self.log.push(Event { thread: PROGRAM, what: What::Mark(number) });
    }

    /// The program maps a file with `MAP_SYNC`, unless it has done so already.
    ///
    /// # Errors
    /// Of the engine.
    pub fn map(&mut self, path: &str) -> Result<(), String> {
        if !self.leases.contains_key(&path.into()) {
            let options = LeaseOptions { writable: true, sync: true, pid: 1 };
            let lease = self.fs.lease(&self.node(path)?, Arc::new(Obedient), options).map_err(told)?;
            self.leases.insert(path.into(), lease);
            self.note();
        }
        Ok(())
    }

    /// The program touches a block, to write, and is granted it by a fault that may decide about `window` blocks of a hole.
    ///
    /// # Errors
    /// Of the engine, and if it is not granted the medium.
    pub fn touch(&mut self, path: &str, block: u64, window: u64) -> Result<Mapped, String> {
        self.note();
        self.map(path)?;
        let lease = &self.leases[&path.into()];
        let offset = block * BLOCK_SIZE;
        let touch = Touch { offset, write: true, from: 0, to: 1 << 40, window: window * BLOCK_SIZE };
        let mut at = None;
        let deliver = |touched: Touched| {
            let Touched::Granted(grant) = touched else { return };
            let holds = |it: &&lodefs_core::Part| (it.offset..it.offset + it.size).contains(&offset);
            let Some(part) = grant.parts.iter().find(holds) else { return };
            if let Shown::Medium(first) = part.what {
                at = Some(first + (offset - part.offset));
            }
        };
        lease.touch(&touch, deliver).map_err(told)?;
        let at = at.ok_or_else(|| format!("block {block} of {path} was not granted"))?;
        let from = self.log.len();
        self.note();
        if self.timing == Timing::TooEarly
            && let Some(last) = (from..self.log.len())
                .rev()
                .find(|position| matches!(self.log[*position].what, What::Fence { .. }))
        {
            self.held_back.extend(self.log.drain(last..));
        }
        self.mark();
        if self.granted <= self.first {
            self.granted = self.log.len();
        }
        Ok(Mapped { path: path.into(), offset, at })
    }

    /// The program stores something to what it has mapped, flushes it and waits.
    ///
    /// # Errors
    /// If the medium cannot be stored to.
    #[track_caller]
    pub fn store(&mut self, mapped: &Mapped, bytes: &[u8]) -> Result<(), String> {
        self.note();
        let Mapped { path, offset, at, .. } = mapped;
        self.shared.write_all_at(bytes, *at).map_err(told)?;
        let location = Location::caller();
        let mut log = |what| self.log.push(Event { thread: PROGRAM, what });
        log(What::Store { at: *at, bytes: bytes.to_vec(), non_temporal: false });
        if self.care != Care::NoFlush {
            log(What::Flush { at: *at, size: bytes.len() as u64, location });
        }
        if self.care != Care::NoFence {
            log(What::Fence { location });
        }
        self.stored.push(Stored { path: path.clone(), offset: *offset, bytes: bytes.to_vec() });
        self.mark();
        self.log.append(&mut self.held_back);
        Ok(())
    }

    /// Something is written through the page cache of a buffered file: like a store, as far as the program can tell. It is
    /// told that it is durable if `fsyncs`.
    ///
    /// # Errors
    /// Of the engine.
    pub fn write(&mut self, path: &str, offset: u64, bytes: &[u8], fsyncs: bool) -> Result<(), String> {
        let node = &self.node(path)?;
        self.fs.write(node, offset, bytes, false).map_err(told)?;
        if fsyncs {
            self.fs.fsync(node, true).map_err(told)?;
        }
        self.note();
        self.stored.push(Stored { path: path.into(), offset, bytes: bytes.to_vec() });
        self.mark();
        Ok(())
    }

    /// Ends it.
    pub fn finish(mut self) -> Play {
        self.note();
        // What the program leaves behind is not looked at.
        self.appended.clear();
        let Self { domain, start, log, first, granted, stored, .. } = self;
        Play { domain, start, log, first, granted, stored }
    }
}
