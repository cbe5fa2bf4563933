//! Runs random operations on a directory, or on the engine itself, and on the reference model, and stops at the first
//! difference.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use lodefs_pmem::Domain;
use lodefs_testkit::check::Strictness;
use lodefs_testkit::engine::EngineCheck;
use lodefs_testkit::minimise::minimise;
use lodefs_testkit::model::Leniency;
use lodefs_testkit::{Case, Generator, HostTarget, Operation, Profile, Violation, check};

/// Compares a file system with the reference model of lodefs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory on the file system under test; a directory is made in it and removed again.
    #[arg(long, required_unless_present = "engine", conflicts_with = "engine")]
    dir: Option<PathBuf>,
    /// Tests the engine without a mount, on a volume in memory of this domain: cpu-cache, memory-controller, page or
    /// volatile.
    #[arg(long)]
    engine: Option<Domain>,
    /// Size of that volume in MiB.
    #[arg(long, default_value_t = 32)]
    size: u64,
    /// The volume is closed and opened after so many operations, on average.
    #[arg(long, default_value_t = 40)]
    reopen_every: u64,
    /// Number of sequences.
    #[arg(long, default_value_t = 100)]
    sequences: u64,
    /// Operations in a sequence.
    #[arg(long, default_value_t = 100)]
    length: usize,
    /// Seed of the first sequence; the next ones have the next numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What is asked of the file system: lodefs, xfs, ext4 or tmpfs. Found out if not given.
    #[arg(long)]
    profile: Option<String>,
    /// The file system may run out of space.
    #[arg(long)]
    small: bool,
    /// Runs this case instead of random sequences.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where a failing case is saved, made as small as possible.
    #[arg(long, default_value = "failing-case.json")]
    save: PathBuf,
}

/// What sequences are run on.
enum Subject {
    Directory(PathBuf),
    Engine(EngineCheck),
}

impl Subject {
    fn of(arguments: &Arguments) -> anyhow::Result<(Self, Profile, Strictness)> {
        let named = match &arguments.profile {
            Some(name) => {
                Some(Profile::by_name(name).with_context(|| format!("there is no profile {name}"))?)
            }
            None => None,
        };
        let profile = match (named, &arguments.dir) {
            (Some(profile), _) => profile,
            (None, Some(directory)) => Profile::of_directory(directory)
                .with_context(|| format!("cannot find out about {}", directory.display()))?,
            (None, None) => Profile::LODEFS,
        };
        let strictness = Strictness {
            times: profile.times,
            leniency: Leniency { out_of_space: arguments.small, ..profile.leniency },
            ..Strictness::default()
        };
        let subject = match (&arguments.dir, arguments.engine) {
            (Some(directory), _) => Self::Directory(directory.clone()),
            (None, Some(domain)) => Self::Engine(EngineCheck {
                domain,
                size: arguments.size << 20,
                reopen_every: arguments.reopen_every.max(1),
                seed: arguments.seed,
                strictness,
            }),
            (None, None) => bail!("give --dir or --engine"),
        };
        Ok((subject, profile, strictness))
    }

    /// Runs a sequence.
    fn run(&self, operations: &[Operation], strictness: Strictness) -> anyhow::Result<Result<(), Violation>> {
        match self {
            Self::Directory(parent) => run_in(parent, operations, strictness),
            Self::Engine(check) => Ok(check.run(operations).map(|_| ())),
        }
    }
}

/// Runs a sequence in a new directory, and removes it again.
fn run_in(
    parent: &Path,
    operations: &[Operation],
    strictness: Strictness,
) -> anyhow::Result<Result<(), Violation>> {
    let path = parent.join(format!("modelcheck-{}", std::process::id()));
    std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut target = HostTarget::new(&path).with_context(|| format!("cannot use {}", path.display()))?;
    let result = check(&mut target, operations, strictness);
    target.clear().with_context(|| format!("cannot empty {}", path.display()))?;
    std::fs::remove_dir(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(result)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (subject, profile, strictness) = Subject::of(&arguments)?;
    if let Some(path) = &arguments.replay {
        let case = Case::load(path)?;
        return Ok(match subject.run(&case.operations, strictness)? {
            Ok(()) => {
                println!("{}: {} operations, no violation", path.display(), case.operations.len());
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("{}: {violation}", path.display());
                ExitCode::FAILURE
            }
        });
    }
    for seed in (arguments.seed..).take(arguments.sequences as usize) {
        let operations: Vec<_> = Generator::new(seed, profile).take(arguments.length).collect();
        let Err(violation) = subject.run(&operations, strictness)? else { continue };
        println!("seed {seed}: {violation}");
        let case = Case { note: String::new(), seed, operations };
        save_smallest(&subject, strictness, case, &arguments.save)?;
        println!("{} operations, 1 violation", (seed - arguments.seed + 1) * arguments.length as u64);
        return Ok(ExitCode::FAILURE);
    }
    println!("{} operations, no violation", arguments.sequences * arguments.length as u64);
    Ok(ExitCode::SUCCESS)
}

/// Makes a failing case as small as possible, prints it and saves it.
fn save_smallest(subject: &Subject, strictness: Strictness, case: Case, path: &Path) -> anyhow::Result<()> {
    let mut broken = None;
    let operations = minimise(case.operations, |operations| match subject.run(operations, strictness) {
        Ok(result) => result.is_err(),
        Err(error) => {
            broken = Some(error);
            false
        }
    });
    if let Some(error) = broken {
        return Err(error);
    }
    let note = match subject.run(&operations, strictness)? {
        Err(violation) => violation.to_string(),
        Ok(()) => bail!("seed {} fails only sometimes", case.seed),
    };
    for operation in &operations {
        println!("  {operation:?}");
    }
    println!("{note}");
    let smallest = Case { note, operations, ..case };
    smallest.save(path)?;
    println!("saved as {}; run it again with --replay", path.display());
    Ok(())
}
