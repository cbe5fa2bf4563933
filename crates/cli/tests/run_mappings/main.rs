//! `lodefs run`: mappings of direct files, which the kernel refuses. By each question a module.

#[path = "../common/mod.rs"]
mod common;
mod copies;
mod locked;
mod lockstep;
mod moves;
mod refusals;
mod threads;

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use common::programs::told;
use libc::{MAP_SHARED, PROT_READ, PROT_WRITE};

const PAGE: usize = 4096;
const BOTH: c_int = PROT_READ | PROT_WRITE;

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "shares" => copies::shares(&place),
        "lockstep" => lockstep::lockstep(&place),
        "moves" => moves::moves(&place),
        "signals" => refusals::signals(&place),
        "sync" => refusals::sync(&place),
        "meanwhile" => threads::meanwhile(&place),
        "spliced" => copies::spliced(&place),
        "tidy" => copies::tidy(&place),
        "forced" => refusals::forced(&place),
        "refusals" => refusals::refusals(&place),
        "not-inherited" => refusals::not_inherited(&place),
        "locked" => locked::locked(&place),
        "locks-all" => locked::locks_all(&place),
        "beside" => threads::beside(&place),
        "taken" => threads::taken(&place),
        part => panic!("{part}"),
    }
}

fn outcome<T: Copy + PartialEq>(result: T, failed: T) -> Result<T, i32> {
    if result == failed { Err(io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(result) }
}

/// # Safety
/// As for mmap(2).
unsafe fn map_at(
    address: *mut u8,
    file: &File,
    (offset, pages): (usize, usize),
    protection: c_int,
    flags: c_int,
) -> Result<*mut u8, i32> {
    let offset = libc::off_t::try_from(offset * PAGE).unwrap();
    let (address, descriptor) = (address.cast(), file.as_raw_fd());
    // SAFETY: by the caller's promise.
    let start = unsafe { libc::mmap(address, pages * PAGE, protection, flags, descriptor, offset) };
    outcome(start, libc::MAP_FAILED).map(<*mut c_void>::cast)
}

fn map(file: &File, pages: usize, protection: c_int) -> *mut u8 {
    // SAFETY: nothing that is there is replaced.
    unsafe { map_at(ptr::null_mut(), file, (0, pages), protection, MAP_SHARED) }.unwrap()
}

fn load(address: *mut u8, at: usize) -> u8 {
    // SAFETY: the tests look at what they have mapped only.
    unsafe { address.add(at).read_volatile() }
}

fn store(address: *mut u8, at: usize, byte: u8) {
    // SAFETY: as above.
    unsafe { address.add(at).write_volatile(byte) }
}

fn unmap(address: *mut u8, size: usize) {
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { libc::munmap(address.cast(), size) }, 0);
}

fn byte(file: &File, at: usize) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    byte[0]
}

/// Has a child do this, and end; how it has ended.
fn in_child(deed: impl FnOnce()) -> ExitStatus {
    // SAFETY: the child does this, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        deed();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    ExitStatus::from_raw(status)
}

/// The signal by which a child ends that does this.
fn signal_of(deed: impl FnOnce()) -> i32 {
    in_child(deed).signal().unwrap_or(0)
}
