//! `lodefs run`: how programs end, and with them the run.

mod common;

use std::ffi::c_void;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::ptr::null_mut;
use std::thread::{sleep, spawn};
use std::time::Duration;

use common::programs::{open, play_on_stage, run, told};
use common::{lodefs, succeed};

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "last" => last(&place),
        "cancelled" => cancelled(&place),
        part => panic!("{part}"),
    }
}

#[test]
fn a_run_ends_as_its_program_does() {
    for (command, status) in
        [(&["sh", "-c", "exit 7"][..], 7), (&["/nowhere/at/all"], 127), (&["/etc/passwd"], 126)]
    {
        assert_eq!(run(command).status().unwrap().code(), Some(status), "{command:?}");
    }
    let killed = run(&["sh", "-c", "kill -TERM $$"]).status().unwrap();
    assert_eq!(killed.signal(), Some(libc::SIGTERM));
    assert_eq!(succeed(&mut run(&["echo", "--stats", "-x"])), "--stats -x\n");
}

#[test]
fn signals_reach_a_program_of_which_something_is_to_be_said() {
    let mut waiting = lodefs([
        "run",
        "--stats",
        "--",
        "sh",
        "-c",
        "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done",
    ]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    waiting.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let id = libc::pid_t::try_from(waiting.id()).unwrap();
    // SAFETY: it is this process's child.
    assert_eq!(unsafe { libc::kill(id, libc::SIGUSR1) }, 0);
    assert_eq!(waiting.wait().unwrap().code(), Some(5));
}

/// Each thread starts the next one, and ends.
fn relay(file: File, threads: usize) {
    if threads > 0 {
        sleep(Duration::from_micros(200));
        spawn(move || relay(file, threads - 1));
        return;
    }
    (0..100).for_each(|_| file.write_all_at(b"later", 0).unwrap());
    // As long as it is open, the library has threads.
    std::mem::forget(file);
}

/// A process whose first thread ends before others do.
extern "C" fn lasts(place: *mut c_void) -> *mut c_void {
    // SAFETY: whoever has started this thread waits for it.
    let place = unsafe { &*place.cast_const().cast::<&Path>() };
    // SAFETY: the child opens a file, starts a thread, and ends with that.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let file = open(&place.join("f"));
        (0..100).for_each(|_| file.write_all_at(b"first", 0).unwrap());
        spawn(move || relay(file, 300));
        // The thread that has forked is the first of the child.
        return null_mut();
    }
    let mut status = 0;
    // Whoever waits for ever is ended, and that is seen. (All its threads may take no other signal.)
    let mut rounds = 0;
    // SAFETY: the status has room.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        sleep(Duration::from_millis(10));
        rounds += 1;
        if rounds == 2000 {
            // SAFETY: it is this process's child.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }
    assert_eq!(ExitStatus::from_raw(status).code(), Some(0));
    null_mut()
}

/// A process ends with its last thread, though not with the first.
fn last(place: &Path) {
    for _ in 0..3 {
        let mut thread = 0;
        // SAFETY: what it is given is there until it has ended.
        unsafe {
            let place = (&raw const place).cast_mut().cast();
            assert_eq!(libc::pthread_create(&raw mut thread, std::ptr::null(), lasts, place), 0);
            assert_eq!(libc::pthread_join(thread, null_mut()), 0);
        }
        assert_eq!(fs::read(place.join("f")).unwrap(), b"later");
        fs::remove_file(place.join("f")).unwrap();
    }
}

#[test]
fn a_process_ends_with_its_last_thread_which_is_not_the_librarys() {
    play_on_stage("last");
}

unsafe extern "C" {
    fn pthread_testcancel();
}

/// The descriptor that a thread was given.
fn number(given: *mut c_void) -> i32 {
    i32::try_from(given.addr()).unwrap()
}

/// Writes until it is cancelled, which it may be in each call.
extern "C" fn writes(file: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: it is a descriptor, and there is a byte.
        unsafe { libc::pwrite(number(file), c"x".as_ptr().cast(), 1, 0) };
    }
}

/// Maps and unmaps until it is cancelled, which it may be in none of these calls.
extern "C" fn maps(file: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: it is a descriptor; nothing that is there is replaced, and what is mapped is used by nobody.
        unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            let start = libc::mmap(null_mut(), 4096, protection, flags, number(file), 0);
            libc::munmap(start, 4096);
            pthread_testcancel();
        }
    }
}

/// Threads that are cancelled, in the library too.
fn cancelled(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(b"x", 0).unwrap();
    for work in [writes, maps].repeat(10) {
        let (mut thread, mut result) = (0, null_mut());
        // SAFETY: what the thread is given is no pointer; it has ended before the descriptor is closed.
        unsafe {
            let number = std::ptr::without_provenance_mut(usize::try_from(file.as_raw_fd()).unwrap());
            assert_eq!(libc::pthread_create(&raw mut thread, std::ptr::null(), work, number), 0);
            sleep(Duration::from_millis(20));
            assert_eq!(libc::pthread_cancel(thread), 0);
            assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
        }
        // `PTHREAD_CANCELED`.
        assert_eq!(result.addr(), usize::MAX);
    }
}

#[test]
fn threads_can_be_cancelled() {
    play_on_stage("cancelled");
}
