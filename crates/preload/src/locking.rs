//! Which calls lock memory?
//!
//! The kernel locks what it has mapped, and forgets that when the library maps the same once more. So the library keeps of each piece whether
//! the program has locked it: what may not be done with locked pages is refused as the kernel refuses it.

use std::ffi::{c_int, c_uint, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::size_t;

use crate::addresses::{self, Piece};
use crate::showing::PAGE_SIZE;
use crate::within::Within;
use crate::{changing, next, outline};

const ALL: Range<usize> = 0..usize::MAX;

/// What is mapped from now on is locked (`MCL_FUTURE`).
static LOCKS_NEW: AtomicBool = AtomicBool::new(false);

/// Whether what is mapped now is locked.
pub(crate) fn locks_new() -> bool {
    LOCKS_NEW.load(Ordering::Relaxed)
}

/// In a child, which inherits no locks.
pub(crate) fn in_child() {
    LOCKS_NEW.store(false, Ordering::Relaxed);
    note(&ALL, false);
}

/// Notes of all pieces in a range whether they are locked.
fn note(range: &Range<usize>, is_locked: bool) {
    for (part, piece) in addresses::found(range) {
        if piece.is_locked != is_locked {
            addresses::put(&part, Piece { is_locked, ..piece });
        }
    }
}

/// The same, if the kernel has done it.
fn noted(result: c_int, range: &Range<usize>, is_locked: bool) -> c_int {
    if result == 0
        && outline::has_some_of(range)
        && let Some(_within) = Within::enter()
    {
        let _alone = changing::alone();
        note(range, is_locked);
    }
    result
}

/// All pages of which a range has a byte.
fn around(address: *mut c_void, size: size_t) -> Range<usize> {
    let start = address.addr();
    let end = start.saturating_add(size).checked_next_multiple_of(PAGE_SIZE).unwrap_or(usize::MAX);
    start - start % PAGE_SIZE..end
}

/// # Safety
/// As for mlock(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mlock(address: *mut c_void, size: size_t) -> c_int {
    // SAFETY: by the caller's promise.
    noted(unsafe { next::mlock(address, size) }, &around(address, size), true)
}

/// # Safety
/// As for mlock2(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mlock2(address: *mut c_void, size: size_t, flags: c_uint) -> c_int {
    // SAFETY: by the caller's promise.
    noted(unsafe { next::mlock2(address, size, flags) }, &around(address, size), true)
}

/// # Safety
/// As for munlock(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn munlock(address: *mut c_void, size: size_t) -> c_int {
    // SAFETY: by the caller's promise.
    noted(unsafe { next::munlock(address, size) }, &around(address, size), false)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn mlockall(flags: c_int) -> c_int {
    // SAFETY: as for the caller's.
    let result = unsafe { next::mlockall(flags) };
    if result == 0 {
        LOCKS_NEW.store(flags & libc::MCL_FUTURE != 0, Ordering::Relaxed);
    }
    if flags & libc::MCL_CURRENT != 0 { noted(result, &ALL, true) } else { result }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn munlockall() -> c_int {
    // SAFETY: as for the caller's.
    let result = unsafe { next::munlockall() };
    if result == 0 {
        LOCKS_NEW.store(false, Ordering::Relaxed);
    }
    noted(result, &ALL, false)
}
