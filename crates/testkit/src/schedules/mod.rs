//! Threads in each other's way: whatever the schedule, there is an order of their operations that explains all answers and
//! what is on the volume; and whenever the power fails, one that explains what is left.
//!
//! Who decides about the schedule is not known here: a test brings its own way to start threads and to wait for them.

pub mod leases;
mod order;
mod plan;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as PlainU64, Ordering};

use lodefs_core::{Fs, HolderKind, Ino, Kind, OpenIntent, Switch};
use lodefs_pmem::{Access, Domain, Event, Medium, Recording};
use lodefs_sync::AtomicU64;
use rustix::io::Errno;

use self::order::{Done, explain};
pub use self::plan::{Plan, Theme};
use crate::crash::{self, CrashImage, Snapshot};
use crate::engine::EngineTarget;
use crate::explore::{Boot, Failure, Looker, View, homes_start, open_options, shows, shows_but_content};
use crate::memory_file::MemoryFile;
use crate::model::{EPOCH_SECONDS, Leniency, Model};
use crate::operation::Operation;
use crate::rng::Rng;
use crate::target::Target as _;

/// Size of the volumes.
const SIZE: u64 = 1 << 20;

/// A thread's work, to be done in whatever way the caller has threads.
pub type Work = Box<dyn FnOnce() -> Vec<Record> + Send>;

/// What a thread did, and when.
#[derive(Clone, Debug)]
pub struct Record {
    done: Done,
    /// Events of the log before it began and when it had ended.
    events: (usize, usize),
}

/// A volume on which threads are about to start.
pub struct Meeting {
    domain: Domain,
    plan: Plan,
    /// The volume before, and what is on it.
    start: Snapshot,
    model: Model,
    fs: Arc<Fs>,
    recording: Recording,
    /// What was done to the medium since it was as in `start`, before the threads.
    opening: Vec<Event>,
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn options() -> lodefs_core::OpenOptions {
    open_options(Arc::new(AtomicU64::new(EPOCH_SECONDS.unsigned_abs() * 1_000_000_000)))
}

impl Meeting {
    /// Makes the volume of a plan.
    ///
    /// # Errors
    /// If an answer is wrong before any thread has started.
    pub fn new(plan: Plan, domain: Domain) -> Result<Self, String> {
        let file = MemoryFile::new(SIZE).map_err(told)?;
        Fs::format(&file.open(domain).map_err(told)?, &lodefs_core::FormatOptions::default())
            .map_err(told)?;
        let mut model = Model::new();
        let mut target =
            EngineTarget::new(Fs::open(file.open(domain).map_err(told)?, &options()).map_err(told)?);
        plan.before.iter().try_for_each(|operation| step(&mut target, &mut model, operation))?;
        target.close().map_err(told)?;
        let start = Snapshot::new(file.read().map_err(told)?, homes_start(SIZE)?);
        // Opened again, nothing of it is in memory.
        let (medium, recording) =
            Medium::recording_from_image(start.bytes(), domain, Access::ReadWrite).map_err(told)?;
        let fs = Fs::open(medium, &options()).map_err(told)?;
        Ok(Self { domain, plan, start, model, fs, recording, opening: Vec::new() })
    }

