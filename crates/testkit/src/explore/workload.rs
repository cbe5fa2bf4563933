//! A workload: operations on a volume of which everything done to the medium is recorded.

use lodefs_sync::{AtomicU64, Ordering, set_thread_number};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lodefs_core::{Clock, FormatOptions, Fs, NewNames, OpenOptions};
use lodefs_layout::names::NameKey;
use lodefs_pmem::{Access, Domain, Event, Medium, Recording, What};
use serde::{Deserialize, Serialize};

use super::history::History;
use super::look::homes_start;
use super::stage::{POISON, Stage};
use crate::crash::Snapshot;
use crate::engine::EngineTarget;
use crate::generate::Generator;
use crate::memory_file::MemoryFile;
use crate::model::{EPOCH_SECONDS, Leniency, Model};
use crate::operation::{Object, Operation};
use crate::profile::Profile;
use crate::rng::Rng;
use crate::target::{Reply, Target as _};

/// What is done to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// What makes stores durable on its medium.
    #[serde(with = "domain_name")]
    pub domain: Domain,
    /// Size of the volume in bytes.
    pub size: u64,
    /// What is there before.
    pub stage: Stage,
    /// Changes of attributes, made durable and not looked at, that fill the journal before the operations.
    pub fillers: u32,
    /// Whether each operation is done by a thread of its own, and so by way of another lane of the journal.
    pub threads: bool,
    /// Decides which operations happen within one tick of the clock.
    pub ticks: u64,
    /// Whether the volume is closed at the end.
    pub closes: bool,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// Size of the volumes that workloads are done on by default: so small that they fill up.
const SIZE: u64 = 1 << 20;

impl Workload {
    /// These operations on a furnished volume.
    pub fn furnished(domain: Domain, operations: Vec<Operation>) -> Self {
        Self {
            domain,
            size: SIZE,
            stage: Stage::Furnished,
            fillers: 0,
            threads: false,
            ticks: 0,
            closes: true,
            operations,
        }
    }

    /// `count` operations on an empty volume that follow from `seed`; every other one is done by a new thread each.
    pub fn random(domain: Domain, seed: u64, count: usize) -> Self {
        let operations = Generator::new(seed, Profile::LODEFS).take(count).collect();
        let threads = seed % 2 == 1;
        Self { stage: Stage::Empty, threads, ticks: seed, ..Self::furnished(domain, operations) }
    }
}

