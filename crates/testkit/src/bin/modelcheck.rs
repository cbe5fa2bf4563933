//! Runs random operations on a directory and on the reference model, and stops at the first difference.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use lodefs_testkit::check::Strictness;
use lodefs_testkit::minimise::minimise;
use lodefs_testkit::model::Leniency;
use lodefs_testkit::{Case, Generator, HostTarget, Operation, Profile, Violation, check};

/// Compares a file system with the reference model of lodefs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory on the file system under test; a directory is made in it and removed again.
    #[arg(long)]
    dir: PathBuf,
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

/// Runs a sequence in a new directory, and removes it again.
fn run(
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
    let profile = match &arguments.profile {
        Some(name) => Profile::by_name(name).with_context(|| format!("there is no profile {name}"))?,
        None => Profile::of_directory(&arguments.dir)
            .with_context(|| format!("cannot find out about {}", arguments.dir.display()))?,
    };
    let strictness = Strictness {
        times: profile.times,
        leniency: Leniency { out_of_space: arguments.small, ..profile.leniency },
        ..Strictness::default()
    };
    if let Some(path) = &arguments.replay {
        let case = Case::load(path)?;
        return Ok(match run(&arguments.dir, &case.operations, strictness)? {
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
        let Err(violation) = run(&arguments.dir, &operations, strictness)? else { continue };
        println!("seed {seed}: {violation}");
        save_smallest(&arguments, strictness, Case { note: String::new(), seed, operations })?;
        println!("{} operations, 1 violation", (seed - arguments.seed + 1) * arguments.length as u64);
        return Ok(ExitCode::FAILURE);
    }
    println!("{} operations, no violation", arguments.sequences * arguments.length as u64);
    Ok(ExitCode::SUCCESS)
}

/// Makes a failing case as small as possible, prints it and saves it.
fn save_smallest(arguments: &Arguments, strictness: Strictness, case: Case) -> anyhow::Result<()> {
    let mut broken = None;
    let operations =
        minimise(case.operations, |operations| match run(&arguments.dir, operations, strictness) {
            Ok(result) => result.is_err(),
            Err(error) => {
                broken = Some(error);
                false
            }
        });
    if let Some(error) = broken {
        return Err(error);
    }
    let note = match run(&arguments.dir, &operations, strictness)? {
        Err(violation) => violation.to_string(),
        Ok(()) => bail!("seed {} fails only sometimes", case.seed),
    };
    for operation in &operations {
        println!("  {operation:?}");
    }
    println!("{note}");
    let smallest = Case { note, operations, ..case };
    smallest.save(&arguments.save)?;
    println!("saved as {}; run it again with --replay", arguments.save.display());
    Ok(())
}