    /// Opens what the threads need, and gives what each is to do; and what bystanders are to do, who only look or wait.
    ///
    /// # Errors
    /// If an answer is wrong.
    pub fn begin(&mut self) -> Result<Vec<Work>, String> {
        let mut targets: Vec<EngineTarget> =
            self.plan.threads.iter().map(|_| EngineTarget::new(Arc::clone(&self.fs))).collect();
        for operation in &self.plan.opening {
            // Each thread has its own open file.
            let owner = if let Operation::Open { slot, .. } = operation { usize::from(slot.0) } else { 0 };
            step(&mut targets[owner], &mut self.model, operation)?;
        }
        self.opening = self.recording.take();
        let clock = Arc::new(PlainU64::new(0));
        let work = targets.into_iter().zip(self.plan.threads.clone()).map(|(mut target, operations)| {
            let (clock, recording) = (Arc::clone(&clock), self.recording.clone());
            let tick = move || clock.fetch_add(1, Ordering::Relaxed);
            let work = move || {
                let records = operations.into_iter().map(|operation| {
                    let (began, from) = (tick(), recording.len());
                    let reply = target.apply(&operation);
                    let (ended, to) = (tick(), recording.len());
                    let done = Done { operation, reply, returned: true, began, ended };
                    Record { done, events: (from, to) }
                });
                records.collect()
            };
            Box::new(work) as Work
        });
        let closers = if self.plan.theme == Theme::Closing { 2 } else { 0 };
        let bystanders = [bystander(&self.fs, look_around)];
        let bystanders = bystanders.into_iter().chain((0..2).map(|_| bystander(&self.fs, hold_and_let_go)));
        let bystanders = bystanders.chain((0..closers).map(|_| bystander(&self.fs, close)));
        Ok(work.chain(bystanders).collect())
    }

    /// Judges what the threads did: the answers and the volume, and what crashes leave, of which one in `one_in` is looked at.
    ///
    /// # Errors
    /// What cannot be explained.
    pub fn judge(self, threads: &[Vec<Record>], one_in: u64, seed: u64) -> Result<(), String> {
        let all: Vec<Vec<Done>> =
            threads.iter().map(|thread| dones(thread, usize::MAX, usize::MAX)).collect();
        let view = View::of(&self.fs)?;
        explain(&self.model, &all, leniency(self.plan.theme), &mut |model| {
            shows(&view, model, EPOCH_SECONDS)
        })
        .map_err(|fault| format!("without a crash: {fault}"))?;
        let mut log = self.opening;
        let first = log.len();
        log.append(&mut self.recording.take());
        drop(self.fs);
        let crashes =
            Crashes { domain: self.domain, model: &self.model, threads, theme: self.plan.theme, first };
        crashes.judge(&self.start, &log, one_in, seed)
    }
}

/// Does one operation on both.
fn step(target: &mut EngineTarget, model: &mut Model, operation: &Operation) -> Result<(), String> {
    let reply = target.apply(operation);
    model.judge(operation, &reply, Leniency::default()).map_err(|expected| {
        format!("before the threads: {operation:?}: expected {expected:?}, observed {reply:?}")
    })
}

/// Work that no order has to explain.
fn bystander(fs: &Arc<Fs>, work: impl FnOnce(&Arc<Fs>) + Send + 'static) -> Work {
    let fs = Arc::clone(fs);
    Box::new(move || {
        work(&fs);
        Vec::new()
    })
}

fn close(fs: &Arc<Fs>) {
    assert_eq!(fs.close().map_err(told), Ok(()), "nothing fails");
}

/// Asks for everything that can be asked while others work.
fn look_around(fs: &Arc<Fs>) {
    for ino in 1..8 {
        // Whether there is such an inode is up to the others.
        drop(fs.node_by_handle(Ino(ino), None));
        let space = fs.space();
        assert!(space.blocks_free <= space.blocks && space.inodes_free <= space.inodes, "{space:?}");
        assert!(fs.memory_use().inodes_count > 0, "the root directory is in memory");
        assert_eq!(fs.sync().map_err(told), Ok(()), "nothing fails");
    }
    if let Ok(file) = fs.root().and_then(|root| fs.lookup(&root, b"p"))
        && file.kind() == Kind::File
    {
        // Behind the end of a file there is nothing to be copied.
        let copied = fs.copy_range(&file, 1 << 40, &file, 1 << 41, 100);
        assert!(copied.is_err() || matches!(copied, Ok(0)), "{copied:?}");
    }
}

/// Holds a file as it is reached, and asks who else does.
fn hold_and_let_go(fs: &Arc<Fs>) {
    let Ok(file) = fs.root().and_then(|root| fs.lookup(&root, b"p").or_else(|_| fs.lookup(&root, b"f")))
    else {
        return;
    };
    for _ in 0..2 {
        assert!(fs.check_open(&file, OpenIntent::default()).is_ok(), "everybody may read");
        let Ok(hold) = fs.hold(&file, HolderKind::Io, 1) else { return };
        let Ok(status) = fs.dax_status(&file, Some(hold.asker())) else { return };
        assert_eq!(status.effect, Some(hold.effect()), "it stays so while it is held");
        // That it stays as it is needs nobody to go.
        let stays = fs.set_dax(&file, status.flag, Switch::Now, None).map_err(|error| error.errno());
        assert!(matches!(stays, Ok(false) | Err(Errno::ROFS)), "{stays:?}");
    }
}

/// What is forgiven.
fn leniency(theme: Theme) -> Leniency {
    Leniency { out_of_space: theme == Theme::Full, ..Leniency::default() }
}

/// What a thread had begun when so many events since it started had begun, and whether it had returned when so many were done.
fn dones(records: &[Record], begun: usize, done: usize) -> Vec<Done> {
    // What a closed volume refuses has not happened.
    let refused = |record: &Record| record.done.reply == Err(Errno::ROFS);
    let begun = records.iter().filter(|record| record.events.0 < begun && !refused(record));
    begun.map(|record| Done { returned: record.events.1 <= done, ..record.done.clone() }).collect()
}

struct Crashes<'a> {
    domain: Domain,
    model: &'a Model,
    threads: &'a [Vec<Record>],
    theme: Theme,
    /// Events before the threads.
    first: usize,
}

