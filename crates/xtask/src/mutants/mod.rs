//! Every step of persistence, every check of what is read, every lock, switched off one at a time: something must notice.

mod detect;
mod harmless;
mod instrument;
mod sites;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::Context;
use clap::Args;

use self::detect::Detector;
use self::instrument::Mutant;
use self::sites::Kind;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only say what there is
    #[arg(long)]
    list: bool,
    /// Only one in so many, for a quick look
    #[arg(long, default_value_t = 1)]
    one_in: usize,
    /// Only these, by number
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
    /// Only locks, or only the rest: then what the others need is not built
    #[arg(long, value_enum)]
    of: Option<Of>,
    /// Only those in files whose name contains this
    #[arg(long)]
    file: Option<String>,
    /// So many at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Do not try those that are said not to matter: only all tests together could tell, and each of these takes them all
    #[arg(long)]
    believe: bool,
}

/// Which mutants need the same builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    /// Locks, which a scheduler decides about.
    Locks,
    /// Steps and checks, which are switched.
    Code,
}

/// What came of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// What noticed it.
    Caught(String),
    /// Nothing, and why nothing can.
    Harmless(&'static str),
    /// Nothing.
    Survived,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let root = root()?;
    let mut mutants = instrument::find_all(&root)?;
    let target = root.join("target/mutants");
    let all = mutants.clone();
    mutants.retain(|mutant| is_chosen(mutant, arguments));
    if arguments.list {
        for mutant in &mutants {
            println!("{}", described(mutant));
        }
        return Ok(ExitCode::SUCCESS);
    }
    harmless::check(&all)?;
    let mut detectors = if arguments.of == Some(Of::Locks) {
        Vec::new()
    } else {
        instrument::write(&root, &target.join("source"), &all)?;
        detect::build(&target.join("source"), &target)?
    };
    let mut schedules = match arguments.of {
        Some(Of::Code) => None,
        _ => Some(detect::build_schedules(&root, &root.join("target/shuttle"), "")?),
    };
    detectors.iter_mut().chain(&mut schedules).try_for_each(Detector::calibrate)?;
    let fates = judge_all(&mutants, &detectors, schedules.as_ref(), arguments)?;
    Ok(report(&mutants, &fates, &target))
}

/// The root of the project.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("this package is two levels below the root")?.to_path_buf())
}

fn is_chosen(mutant: &Mutant, arguments: &Arguments) -> bool {
    let is_lock = mutant.site.kind == Kind::Lock;
    mutant.number.is_multiple_of(arguments.one_in.max(1))
        && arguments.of.is_none_or(|of| is_lock == (of == Of::Locks))
        && (arguments.only.is_empty() || arguments.only.contains(&mutant.number))
        && arguments.file.as_ref().is_none_or(|file| mutant.file.contains(file.as_str()))
}

fn described(mutant: &Mutant) -> String {
    let site = &mutant.site;
    let how = match site.kind {
        Kind::Statement | Kind::Evidence(_) => "left out",
        Kind::True => "always true",
        Kind::False => "always false",
        Kind::Lock => "excludes nobody",
    };
    format!("{} {}:{} {}: `{}` {how}", mutant.number, mutant.file, site.line, site.function, site.text)
}

fn judge_all(
    mutants: &[Mutant],
    detectors: &[Detector],
    schedules: Option<&Detector>,
    arguments: &Arguments,
) -> anyhow::Result<BTreeMap<usize, Fate>> {
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(BTreeMap::new());
    let work = || -> anyhow::Result<()> {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let believed = harmless::why(mutant).filter(|_| arguments.believe).map(Fate::Harmless);
            let fate = believed.map_or_else(|| judge(mutant, detectors, schedules), Ok)?;
            match &fate {
                Fate::Caught(by) => println!("{}\n    caught by {by}", described(mutant)),
                Fate::Harmless(why) => println!("{}\n    cannot matter: {why}", described(mutant)),
                Fate::Survived => println!("{}\n    SURVIVED", described(mutant)),
            }
            fates.lock().expect("nobody panics holding it").insert(mutant.number, fate);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(fates.into_inner().expect("all workers have ended"))
}

fn judge(mutant: &Mutant, detectors: &[Detector], schedules: Option<&Detector>) -> anyhow::Result<Fate> {
    let site = &mutant.site;
    let caught = if site.kind == Kind::Lock {
        let place = format!("{}:{}:{}", mutant.file, site.line, site.column);
        schedules.context("the tests of schedules were built")?.notices("LODEFS_IGNORED_LOCK", &place)?
    } else {
        first_failure(detectors, &mutant.number.to_string())?
    };
    Ok(match (caught, harmless::why(mutant)) {
        (Some(by), None) => Fate::Caught(by),
        (Some(by), Some(_)) => Fate::Caught(format!("{by} (and was said to be harmless)")),
        (None, Some(why)) => Fate::Harmless(why),
        (None, None) => Fate::Survived,
    })
}

fn first_failure(detectors: &[Detector], number: &str) -> anyhow::Result<Option<String>> {
    for detector in detectors {
        if let Some(failure) = detector.notices("LODEFS_MUTANT", number)? {
            return Ok(Some(failure));
        }
    }
    Ok(None)
}

fn report(mutants: &[Mutant], fates: &BTreeMap<usize, Fate>, target: &Path) -> ExitCode {
    let count = |wanted: fn(&Fate) -> bool| fates.values().filter(|fate| wanted(fate)).count();
    let survived = count(|fate| *fate == Fate::Survived);
    println!("mutants        {}", fates.len());
    println!("caught         {}", count(|fate| matches!(fate, Fate::Caught(_))));
    println!("cannot matter  {}", count(|fate| matches!(fate, Fate::Harmless(_))));
    println!("survived       {survived}");
    for mutant in mutants.iter().filter(|mutant| fates.get(&mutant.number) == Some(&Fate::Survived)) {
        println!("SURVIVED {}", described(mutant));
    }
    let lines: Vec<String> = mutants
        .iter()
        .filter_map(|mutant| Some(format!("{}: {:?}\n", described(mutant), fates.get(&mutant.number)?)))
        .collect();
    let path = target.join("report.txt");
    if let Err(error) = fs::write(&path, lines.concat()) {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    println!("all of them: {}", path.display());
    if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
