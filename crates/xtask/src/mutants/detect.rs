//! Building what is tested with switches in it, and running tests until one of them fails.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// What takes so many times as long as without a mutant, and longer than a moment, goes on for ever.
const PATIENCE: u32 = 6;
const MOMENT: Duration = Duration::from_secs(20);

/// A program that fails if something is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Detector {
    /// What it is called in reports.
    pub(crate) name: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// Where it is run: tests expect to be in the directory of their package.
    directory: PathBuf,
    /// How long it may take.
    patience: Duration,
}

/// What is run, the quickest first: most mutants get no further than the first few.
const DETECTORS: [Program; 25] = [
    Program::Test("lodefs-layout", "lodefs_layout"),
    Program::Test("lodefs-pmem", "lodefs_pmem"),
    Program::Test("lodefs-pmem", "recording"),
    Program::Test("lodefs-pmem", "open"),
    Program::Test("lodefs-pmem", "medium"),
    Program::Test("lodefs-pmem", "losses"),
    Program::Test("lodefs-core", "committer"),
    Program::Test("lodefs-core", "engine"),
    Program::Test("lodefs-core", "threads"),
    Program::Test("lodefs-core", "full"),
    Program::Test("lodefs-core", "glimpse"),
    Program::Test("lodefs-core", "reopened"),
    Program::Test("lodefs-core", "forged"),
    Program::Test("lodefs-core", "leases"),
    Program::Test("lodefs-core", "lodefs_core"),
    Program::Test("lodefs-testkit", "engine"),
    Program::Test("lodefs-testkit", "instructions"),
    Program::Test("lodefs-testkit", "golden"),
    Program::Test("lodefs-testkit", "checker"),
    Program::Test("lodefs-testkit", "mapped"),
    Program::Test("lodefs-fuse", "failing_host"),
    Program::Explorer("a few crashes", &["--one-in", "6", "--random", "6"]),
    Program::Test("lodefs-core", "fsck"),
    Program::Test("lodefs-testkit", "hostile"),
    Program::Explorer("crashes", &[]),
];

/// Flags for sources with switches in them, which are no beauty.
const AS_THEY_ARE: &str = "--cap-lints allow";