impl Crashes<'_> {
    fn judge(&self, start: &Snapshot, log: &[Event], one_in: u64, seed: u64) -> Result<(), String> {
        // Whatever had returned must be there: where a power failure may take it, the process is killed.
        let (failure, domain) = if self.domain.is_durable_on_fence() {
            (Failure::Power, self.domain)
        } else {
            (Failure::Process, Domain::Volatile)
        };
        let options = crash::Options {
            // What came before is not torn.
            from_event: self.first + 1,
            exhaustive_max: 4,
            singles_max: 2,
            random: 2,
            seed,
            ..crash::Options::new(domain)
        };
        let mut looker = Looker::new(SIZE, self.domain)?;
        let mut rng = Rng::new(seed);
        let judged = crash::for_each_crash_image(start, &[log], &options, |image| {
            if image.position < log.len() && !rng.one_in(one_in) {
                return ControlFlow::Continue(());
            }
            match self.judge_image(&mut looker, image, Boot::FIRST.after(failure)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => ControlFlow::Break(format!("{fault}\n  {image:?}")),
            }
        });
        match judged {
            ControlFlow::Continue(_) => Ok(()),
            ControlFlow::Break(fault) => Err(fault),
        }
    }

    fn judge_image(&self, looker: &mut Looker, image: &CrashImage<'_>, boot: Boot) -> Result<(), String> {
        // A process that dies in the middle of a store has begun it, and not done it.
        let in_store =
            image.undecided.iter().any(|it| it.kept < it.stores) && !self.domain.is_durable_on_fence();
        let begun = image.position.saturating_sub(self.first);
        let done = begun.saturating_sub(usize::from(in_store));
        let so_far: Vec<Vec<Done>> = self.threads.iter().map(|thread| dones(thread, begun, done)).collect();
        let found = looker.look(image, boot);
        let view = found.as_ref().as_ref().map_err(Clone::clone)?;
        let is_quiet = so_far.iter().flatten().all(|done| done.returned);
        explain(self.model, &so_far, leniency(self.theme), &mut |model| {
            if self.theme == Theme::Content && !is_quiet {
                // Of what overwrites data, any part may be there.
                shows_but_content(view, model, EPOCH_SECONDS)
            } else {
                shows(view, model, EPOCH_SECONDS)
            }
        })
    }
}
