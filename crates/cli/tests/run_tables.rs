//! `lodefs run`: threads and children with a table of descriptors of their own.

mod common;

use std::ffi::{CString, c_int};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::programs::{open, play_on_stage, system_calls, told};
use common::unseen::{call, int};

/// Writes of each thread.
const WRITES: u64 = 60;

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "unshared" => unshared(&place, |_| {
            // SAFETY: only this thread is affected.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        }),
        "unshared-unseen" => unshared(&place, |_| {
            // SAFETY: as above.
            unsafe { call(libc::SYS_unshare, [int(libc::CLONE_FILES), 0, 0, 0, 0, 0]).unwrap() };
        }),
        "unshared-range" => unshared(&place, |number| {
            let (number, flags) = (number.cast_unsigned(), libc::CLOSE_RANGE_UNSHARE.cast_signed());
            // SAFETY: as above; the descriptor is this thread's to close in its own table.
            assert_eq!(unsafe { libc::close_range(number, number, flags) }, 0);
        }),
        "vforked" => vforked(&place),
        "cloned" => cloned(&place),
        "forked" => forked(&place),
        part => panic!("{part}"),
    }
}

fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Writes to a descriptor without knowing more of it than its number.
fn write_at(number: c_int, byte: u8, index: u64) {
    let (bytes, offset) = ([byte; 256], (index * 256).cast_signed());
    // SAFETY: the bytes are there.
    let written = unsafe { libc::pwrite(number, bytes.as_ptr().cast(), bytes.len(), offset) };
    assert_eq!(written, 256);
}

/// A thread gets a table of its own, and another file by the number of a file of the other threads. First the thread writes to its file, then
/// another thread to its own.
fn unshared(place: &Path, leave: impl FnOnce(c_int) + Send) {
    let first = open(&place.join("first"));
    let number = first.as_raw_fd();
    // Until the file is lent to this program.
    (0..WRITES).for_each(|index| write_at(number, b'A', index));
    let second = name(&place.join("second"));
    let (written, over) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            leave(number);
            // SAFETY: the descriptor is this thread's own copy; the name is a string that ends.
            unsafe {
                libc::close(number);
                let flags = libc::O_RDWR | libc::O_CREAT;
                assert_eq!(libc::open(second.as_ptr(), flags, 0o600), number);
            }
            // So often that the second file is lent to the program too.
            for index in 0..WRITES {
                write_at(number, b'2', index);
                thread::sleep(Duration::from_micros(300));
            }
            written.wait();
            over.wait();
        });
        written.wait();
        (0..WRITES).for_each(|index| write_at(number, b'1', index));
        over.wait();
    });
    let size = WRITES as usize * 256;
    assert!(fs::read(place.join("first")).unwrap() == vec![b'1'; size], "the first file");
    assert!(fs::read(place.join("second")).unwrap() == vec![b'2'; size], "the second file");
}

#[test]
fn a_thread_with_its_own_descriptors_writes_to_its_own_files() {
    play_on_stage("unshared");
}

#[test]
fn a_thread_that_has_unshared_its_descriptors_unseen_writes_to_its_own_files() {
    play_on_stage("unshared-unseen");
}

#[test]
fn a_thread_that_has_unshared_its_descriptors_to_close_them_writes_to_its_own_files() {
    play_on_stage("unshared-range");
}

const CHILD_LIVES: Duration = Duration::from_millis(200);

/// What a child does that has the memory of its parent: it takes the number for a file of its own.
fn take_number(number: c_int, seen: &mut u32) {
    *seen = 1;
    thread::sleep(CHILD_LIVES);
    // SAFETY: the descriptor is the child's own copy; the name is a string that ends.
    unsafe {
        libc::close(number);
        assert_eq!(libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY), number);
        assert_eq!(libc::write(number, [b'x'; 64].as_ptr().cast(), 64), 64);
    }
    *seen = 2;
}