/// Something to run.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// A test, by package and name.
    Test(&'static str, &'static str),
    /// `cargo xtask crash --quick`, called so here, with more arguments.
    Explorer(&'static str, &'static [&'static str]),
}

/// What every exploration of crashes is run with: a case is neither made smaller nor kept.
const CRASH: [&str; 5] = ["crash", "--quick", "--as-found", "--save", "/dev/null"];

/// Builds the copy in `source`, below `target`, and says what to run of it.
pub(crate) fn build(source: &Path, target: &Path) -> anyhow::Result<Vec<Detector>> {
    let built = &target.join("built");
    let mut cargo = cargo(source, built, &format!("{AS_THEY_ARE} -C debug-assertions=on"));
    cargo.args(["test", "--no-run", "--release", "--message-format=json"]);
    let packages: BTreeSet<&str> = DETECTORS.iter().filter_map(Program::package).collect();
    for package in packages {
        cargo.args(["--package", package]);
    }
    let tests = executables(cargo)?;
    let mut cargo = self::cargo(source, built, &format!("{AS_THEY_ARE} -C debug-assertions=on"));
    cargo.args(["build", "--release", "--message-format=json", "--package", "lodefs-xtask"]);
    let explorer = executables(cargo)?.into_iter().find(|built| built.target == "lodefs-xtask");
    let explorer = explorer.context("cargo has built no explorer")?;
    let mut detectors = DETECTORS
        .iter()
        .map(|&program| match program {
            Program::Test(package, target) => test(&tests, package, target),
            Program::Explorer(name, arguments) => Ok(Detector {
                name: format!("xtask crash --quick, {name}"),
                program: explorer.program.clone(),
                arguments: CRASH.iter().chain(arguments).map(ToString::to_string).collect(),
                directory: source.to_path_buf(),
                patience: Duration::MAX,
            }),
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    // What is left may show only where threads meet.
    detectors.push(build_schedules(source, &target.join("shuttle"), AS_THEY_ARE)?);
    Ok(detectors)
}

impl Program {
    fn package(&self) -> Option<&'static str> {
        match self {
            Self::Test(package, _) => Some(package),
            Self::Explorer(..) => None,
        }
    }
}

/// The test `target` of `package`, among what was built.
fn test(built: &[Executable], package: &str, target: &str) -> anyhow::Result<Detector> {
    let is_it =
        |test: &&Executable| test.target == target && test.package.ends_with(package_directory(package));
    let test = built.iter().find(is_it).with_context(|| format!("{package} has no test {target}"))?;
    Ok(Detector {
        name: format!("{package} {target}"),
        program: test.program.clone(),
        arguments: vec!["--test-threads=1".into()],
        directory: test.package.clone(),
        patience: Duration::MAX,
    })
}

/// Builds the tests in which a scheduler decides about the locks of the sources in `root`, with more `flags` for the
/// compiler.
pub(crate) fn build_schedules(root: &Path, built: &Path, flags: &str) -> anyhow::Result<Detector> {
    let flags = format!("--cfg lodefs_shuttle {flags}");
    let mut cargo = cargo(root, built, flags.trim_end());
    cargo.args([
        "test",
        "--no-run",
        "--release",
        "--message-format=json",
        "--package",
        "lodefs-testkit",
        "--test",
        "schedules",
    ]);
    let test = executables(cargo)?.into_iter().find(|built| built.target == "schedules");
    let test = test.context("cargo has built no test of schedules")?;
    Ok(Detector {
        name: "schedules".into(),
        program: test.program,
        arguments: vec!["--test-threads=1".into()],
        directory: test.package,
        patience: Duration::MAX,
    })
}

fn package_directory(package: &str) -> &str {
    package.trim_start_matches("lodefs-")
}

fn cargo(directory: &Path, built: &Path, flags: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(directory).env("CARGO_TARGET_DIR", built).env("RUSTFLAGS", flags);
    cargo
}

struct Executable {
    target: String,
    program: PathBuf,
    package: PathBuf,
}

/// Runs cargo, and gives the programs that it has built.
fn executables(mut cargo: Command) -> anyhow::Result<Vec<Executable>> {
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let mut found = Vec::new();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for line in output.stdout.lines() {
        let message: Value = serde_json::from_str(&line?)?;
        if let Some(rendered) = text(&message["message"]["rendered"]) {
            eprint!("{rendered}");
        }
        if let (Some(program), Some(target), Some(manifest)) =
            (text(&message["executable"]), text(&message["target"]["name"]), text(&message["manifest_path"]))
        {
            let package =
                PathBuf::from(manifest).parent().context("a manifest is in a directory")?.to_path_buf();
            found.push(Executable { target, program: program.into(), package });
        }
    }
    ensure!(output.status.success(), "the build failed");
    Ok(found)
}

impl Detector {
    /// Runs it without a mutant, to see that it is content, and how long it takes.
    pub(crate) fn calibrate(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        if let Some(failure) = self.run("LODEFS_MUTANT", "0")? {
            bail!("without any mutant: {failure}");
        }
        self.patience = MOMENT.max(start.elapsed() * PATIENCE);
        Ok(())
    }

    /// Runs it as a mutant. Gives what failed, if something did that does not fail without the mutant.
    pub(crate) fn notices(&self, variable: &str, value: &str) -> anyhow::Result<Option<String>> {
        let Some(failure) = self.run(variable, value)? else { return Ok(None) };
        if let Some(without) = self.run(variable, "0")? {
            bail!("without any mutant, too: {without}");
        }
        Ok(Some(failure))
    }

    /// Runs it with a variable set. Gives what failed, if something did.
    fn run(&self, variable: &str, value: &str) -> anyhow::Result<Option<String>> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.directory).env(variable, value);
        // What fails at random must not fail again and again.
        command.env("RUST_BACKTRACE", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        let (output, errors) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let status = wait(&mut child, self.patience)?;
        let (output, errors) = (joined(output)?, joined(errors)?);
        Ok(match status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{}: {}", self.name, failure(&output, &errors, status))),
            None => Some(format!("{}: it does not end", self.name)),
        })
    }
}

type Drained = thread::JoinHandle<std::io::Result<String>>;

/// Reads what a program says, so that it never waits for us.
fn drain(from: Option<impl Read + Send + 'static>) -> Drained {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            BufReader::new(from).read_to_end(&mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn joined(drained: Drained) -> anyhow::Result<String> {
    Ok(drained.join().map_err(|_| anyhow::anyhow!("reading the output of a test panicked"))??)
}

/// Waits for a program to end; ends it when patience does, and gives `None`.
fn wait(child: &mut Child, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first line that says what is wrong.
fn failure(output: &str, errors: &str, status: ExitStatus) -> String {
    let lines = || output.lines().chain(errors.lines());
    let violation = lines().find(|line| line.starts_with("VIOLATION"));
    let failed = || lines().find(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    let panicked = || lines().find(|line| line.contains(" panicked at "));
    violation
        .or_else(failed)
        .or_else(panicked)
        .map_or_else(|| status.to_string(), |line| line.trim().to_owned())
}
