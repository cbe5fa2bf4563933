//! Single steps: a thread of another process does one instruction after the other, and is ended between two of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::ptr;

/// The signal by which the program says that its operation has returned.
const RETURNED: i32 = libc::SIGUSR1;

/// Why the stepping came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The operation had returned.
    Returned,
    /// The instructions had been done.
    Ended,
}

/// How far it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stepped {
    pub(crate) instructions: u64,
    pub(crate) stop: Stop,
}

/// In the program: tells who it is, waits, and runs `operation`.
pub(crate) fn between_stops(operation: impl FnOnce()) {
    eprintln!("{}", rustix::thread::gettid().as_raw_nonzero());
    let mut start = [0];
    std::io::stdin().lock().read_exact(&mut start).unwrap();
    operation();
    // SAFETY: sends a signal to this thread; who steps it is told instead.
    unsafe { libc::raise(RETURNED) };
    unreachable!("nobody was stepping");
}

/// Starts test `name` of this program, with `task` in `variable`, and ends it after so many instructions between its stops.
pub(crate) fn step(name: &str, variable: &str, task: &str, instructions: u64) -> Stepped {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(variable, task)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let thread = line.trim_end().parse().unwrap_or_else(|_| panic!("the program said: {line}"));
    let stepped = step_thread(&mut program, thread, instructions);
    program.kill().unwrap();
    // The process is not gone before whoever traces its thread has seen the end of that.
    wait(thread);
    program.wait().unwrap();
    stepped
}

fn step_thread(program: &mut Child, thread: libc::pid_t, instructions: u64) -> Stepped {
    trace(libc::PTRACE_SEIZE, thread);
    trace(libc::PTRACE_INTERRUPT, thread);
    wait_for_stop(thread);
    program.stdin.as_mut().unwrap().write_all(&[1]).unwrap();
    let mut done = 0;
    while done < instructions {
        trace(libc::PTRACE_SINGLESTEP, thread);
        if wait_for_stop(thread) == RETURNED {
            return Stepped { instructions: done, stop: Stop::Returned };
        }
        done += 1;
    }
    Stepped { instructions: done, stop: Stop::Ended }
}

fn trace(request: libc::c_uint, thread: libc::pid_t) {
    // SAFETY: these requests take no memory of this process.
    let result = unsafe { libc::ptrace(request, thread, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
    assert_eq!(result, 0, "ptrace {request:#x}: {}", std::io::Error::last_os_error());
}

/// Waits until the thread stands still; the signal that stopped it.
fn wait_for_stop(thread: libc::pid_t) -> i32 {
    let status = wait(thread);
    assert!(libc::WIFSTOPPED(status), "the program ended: {status:#x}");
    libc::WSTOPSIG(status)
}

/// Waits until something happens to the thread; its status.
fn wait(thread: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status has room.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    assert_eq!(waited, thread, "{}", std::io::Error::last_os_error());
    status
}
