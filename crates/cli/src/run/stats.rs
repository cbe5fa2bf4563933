//! `lodefs run --stats`: what was done without the kernel, and what not, and why?
//!
//! The program is a child then, and gets the signals that are meant for it.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;

use anyhow::Context as _;
use lodefs_direct::run::{Counter, STATS_VARIABLE};
use rustix::process::{Pid, Signal, getpid, kill_process};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use tempfile::NamedTempFile;

/// Whoever waits for the program sends them to this one.
const PASSED_ON: [i32; 6] = [SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH];
/// Those that a terminal sends, which the program gets from there.
const TERMINALS: [i32; 2] = [SIGINT, SIGQUIT];

type Counts = [u64; Counter::COUNT];

/// Runs a program, and says what it has done. The file to count in lies in `directory`: in one where other users can
/// put files, it could be exchanged when a cleaner has removed it. Its exit status; or why it cannot be run.
pub(super) fn run(command: &mut Command, directory: Option<&Path>) -> anyhow::Result<io::Result<ExitCode>> {
    let directory = directory.context("no directory is this user's own; set XDG_CACHE_HOME to one")?;
    let counters = counters(directory).context("there is no place to count in")?;
    let signals = Signals::new(PASSED_ON.iter().chain(&TERMINALS)).context("signals cannot be received")?;
    let mut child = match command.env(STATS_VARIABLE, counters.path()).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let handle = signals.handle();
    let passing = pass_on(&child, signals);
    let status = child.wait().context("the program cannot be waited for")?;
    handle.close();
    // It ends when it is told to, and has nothing to say.
    let _ended = passing.join();
    let counts = counted(&counters).context("what was counted cannot be read")?;
    eprint!("{}", described(&counts));
    // This process may be about to end as the other one has.
    drop(counters);
    Ok(Ok(code_of(status)))
}

/// A file that the user's programs can count in.
fn counters(directory: &Path) -> io::Result<NamedTempFile> {
    let file = NamedTempFile::with_prefix_in("stats-", directory)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    file.as_file().set_len(size_of::<Counts>() as u64)?;
    Ok(file)
}

fn counted(file: &NamedTempFile) -> io::Result<Counts> {
    let bytes = fs::read(file.path())?;
    let mut counts = [0; Counter::COUNT];
    for (count, bytes) in counts.iter_mut().zip(bytes.as_chunks().0) {
        *count = u64::from_ne_bytes(*bytes);
    }
    Ok(counts)
}

fn pass_on(child: &Child, mut signals: Signals) -> thread::JoinHandle<()> {
    let child = Pid::from_child(child);
    thread::spawn(move || {
        for number in signals.forever().filter(|number| PASSED_ON.contains(number)) {
            if let Some(signal) = Signal::from_named_raw(number) {
                // It may just have ended.
                let _ = kill_process(child, signal);
            }
        }
    })
}

/// The program's exit status. If a signal has ended it, the same one ends this one.
fn code_of(status: ExitStatus) -> ExitCode {
    if let Some(number) = status.signal() {
        if let (Some(signal), Ok(())) =
            (Signal::from_named_raw(number), signal_hook::low_level::emulate_default_handler(number))
        {
            // For signals that end nobody by themselves, or cannot be emulated.
            let _ = kill_process(getpid(), signal);
        }
        return ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// What there is to say.
fn described(counts: &Counts) -> String {
    let count = |counter: Counter| counts[counter.index()];
    let mut text = String::new();
    // To memory, which fails nobody.
    let mut line = |name: &str, number: u64, what: &str| {
        let _ = writeln!(text, "lodefs: {number:>12}  {name}{what}");
    };
    if count(Counter::Processes) == 0 {
        line(
            "processes",
            0,
            " began with the library: the program is linked statically, or runs with other rights",
        );
        return text;
    }
    line("processes", count(Counter::Processes), " began with the library (forks not counted)");
    line("files", count(Counter::Files), " of volumes were opened");
    let without = "without the kernel: ";
    line(without, count(Counter::Reads), "reads");
    line(without, count(Counter::Writes), "writes");
    line(without, count(Counter::Syncs), "calls of fsync and fdatasync, which had nothing to do");
    line(without, count(Counter::Mapped), "shared mappings of direct files");
    let left = [
        (Counter::LeftAtFirst, "reads and writes, the first ones of a descriptor"),
        (Counter::LeftShared, "reads and writes at an offset that other processes may share"),
        (
            Counter::LeftForGood,
            "reads and writes of files that are not direct, or that this user may not attach to",
        ),
        (
            Counter::LeftForNow,
            "reads and writes with more to do than to copy bytes, or while others use the file",
        ),
        (Counter::Interrupting, "reads and writes by a signal handler that interrupted the library"),
        (Counter::MappedByKernel, "shared mappings of files that are not direct"),
    ];
    for (counter, what) in left.into_iter().filter(|(counter, _)| count(*counter) > 0) {
        line("by the kernel: ", count(counter), what);
    }
    if count(Counter::MappedByNobody) > 0 {
        line("refused: ", count(Counter::MappedByNobody), "shared mappings");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_line() {
        let counts: Counts = std::array::from_fn(|index| 1000 + index as u64);
        let text = described(&counts);
        for count in counts {
            assert_eq!(text.matches(&format!(" {count}  ")).count(), 1, "{count}: {text}");
        }
        assert_eq!(described(&[0; Counter::COUNT]).lines().count(), 1);
    }

    #[test]
    fn what_was_counted_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        let file = counters(scratch.path()).unwrap();
        let bytes: Vec<u8> = (1..=Counter::COUNT as u64).flat_map(u64::to_ne_bytes).collect();
        fs::write(file.path(), bytes).unwrap();
        assert_eq!(counted(&file).unwrap(), std::array::from_fn(|index| index as u64 + 1));
    }
}
