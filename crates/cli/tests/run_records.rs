//! `lodefs run`: records that several writers put into one file, in every way, while signals interrupt them, and they are stopped and killed.
//!
//! Each record says who has written it, and its number among those of its writer. Writers share an open file, or have it open to append. Once a
//! call has returned, the record counts: in the end each that counts is in the file, once, whole, and in the order of its writer.

mod common;

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Child;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::programs::{open, play, playing, stage, told};
use common::unseen;

/// Records of each writer; `LODEFS_TEST_CALLS` for more in all.
const RECORDS: u64 = 2000;
/// Bytes of the longest record.
const RECORD_MAX: usize = 200;
/// Time between two signals, in nanoseconds.
const INTERVAL: i64 = 300_000;
/// The server gives up on a program that does not answer for a second.
const STOPPED_FOR: Duration = Duration::from_millis(1300);

unsafe extern "C" {
    fn dprintf(file: c_int, format: *const c_char, ...) -> c_int;
}

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "shared" => shared(&place, 0),
        "appended" => shared(&place, libc::O_APPEND),
        "writer" => writer(&place),
        part => panic!("{part}"),
    }
}

/// Records of each of so many writers.
fn records(writers: u64) -> u64 {
    let calls = std::env::var("LODEFS_TEST_CALLS").ok().and_then(|calls| calls.parse::<u64>().ok());
    calls.map_or(RECORDS, |calls| calls / writers)
}

/// A record: a line of text.
fn record(writer: u32, number: u64) -> Vec<u8> {
    let mut record = format!("{writer:02} {number:010} ").into_bytes();
    let size = 20 + (number as usize * 37 + writer as usize * 11) % (RECORD_MAX - 20);
    record.resize(size - 1, b'a' + (number % 26) as u8);
    record.push(b'\n');
    record
}

/// Ways to write at the position, or at the end if the file was opened to append.
const WAYS: u64 = 5;

fn write(file: c_int, record: &[u8], way: u64) -> isize {
    let (start, size) = (record.as_ptr(), record.len());
    let half = size / 2;
    let part = |from: usize, size| libc::iovec {
        iov_base: start.wrapping_add(from).cast_mut().cast(),
        iov_len: size,
    };
    let parts = [part(0, half), part(half, size - half)];
    // SAFETY: the bytes are there.
    unsafe {
        match way % WAYS {
            0 => libc::write(file, start.cast(), size),
            1 => libc::writev(file, parts.as_ptr(), 2),
            2 => dprintf(file, c"%.*s".as_ptr(), c_int::try_from(size).unwrap(), start) as isize,
            3 => {
                let written = libc::syscall(libc::SYS_write, file, start, size);
                written as isize
            }
            _ => {
                let arguments = [unseen::int(file), start.addr(), size, 0, 0, 0];
                unseen::call(libc::SYS_write, arguments).unwrap_or(-1)
            }
        }
    }
}

/// The file of the signal handler, and how many records it has written.
static FILE: AtomicU32 = AtomicU32::new(0);
static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Its number as a writer.
const HANDLER: u32 = 90;

extern "C" fn handle(_: c_int) {
    // SAFETY: the thread's errno is there.
    let errno = unsafe { *libc::__errno_location() };
    let number = HANDLED.load(Ordering::SeqCst);
    // The record is made without memory of the heap, which the handler may have interrupted.
    let mut line = *b"90 0000000000 handler.............................................\n";
    let mut rest = number;
    for digit in line[3..13].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let file = FILE.load(Ordering::SeqCst).cast_signed();
    // SAFETY: the bytes are there.
    if unsafe { libc::write(file, line.as_ptr().cast(), line.len()) } == line.len().cast_signed() {
        HANDLED.store(number + 1, Ordering::SeqCst);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Signals that come to one thread, as often as `INTERVAL` says, as long as this lives.
struct Signals(libc::timer_t);

impl Signals {
    fn to_this_thread() -> Self {
        let interval = libc::timespec { tv_sec: 0, tv_nsec: INTERVAL };
        let times = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: all that is passed is there, and filled; the handler does what handlers may do.
        unsafe {
            libc::signal(libc::SIGALRM, handle as *const () as libc::sighandler_t);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            let mut made = ptr::null_mut();
            let result = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut made);
            assert_eq!(result, 0);
            assert_eq!(libc::timer_settime(made, 0, &raw const times, ptr::null_mut()), 0);
            Self(made)
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the timer is there.
        assert_eq!(unsafe { libc::timer_delete(self.0) }, 0);
    }
}

/// Threads that share one open file, one of which is interrupted.
fn shared(place: &Path, flags: c_int) {
    let file = open(&place.join("f"));
    file.set_len(0).unwrap();
    let number = file.as_raw_fd();
    // SAFETY: sets flags of the program's own file.
    assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFL, flags) }, 0);
    FILE.store(number.cast_unsigned(), Ordering::SeqCst);
    let count = records(4);
    thread::scope(|scope| {
        for writer in 1..4_u32 {
            scope.spawn(move || {
                write_all(number, writer, count, |number| u64::from(writer) + number / 50);
            });
        }
        // The first writer mostly writes in the way that needs no kernel.
        let _signals = Signals::to_this_thread();
        write_all(number, 0, count, |_| 0);
    });
    let mut expected: BTreeMap<u32, u64> = (0..4).map(|writer| (writer, count)).collect();
    expected.insert(HANDLER, HANDLED.load(Ordering::SeqCst));
    let found = check(&place.join("f"), &expected, &expected);
    // SAFETY: asks for a number.
    assert_eq!(unsafe { libc::lseek(number, 0, libc::SEEK_CUR) }, found, "the position");
}