/// A function of its own, whose variables the child may use.
#[inline(never)]
fn vfork_and_take(number: c_int, seen: &mut u32) -> c_int {
    // SAFETY: the child changes what its parent has lent to it, and ends; the parent waits until then.
    unsafe {
        #[expect(deprecated, reason = "programs use it")]
        let child = libc::vfork();
        if child == 0 {
            take_number(number, seen);
            libc::_exit(3);
        }
        child
    }
}

fn wait_for(child: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WEXITSTATUS(status)
}

fn vforked(place: &Path) {
    let file = open(&place.join("f"));
    let number = file.as_raw_fd();
    (0..WRITES).for_each(|index| write_at(number, b'A', index));
    let (mut seen, begun) = (0, Instant::now());
    let child = vfork_and_take(number, &mut seen);
    assert_eq!(seen, 2, "what the child has stored");
    // The clock says how long the parent has waited, which is what is tested: the child has slept for so long.
    assert!(begun.elapsed() >= CHILD_LIVES, "the parent did not wait");
    assert_eq!(wait_for(child), 3);
    (0..WRITES).for_each(|index| write_at(number, b'B', index));
    assert!(fs::read(place.join("f")).unwrap() == vec![b'B'; WRITES as usize * 256]);
}

#[test]
fn the_parent_of_a_child_made_by_vfork_waits_and_keeps_its_files() {
    play_on_stage("vforked");
}

struct Told {
    number: c_int,
    other: CString,
}

extern "C" fn in_clone(told: *mut libc::c_void) -> c_int {
    // SAFETY: the parent has lent it, and waits.
    let told = unsafe { &*told.cast::<Told>() };
    // SAFETY: the descriptor is the child's own copy; the name is a string that ends.
    unsafe {
        libc::close(told.number);
        if libc::open(told.other.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) != told.number {
            return 1;
        }
    }
    (0..WRITES).for_each(|index| {
        write_at(told.number, b'2', index);
        thread::sleep(Duration::from_micros(300));
    });
    0
}

/// A process that shares memory but no descriptors (`CLONE_VM` without `CLONE_FILES`).
fn cloned(place: &Path) {
    let file = open(&place.join("first"));
    (0..WRITES).for_each(|index| write_at(file.as_raw_fd(), b'A', index));
    let mut told = Told { number: file.as_raw_fd(), other: name(&place.join("second")) };
    let mut stack = vec![0_u8; 1 << 20];
    // SAFETY: the stack is there until the child has ended, and so is what it is told.
    let child = unsafe {
        let end = stack.as_mut_ptr().add(stack.len() - stack.as_ptr().addr() % 16).cast();
        libc::clone(in_clone, end, libc::CLONE_VM | libc::SIGCHLD, (&raw mut told).cast())
    };
    assert!(child > 0);
    // As above.
    thread::sleep(Duration::from_micros(400) * WRITES as u32);
    (0..WRITES).for_each(|index| write_at(file.as_raw_fd(), b'1', index));
    assert_eq!(wait_for(child), 0);
    let size = WRITES as usize * 256;
    assert!(fs::read(place.join("first")).unwrap() == vec![b'1'; size], "the first file");
    assert!(fs::read(place.join("second")).unwrap() == vec![b'2'; size], "the second file");
}

#[test]
fn a_child_that_shares_memory_but_no_descriptors_writes_to_its_own_files() {
    play_on_stage("cloned");
}

/// A child of a process that has used no file of the volume yet.
fn forked(place: &Path) {
    // SAFETY: the child writes, looks how often the kernel was asked, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let file = open(&place.join("f"));
        let (_, before) = system_calls();
        (0..WRITES).for_each(|_| write_at(file.as_raw_fd(), b'A', 0));
        (0..WRITES).for_each(|_| write_at(file.as_raw_fd(), b'A', 0));
        let (_, after) = system_calls();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(after - before > WRITES)) };
    }
    assert_eq!(wait_for(child), 0, "the kernel was asked for each write");
}

#[test]
fn a_child_of_a_process_that_has_used_no_file_needs_no_system_calls() {
    play_on_stage("forked");
}
