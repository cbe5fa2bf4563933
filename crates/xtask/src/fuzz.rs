//! Fuzzes: builds the targets of `fuzz/` with the instrumentation that libFuzzer wants, which stable Rust has as well,
//! and runs each for a while. (`cargo fuzz run TARGET` does the same for one, with sanitizers, on nightly Rust.)

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use lodefs_testkit::hostile::Target;

/// What cargo-fuzz gives to rustc, without a sanitizer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest input, in bytes: more than the edits of a case need.
const INPUT_MAX: usize = 400;

/// After so many seconds a case counts as one that does not end.
const TIMEOUT_S: u64 = 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long to run each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many processes to run at a time, all on the same target
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Run this input again, instead of looking for others; needs one target
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,
    /// open, recovery, fsck, repair, decoders, messages [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<Target>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let fuzzers = Fuzzers::build()?;
    if let Some(input) = &arguments.replay {
        let &[target] = arguments.targets.as_slice() else { bail!("name the one target of this input") };
        let status = Command::new(fuzzers.program(target)).arg(input).status()?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let targets = if arguments.targets.is_empty() { &Target::ALL[..] } else { &arguments.targets[..] };
    let mut findings = 0;
    println!("{:10} {:>12} {:>8} {:>8} {:>9}", "target", "executions", "each s", "edges", "findings");
    for target in targets {
        let found = fuzzers.fuzz(*target, arguments)?;
        let Run { executions, edges, findings: files, .. } = &found;
        let rate = executions / arguments.seconds.max(1);
        println!("{:10} {executions:>12} {rate:>8} {edges:>8} {:>9}", target.name(), files.len());
        for file in files {
            println!("  run it again with: cargo xtask fuzz --replay {} {target}", file.display());
        }
        if found.failed && files.is_empty() {
            bail!("the fuzzer of {target} failed: see {}", fuzzers.log(*target, 0).display());
        }
        findings += files.len();
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of running one target.
#[derive(Debug, Default)]
struct Run {
    executions: u64,
    edges: u64,
    findings: Vec<PathBuf>,
    failed: bool,
}

/// The fuzzers, built.
struct Fuzzers {
    /// Where they are, with their corpora, logs and findings.
    directory: PathBuf,
    host: String,
}

impl Fuzzers {
    fn build() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let directory = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(path) => PathBuf::from(path),
            None => root.join("target"),
        };
        let directory = directory.join("fuzz");
        let host = host()?;
        let mut cargo = Command::new("cargo");
        // The target is named so that build scripts and procedural macros are built without the flags.
        cargo.args(["build", "--release", "--quiet", "--locked", "--target", &host, "--manifest-path"]);
        cargo.arg(root.join("fuzz/Cargo.toml")).arg("--target-dir").arg(&directory);
        let status = cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS").status()?;
        if !status.success() {
            bail!("the fuzzers cannot be built (libFuzzer needs a C++ compiler)");
        }
        Ok(Self { directory, host })
    }

    fn program(&self, target: Target) -> PathBuf {
        self.directory.join(&self.host).join("release").join(target.name())
    }

    /// Inputs that made the engine do something new, and the seeds. Kept from run to run.
    fn corpus(&self, target: Target) -> PathBuf {
        self.directory.join("corpus").join(target.name())
    }

    fn findings(&self, target: Target) -> PathBuf {
        self.directory.join("findings").join(target.name())
    }

    fn log(&self, target: Target, job: u32) -> PathBuf {
        self.directory.join(format!("{target}-{job}.log"))
    }

    /// Runs a target for the time that was asked for, or until something is found.
    fn fuzz(&self, target: Target, arguments: &Arguments) -> anyhow::Result<Run> {
        let (corpus, findings) = (self.corpus(target), self.findings(target));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&findings)?;
        for (number, seed) in target.seeds().iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        let known = files_in(&findings)?;
        let jobs: Vec<Child> = (0..arguments.jobs.max(1))
            .map(|job| self.start(target, job, arguments))
            .collect::<Result<_, _>>()?;
        let mut run = Run::default();
        for (job, mut child) in (0..).zip(jobs) {
            run.failed |= !child.wait()?.success();
            let log = String::from_utf8_lossy(&fs::read(self.log(target, job))?).into_owned();
            run.executions += last_number(&log, "stat::number_of_executed_units:").unwrap_or(0);
            run.edges = run.edges.max(last_number(&log, " cov:").unwrap_or(0));
        }
        run.findings = files_in(&findings)?.into_iter().filter(|file| !known.contains(file)).collect();
        Ok(run)
    }

    fn start(&self, target: Target, job: u32, arguments: &Arguments) -> anyhow::Result<Child> {
        let log = self.log(target, job);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut program = Command::new(self.program(target));
        program.arg(self.corpus(target));
        program.arg(format!("-artifact_prefix={}/", self.findings(target).display()));
        program.arg(format!("-max_total_time={}", arguments.seconds)).arg(format!("-timeout={TIMEOUT_S}"));
        program.arg(format!("-max_len={INPUT_MAX}")).arg("-print_final_stats=1");
        program.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(program.spawn()?)
    }
}

/// What rustc calls this machine.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what this machine is")
}

fn files_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

/// The number behind the last `label` in a log.
fn last_number(log: &str, label: &str) -> Option<u64> {
    let (_, behind) = log.rsplit_once(label)?;
    behind.split_whitespace().next()?.parse().ok()
}
