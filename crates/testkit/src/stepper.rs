//! Single steps: a thread of another process does one instruction after the other, and is ended between two of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;

/// The signal by which the program says that its operation has returned.
const RETURNED: i32 = libc::SIGUSR1;

/// Why the stepping came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The operation had returned.
    Returned,
    /// The instructions had been done.
    Ended,
}

/// How far it came.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// Instructions that were done.
    pub instructions: u64,
    /// Why no more.
    pub stop: Stop,
}

/// The first bytes of an instruction, and of those behind it.
pub type Code = [u8; 8];

/// In the program: tells who it is, waits, and runs `operation`.
///
/// # Panics
/// If nobody steps.
pub fn between_stops(operation: impl FnOnce()) {
    eprintln!("{}", rustix::thread::gettid().as_raw_nonzero());
    let mut start = [0];
    std::io::stdin().lock().read_exact(&mut start).expect("whoever steps says when");
    operation();
    // SAFETY: sends a signal to this thread; who steps it is told instead.
    unsafe { libc::raise(RETURNED) };
    unreachable!("nobody was stepping");
}

/// Starts test `name` of this program, with `task` in `variable`, and ends it after so many instructions between its stops.
///
/// # Panics
/// If it cannot be stepped.
pub fn step(name: &str, variable: &str, task: &str, instructions: u64) -> Stepped {
    start(name, variable, task, |program, thread| step_thread(program, thread, instructions, None))
}

/// The same to the end of the operation. `see` is shown each instruction before it is done.
///
/// # Panics
/// If it cannot be stepped.
pub fn watch(name: &str, variable: &str, task: &str, see: &mut dyn FnMut(Code)) -> Stepped {
    start(name, variable, task, |program, thread| step_thread(program, thread, u64::MAX, Some(see)))
}

fn start(
    name: &str,
    variable: &str,
    task: &str,
    step: impl FnOnce(&mut Child, libc::pid_t) -> Stepped,
) -> Stepped {
    let mut program = Command::new(std::env::current_exe().expect("this program has a file"))
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(variable, task)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program can be started");
    let mut line = String::new();
    BufReader::new(program.stderr.as_mut().expect("piped")).read_line(&mut line).expect("it says who it is");
    let thread = line.trim_end().parse().unwrap_or_else(|_| panic!("the program said: {line}"));
    let stepped = step(&mut program, thread);
    program.kill().expect("it can be ended");
    // The process is not gone before whoever traces its thread has seen the end of that.
    wait(thread);
    program.wait().expect("it has ended");
    stepped
}

fn step_thread(
    program: &mut Child,
    thread: libc::pid_t,
    instructions: u64,
    mut see: Option<&mut dyn FnMut(Code)>,
) -> Stepped {
    trace(libc::PTRACE_SEIZE, thread);
    trace(libc::PTRACE_INTERRUPT, thread);
    wait_for_stop(thread);
    let memory = File::open(format!("/proc/{}/mem", program.id())).expect("the memory of a traced program");
    program.stdin.as_mut().expect("piped").write_all(&[1]).expect("it waits");
    let mut done = 0;
    while done < instructions {
        if let Some(see) = &mut see {
            let mut code = Code::default();
            memory.read_exact_at(&mut code, instruction_pointer(thread)).expect("code can be read");
            see(code);
        }
        trace(libc::PTRACE_SINGLESTEP, thread);
        if wait_for_stop(thread) == RETURNED {
            return Stepped { instructions: done, stop: Stop::Returned };
        }
        done += 1;
    }
    Stepped { instructions: done, stop: Stop::Ended }
}

/// Where the thread goes on.
fn instruction_pointer(thread: libc::pid_t) -> u64 {
    let at = std::mem::offset_of!(libc::user_regs_struct, rip);
    // SAFETY: the request takes no memory of this process; the third argument is an offset.
    let word = unsafe {
        libc::ptrace(
            libc::PTRACE_PEEKUSER,
            thread,
            ptr::without_provenance_mut::<u8>(at),
            ptr::null_mut::<u8>(),
        )
    };
    word.cast_unsigned()
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

/// Runs `command` until its threads have come to the start or the end of so many system calls in all, and kills it
/// there. `None` if the program was killed, its status if it had ended before.
///
/// # Panics
/// If it cannot be traced.
pub fn kill_at_call(command: &mut Command, stops: u64) -> Option<ExitStatus> {
    // SAFETY: between fork and exec this only makes a system call, which takes no memory.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let mut program = command.spawn().expect("the program can be started");
    let leader = libc::pid_t::try_from(program.id()).expect("a process number");
    // The stop at which it has become the program.
    wait_for_stop(leader);
    follow_threads(leader);
    trace(libc::PTRACE_SYSCALL, leader);
    let mut ended = None;
    let mut done = 0;
    // Until all threads are gone: a process is only then.
    while let Some((thread, status)) = wait_for_any() {
        if libc::WIFSTOPPED(status) && done < stops {
            done += u64::from(libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80);
            // It may have been ended meanwhile by another thread.
            // SAFETY: the request takes no memory of this process.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, 0) };
        } else if libc::WIFSTOPPED(status) {
            program.kill().expect("it can be ended");
        } else if thread == leader {
            ended = Some(ExitStatus::from_raw(status));
        }
    }
    // The leader's status is known, and this only forgets the process.
    let _gone = program.wait();
    ended.filter(|status| status.code().is_some())
}

/// Traces the threads that `leader` starts, too, and tells stops at system calls from others.
fn follow_threads(leader: libc::pid_t) {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    // SAFETY: the request takes no memory of this process; the last argument is a number.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, leader, 0, options) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// What happened to which thread that this thread traces; `None` if there is none any more.
fn wait_for_any() -> Option<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: the status has room.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    (thread > 0).then_some((thread, status))
}