fn write_all(file: c_int, writer: u32, count: u64, way: impl Fn(u64) -> u64) {
    for number in 0..count {
        let record = record(writer, number);
        assert_eq!(write(file, &record, way(number)), record.len().cast_signed());
    }
}

/// Checks the records of a file. Of each writer there are at least those that count, and at most those that were begun. Returns the size.
fn check(path: &Path, counted: &BTreeMap<u32, u64>, begun: &BTreeMap<u32, u64>) -> i64 {
    let bytes = fs::read(path).unwrap();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(&line[..line.len().min(13)]).into_owned();
        let field = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
        let (Some(writer), Some(number)) = (field(0..2), field(3..13)) else { panic!("torn: {text:?}") };
        let writer = u32::try_from(writer).unwrap();
        assert!(writer == HANDLER || line == record(writer, number), "torn: {text:?}");
        let expected = next.entry(writer).or_default();
        assert_eq!(number, *expected, "of writer {writer}");
        *expected += 1;
    }
    for (writer, counted) in counted {
        let found = next.get(writer).copied().unwrap_or(0);
        assert!(
            (*counted..=begun[writer]).contains(&found),
            "{found} of {counted} records of writer {writer}"
        );
    }
    i64::try_from(bytes.len()).unwrap()
}

#[test]
fn records_at_a_position_that_all_move_are_all_there() {
    let Some((_bench, mounted)) = stage() else { return };
    play("shared", &mounted.directory);
    mounted.unmount();
}

#[test]
fn records_that_are_appended_beside_signals_are_all_there() {
    let Some((_bench, mounted)) = stage() else { return };
    play("appended", &mounted.directory);
    mounted.unmount();
}

/// Records of a process that count, in a file that the test looks into.
const COUNTS: &str = "counts";
/// Which writer a process is, of so many.
const WRITER: &str = "LODEFS_TEST_WRITER";
const WRITERS: u32 = 3;

/// A process that appends until it is killed, and counts its records in memory that outlives it.
fn writer(place: &Path) {
    let writer: u32 = std::env::var(WRITER).unwrap().parse().unwrap();
    let counts = counts(place);
    let path = place.join("f");
    let file = fs::OpenOptions::new().append(true).open(path).unwrap();
    for number in 0.. {
        let record = record(writer, number);
        counts[writer as usize * 2].store(number + 1, Ordering::SeqCst);
        assert_eq!(write(file.as_raw_fd(), &record, 0), record.len().cast_signed());
        counts[writer as usize * 2 + 1].store(number + 1, Ordering::SeqCst);
        // In the kernel, so that it is stopped where it writes; and the others let it have the file.
        thread::sleep(Duration::from_micros(if writer == 0 { 30 } else { 200 }));
    }
}

/// For each writer: records begun, and records that count.
fn counts(place: &Path) -> &'static [AtomicU64] {
    let file = open(&place.parent().unwrap().join(COUNTS));
    file.set_len(4096).unwrap();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the address; the file is on the host, and stays as long.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert!(start != libc::MAP_FAILED);
        std::slice::from_raw_parts(start.cast(), WRITERS as usize * 2)
    }
}

/// How often a process is stopped.
fn rounds() -> u64 {
    (records(1) / 100_000).clamp(3, 30)
}

/// Stops a process at a moment when it is not in the kernel, if there is one soon.
fn stop_in_program(child: &Child) {
    let signal = |number| {
        // SAFETY: the process is this one's child, and has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), number) }, 0);
    };
    let calls = format!("/proc/{}/task", child.id());
    for pause in 0..2000_u64 {
        signal(libc::SIGSTOP);
        thread::sleep(Duration::from_micros(200));
        let is_in_program = fs::read_dir(&calls).unwrap().flatten().any(|thread| {
            let said = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
            said.starts_with("-1")
        });
        if is_in_program {
            return;
        }
        signal(libc::SIGCONT);
        thread::sleep(Duration::from_micros(300 + pause * 7 % 1500));
    }
}

#[test]
fn appends_of_a_process_that_is_stopped_and_of_one_that_is_killed_leave_those_of_others_alone() {
    let Some((_bench, mounted)) = stage() else { return };
    let place = &mounted.directory;
    fs::write(place.join("f"), "").unwrap();
    let counts = counts(place);
    let start = |writer: u32| {
        let mut command = playing(&[], "writer", place);
        command.env(WRITER, writer.to_string()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (0..WRITERS).map(start).collect();
    for _ in 0..rounds() {
        thread::sleep(Duration::from_millis(50));
        stop_in_program(&children[0]);
        thread::sleep(STOPPED_FOR);
        // SAFETY: as above.
        unsafe { libc::kill(children[0].id().cast_signed(), libc::SIGCONT) };
        thread::sleep(Duration::from_millis(300));
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let told = |offset: u32| {
        let of = |writer: u32| counts[(writer * 2 + offset) as usize].load(Ordering::SeqCst);
        (0..WRITERS).map(|writer| (writer, of(writer))).collect::<BTreeMap<_, _>>()
    };
    check(&place.join("f"), &told(1), &told(0));
    mounted.unmount();
}
