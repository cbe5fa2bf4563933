//! What a second thread gains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lodefs_core::Fs;
use lodefs_pmem::Medium;

use super::compare::Trial;
use super::figure::{Compared, Figure};
use super::measure::{Timing, Work, as_float, nanoseconds, quantile};
use super::targets::{Engine, Raw};
use super::work::{Block, Blocks, Overwriting};

/// Steps that each thread makes in a round.
const STEPS: usize = 1000;

/// Two threads that overwrite blocks of separate files, against two that copy to separate parts of raw memory.
///
/// The times are those per block with two threads; the ratio is that of the gains.
pub(crate) fn measure(raw: &Arc<Medium>, fs: &Arc<Fs>, trial: &Trial<'_>) -> anyhow::Result<Figure> {
    let effort = trial.effort;
    let part = |start| Worker::new(Part { raw: Raw(Arc::clone(raw)), start }, effort.file_size);
    let file = |name: &str| Worker::new(Engine::new(fs, name)?, effort.file_size);
    let mut parts = [part(0)?, part(effort.file_size)?];
    let mut files = [file("thread-0")?, file("thread-1")?];
    let (mut theirs, mut ours) = (Gains::default(), Gains::default());
    for round in 0..effort.rounds_ahead + effort.rounds {
        if round == effort.rounds_ahead {
            (theirs, ours) = Default::default();
        }
        theirs.sample(&mut parts)?;
        ours.sample(&mut files)?;
        (trial.tick)();
    }
    let ratio = ours.gain() / theirs.gain();
    let yardstick = format!("gain of raw copies ({:.2}x; ours {:.2}x)", theirs.gain(), ours.gain());
    let compared = Compared { row: trial.row, way: trial.way, yardstick, is_judged: true };
    Ok(Figure::with_ratio(compared, theirs.timing(), ours.timing(), ratio))
}

/// On cache lines of its own, since each thread notes its progress there.
#[repr(align(128))]
struct Worker<T>(Overwriting<T>);

impl<T: Blocks> Worker<T> {
    fn new(target: T, file_size: u64) -> anyhow::Result<Self> {
        Ok(Self(Overwriting::new(target, file_size)?))
    }
}

/// A part of raw memory, used like a file.
struct Part {
    raw: Raw,
    start: u64,
}

impl Blocks for Part {
    #[inline]
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()> {
        self.raw.overwrite(self.start + offset, block)
    }

    #[inline]
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()> {
        self.raw.read(self.start + offset, into)
    }
}

/// Rounds of one side.
#[derive(Default)]
struct Gains {
    gains: Vec<f64>,
    /// Time per step with two threads.
    steps_ns: Vec<f64>,
}

impl Gains {
    fn sample<T: Blocks + Send>(&mut self, workers: &mut [Worker<T>; 2]) -> anyhow::Result<()> {
        let one = nanoseconds(run(&mut workers[..1], STEPS)?);
        let two = nanoseconds(run(workers, STEPS)?);
        self.gains.push(2.0 * one / two);
        self.steps_ns.push(two / as_float(2 * STEPS));
        Ok(())
    }

    fn gain(&self) -> f64 {
        quantile(&mut self.gains.clone(), 0.5)
    }

    fn timing(&mut self) -> Timing {
        Timing { median_ns: quantile(&mut self.steps_ns, 0.5), p99_ns: quantile(&mut self.steps_ns, 0.99) }
    }
}

/// Lets every worker make its steps in a thread of its own, all at once: from the first start to the last end.
fn run<T: Blocks + Send>(workers: &mut [Worker<T>], steps: usize) -> anyhow::Result<Duration> {
    let (count, ready) = (workers.len(), AtomicUsize::new(0));
    let run_one = |worker: &mut Worker<T>| {
        // Whoever slept until all are there would start late.
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < count {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        (0..steps).try_for_each(|_| worker.0.step())?;
        anyhow::Ok((start, Instant::now()))
    };
    let times = thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| run_one(worker))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("workers do not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let start = times.iter().map(|(start, _)| *start).min();
    let end = times.iter().map(|(_, end)| *end).max();
    Ok(start.zip(end).map(|(start, end)| end - start).unwrap_or_default())
}
