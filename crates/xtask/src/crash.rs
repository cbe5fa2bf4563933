//! Explores the crashes in workloads: every operation with all its arguments, all sequences of two of a list that stands
//! for the rest, and random ones, short and long.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lodefs_pmem::Domain;
use lodefs_testkit::Operation;
use lodefs_testkit::explore::{
    CrashCase, Distinct, Explorer, Failure, Statistics, Thoroughness, Workload, grid, representatives,
};
use lodefs_testkit::rng::Rng;

/// Operations in a long workload.
const LONG: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only a sample of the workloads of two operations, and few random ones: some minutes
    #[arg(long)]
    quick: bool,
    /// Random workloads, half of three operations and half long, on each domain [default: 2000, quick: 20]
    #[arg(long)]
    random: Option<u64>,
    /// Only one in so many of the workloads
    #[arg(long, default_value_t = 1)]
    one_in: u64,
    /// What is chosen at random follows from this
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only this domain: cpu-cache, memory-controller, page or volatile
    #[arg(long)]
    domain: Option<Domain>,
    /// Run this case again, instead of all
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where a case that fails is saved, made as small as possible
    #[arg(long, value_name = "FILE", default_value = "failing-crash.json")]
    save: PathBuf,
    /// Save a case that fails as it was found
    #[arg(long)]
    as_found: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.replay {
        return Ok(replay(&CrashCase::load(path)?));
    }
    let plan = Plan::new(arguments);
    let start = Instant::now();
    let (statistics, failed) = explore_all(&plan);
    report(&statistics, start.elapsed());
    let Some((case, violation)) = failed else {
        println!("no violation");
        return Ok(ExitCode::SUCCESS);
    };
    println!("VIOLATION: {violation}");
    if arguments.as_found {
        case.save(&arguments.save)?;
    } else {
        println!("making it smaller ...");
        case.minimised(&mut Explorer::default()).save(&arguments.save)?;
    }
    println!("run it again with: cargo xtask crash --replay {}", arguments.save.display());
    Ok(ExitCode::FAILURE)
}

fn replay(case: &CrashCase) -> ExitCode {
    match case.run(&mut Explorer::default()) {
        Ok(()) => {
            println!("no violation");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("VIOLATION: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// All cases, by number.
struct Plan {
    settings: Vec<(Domain, Failure)>,
    grid: Vec<Operation>,
    /// One in so many operations of the grid is taken.
    grid_every: u64,
    representatives: Vec<Operation>,
    /// One in so many pairs is taken.
    pairs_every: u64,
    random: u64,
    one_in: u64,
    seed: u64,
}

impl Plan {
    fn new(arguments: &Arguments) -> Self {
        let domains =
            Domain::ALL.into_iter().filter(|it| arguments.domain.is_none_or(|domain| domain == *it));
        let settings =
            domains.flat_map(|domain| Failure::survived_by(domain).iter().map(move |it| (domain, *it)));
        let quick = arguments.quick;
        Self {
            settings: settings.collect(),
            grid: grid(),
            grid_every: if quick { 20 } else { 1 },
            representatives: representatives(),
            pairs_every: if quick { 100 } else { 1 },
            random: arguments.random.unwrap_or(if quick { 20 } else { 2000 }),
            one_in: arguments.one_in.max(1),
            seed: arguments.seed,
        }
    }

    fn singles(&self) -> u64 {
        self.representatives.len() as u64
    }

    fn pairs(&self) -> u64 {
        (self.singles() * self.singles()).div_ceil(self.pairs_every)
    }

    fn grid_points(&self) -> u64 {
        (self.grid.len() as u64).div_ceil(self.grid_every)
    }

    fn len(&self) -> u64 {
        let workloads = self.grid_points() + self.singles() + self.pairs() + self.random;
        (workloads * self.settings.len() as u64).div_ceil(self.one_in)
    }

    /// Case number `number`, which is less than [`Plan::len`].
    fn case(&self, number: u64) -> CrashCase {
        let number = number * self.one_in;
        let settings = self.settings.len() as u64;
        let (domain, failure) = self.settings[(number % settings) as usize];
        let seed = self.seed.wrapping_add(number / settings);
        let (workload, thoroughness) = self.workload(domain, number / settings, seed);
        CrashCase { workload, failure, thoroughness, seed }
    }

    fn workload(&self, domain: Domain, number: u64, seed: u64) -> (Workload, Thoroughness) {
        let Some(number) = number.checked_sub(self.grid_points()) else {
            let operation = self.grid[(number * self.grid_every) as usize].clone();
            return (Workload::furnished(domain, vec![operation]), Thoroughness::QUICKEST);
        };
        let (singles, pairs) = (self.singles(), self.pairs());
        let of = |numbers: &[u64]| {
            let pick = |number: &u64| self.representatives[(number % singles) as usize].clone();
            let workload = Workload::furnished(domain, numbers.iter().map(pick).collect());
            Workload { ticks: seed, ..workload }
        };
        if number < singles {
            return (of(&[number]), Thoroughness::QUICK);
        }
        if number < singles + pairs {
            let pair = (number - singles) * self.pairs_every;
            return (of(&[pair / singles, pair % singles]), Thoroughness::QUICKEST);
        }
        if number.is_multiple_of(2) {
            return (Workload::random(domain, seed, LONG), Thoroughness::QUICKEST);
        }
        let mut rng = Rng::new(seed);
        let three = [rng.below(singles), rng.below(singles), rng.below(singles)];
        (Workload { threads: seed.is_multiple_of(4), ..of(&three) }, Thoroughness::QUICK)
    }
}

type Failed = Option<(CrashCase, String)>;

/// Runs all cases on all processors, until one fails.
fn explore_all(plan: &Plan) -> (Statistics, Failed) {
    let bar = ProgressBar::new(plan.len()).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} workloads, {eta} left")
            .expect("a valid template"),
    );
    let distinct = Arc::new(Distinct::default());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, failed) = (Mutex::new(Statistics::default()), Mutex::new(None));
    let work = || {
        let mut explorer = Explorer::counting_in(Arc::clone(&distinct));
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.len() {
                break;
            }
            let case = plan.case(number);
            if let Err(violation) = case.run(&mut explorer) {
                stop.store(true, Ordering::Relaxed);
                *failed.lock().expect("nobody panics holding it") = Some((case, violation.to_string()));
            }
            bar.inc(1);
        }
        *total.lock().expect("nobody panics holding it") += explorer.statistics();
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    bar.finish_and_clear();
    let unlocked = "all threads have ended";
    (total.into_inner().expect(unlocked), failed.into_inner().expect(unlocked))
}

fn report(statistics: &Statistics, time: Duration) {
    let Statistics {
        workloads,
        moments,
        exhaustive,
        images,
        distinct,
        recovered,
        examined,
        recoveries,
        recoveries_again,
    } = *statistics;
    println!("workloads               {workloads}");
    println!("crash points            {moments} (of {exhaustive}, all images were made)");
    println!("images                  {images}");
    println!("distinct images         {distinct} (the others have the same bytes as one before)");
    println!("recovered               {recovered} (the others are the same wherever recovery reads)");
    println!("examined in full        {examined} (the others recover to the same volume as one before)");
    println!("crashes during recovery {recoveries}, and during recovery from those {recoveries_again}");
    println!("distinct images each s  {}", distinct / time.as_secs().max(1));
}