/// Domains by their names.
mod domain_name {
    use lodefs_pmem::Domain;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
    pub(super) fn serialize<S: Serializer>(domain: &Domain, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(domain.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A workload that was done.
pub(super) struct Recorded {
    /// The medium before.
    pub(super) start: Snapshot,
    /// What was done to it. Mark `n` is where `n` operations had returned.
    pub(super) log: Rc<Vec<Event>>,
    /// Where the first mark is in the log.
    pub(super) first_mark: usize,
    /// What the volume must show, by mark.
    pub(super) history: History,
}

/// A volume to begin with.
#[derive(Clone)]
struct Base {
    start: Snapshot,
    model: Model,
    seconds: Vec<i64>,
}

/// Volumes to begin with, each made once.
#[derive(Default)]
pub(super) struct Bases(HashMap<(Domain, u64, Stage), Base>);

/// The engine and the model, in step, with a clock that is set by hand.
struct Actors {
    target: EngineTarget,
    model: Model,
    clock: Arc<AtomicU64>,
    seconds: Vec<i64>,
    rng: Rng,
    threads: bool,
    threads_started: usize,
}

impl Actors {
    /// The next tick of the clock, or the present one again.
    fn tick(&mut self, moves: bool) -> i64 {
        let last = self.seconds.last().copied().unwrap_or(EPOCH_SECONDS);
        let seconds = if moves { last + 1 } else { last };
        self.clock.store(nanoseconds(seconds), Ordering::Relaxed);
        // The model does not count every operation: the time of one that it has not counted gives way.
        self.seconds.truncate(self.model.clock() + 1);
        self.seconds.resize(self.model.clock() + 2, seconds);
        seconds
    }

    /// Does one operation on both. Gives what the clock showed.
    fn step(&mut self, operation: &Operation) -> Result<i64, String> {
        let moves = !self.rng.one_in(3);
        let seconds = self.tick(moves);
        let observed = if self.threads { self.in_a_thread(operation) } else { self.target.apply(operation) };
        let leniency = Leniency { out_of_space: true, ..Leniency::default() };
        self.model.judge(operation, &observed, leniency).map_err(|expected| {
            let fault = self.target.fault().map(|fault| format!(" ({fault})")).unwrap_or_default();
            format!("{operation:?}: expected {expected:?}, observed {observed:?}{fault}")
        })?;
        Ok(seconds)
    }

    fn in_a_thread(&mut self, operation: &Operation) -> Reply {
        let target = &mut self.target;
        self.threads_started += 1;
        let number = self.threads_started;
        let apply = move || {
            set_thread_number(number);
            target.apply(operation)
        };
        std::thread::scope(|scope| scope.spawn(apply).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn nanoseconds(seconds: i64) -> u64 {
    seconds.unsigned_abs() * 1_000_000_000
}

/// How volumes are opened in crash tests: with a clock set by hand, and without noting that files are read.
pub(crate) fn open_options(clock: Arc<AtomicU64>) -> OpenOptions {
    OpenOptions { clock: Clock::Manual(clock), no_atime: true, ..OpenOptions::default() }
}

impl Bases {
    fn get(&mut self, workload: &Workload) -> Result<Base, String> {
        let key = (workload.domain, workload.size, workload.stage);
        if let Some(base) = self.0.get(&key) {
            return Ok(base.clone());
        }
        let base = make_base(workload)?;
        self.0.insert(key, base.clone());
        Ok(base)
    }
}

fn make_base(workload: &Workload) -> Result<Base, String> {
    let file = MemoryFile::new(workload.size).map_err(|error| error.to_string())?;
    file.write(&POISON.repeat(workload.size as usize / POISON.len())).map_err(|error| error.to_string())?;
    let open = || file.open(workload.domain).map_err(|error| error.to_string());
    let clock = Arc::new(AtomicU64::new(nanoseconds(EPOCH_SECONDS)));
    let options = FormatOptions {
        uuid: Some(*b"lodefs testkit  "),
        clock: Clock::Manual(Arc::clone(&clock)),
        names: NewNames::Key(NameKey(*b"lodefs testkit  ")),
        ..FormatOptions::default()
    };
    Fs::format(&open()?, &options).map_err(|error| error.to_string())?;
    let fs = Fs::open(open()?, &open_options(Arc::clone(&clock))).map_err(|error| error.to_string())?;
    let mut actors = Actors {
        target: EngineTarget::new(fs),
        model: Model::new(),
        clock,
        seconds: vec![EPOCH_SECONDS],
        rng: Rng::new(0),
        threads: false,
        threads_started: 0,
    };
    for operation in workload.stage.furnishing() {
        actors.step(&operation)?;
    }
    actors.target.close().map_err(|error| error.to_string())?;
    let bytes = file.read().map_err(|error| error.to_string())?;
    let start = Snapshot::new(bytes, homes_start(workload.size)?);
    Ok(Base { start, model: actors.model, seconds: actors.seconds })
}

/// A change that fills the journal and is seen to be the last one of its kind.
fn filler(number: u32) -> Operation {
    Operation::Chmod { object: Object::Path(crate::path::TreePath::ROOT), mode: 0o700 | (number & 7) }
}

impl Workload {
    /// Does everything, and keeps what was done to the medium.
    ///
    /// # Errors
    /// An answer of the engine that is wrong, with no crash at all.
    pub(super) fn record(&self, bases: &mut Bases) -> Result<Recorded, String> {
        // What is shared out among threads goes to the same ones whenever this is done.
        set_thread_number(0);
        let base = bases.get(self)?;
        let (medium, recording) =
            Medium::recording_from_image(base.start.bytes(), self.domain, Access::ReadWrite)
                .map_err(|error| error.to_string())?;
        let clock = Arc::new(AtomicU64::new(nanoseconds(EPOCH_SECONDS)));
        let fs = Fs::open(medium, &open_options(Arc::clone(&clock))).map_err(|error| error.to_string())?;
        let mut actors = Actors {
            target: EngineTarget::new(fs),
            model: base.model,
            clock,
            seconds: base.seconds,
            rng: Rng::new(self.ticks),
            threads: self.threads,
            threads_started: 0,
        };
        let before = self.stage.opening().into_iter().chain((0..self.fillers).map(filler));
        for operation in before.chain([Operation::Syncfs]) {
            actors.step(&operation)?;
        }
        let mut log = recording.take();
        let first_mark = log.len();
        push_mark(&mut log, 0);
        let mut history = History::new(actors.model.clone(), actors.seconds.clone());
        for (number, operation) in (1..).zip(&self.operations) {
            let seconds = actors.step(operation)?;
            history.push(Some(operation.clone()), actors.model.clone(), seconds);
            log.append(&mut recording.take());
            push_mark(&mut log, number);
        }
        self.finish(actors, &recording, &mut log, &mut history)?;
        Ok(Recorded { start: base.start, log: Rc::new(log), first_mark, history })
    }

    fn finish(
        &self,
        actors: Actors,
        recording: &Recording,
        log: &mut Vec<Event>,
        history: &mut History,
    ) -> Result<(), String> {
        let Actors { target, model, seconds, .. } = actors;
        let seconds = seconds.last().copied().unwrap_or(EPOCH_SECONDS);
        if self.closes {
            target.close().map_err(|error| error.to_string())?;
            history.push(None, model, seconds);
            log.append(&mut recording.take());
            push_mark(log, history.last() as u64);
        }
        Ok(())
    }
}

fn push_mark(log: &mut Vec<Event>, number: u64) {
    let thread = log.last().map_or(0, |event| event.thread);
    log.push(Event { thread, what: What::Mark(number) });
}
