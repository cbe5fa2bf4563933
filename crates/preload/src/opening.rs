//! What becomes of a descriptor that is opened, copied, or closed?

use std::ffi::{c_char, c_int, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use libc::mode_t;
use lodefs_direct::run::Counter;
use lodefs_direct::{TELLS_WHEN_CLOSED, descriptor_table, is_own_descriptor, own_descriptors};

use rustix::fs::{self, AtFlags, Mode, OFlags, StatxFlags, fcntl_getfl, statx};

use crate::opened::Opened;
use crate::tables::unshare_descriptors;
use crate::within::{Within, set_errno};
use crate::{mounts, next, sharing, stats, table};

/// The flag by which a server tells when a descriptor is closed.
const TELLS: c_int = TELLS_WHEN_CLOSED.cast_signed();
/// What is opened with one of these is not read or written.
const NO_DATA: c_int = libc::O_PATH | libc::O_DIRECTORY;

/// Opens a file, by `open`, which is given its flags; with that flag, if it may be on a volume.
fn opened(directory: c_int, path: *const c_char, flags: c_int, open: impl FnOnce(c_int) -> c_int) -> c_int {
    if !mounts::are_there() || flags & NO_DATA != 0 {
        let file = open(flags);
        forget(file);
        return file;
    }
    let tells = Within::enter().is_some_and(|_within| mounts::may_have(directory, path));
    let times = sharing::times();
    let file = open(if tells { flags | TELLS } else { flags });
    note(file, tells, times);
    file
}

/// A descriptor is new: notes which file it is. Whoever comes to a volume by a name from elsewhere has the kernel do it all: to open the
/// file once more would take its locks away.
fn note(file: c_int, tells: bool, times: u64) {
    if file < 0 || !(tells || table::is_known(file)) {
        return;
    }
    let Some(_within) = Within::enter() else { return };
    if !descriptor_table::is_surely_used_here() {
        return;
    }
    // SAFETY: it has just been opened, and is the caller's, who does not have it yet.
    let descriptor = unsafe { BorrowedFd::borrow_raw(file) };
    let opened = if tells && mounts::has(descriptor) { Opened::of(descriptor, None) } else { None };
    if opened.is_some() {
        stats::count(Counter::Files);
    }
    table::put(file, opened.map(Arc::new));
    if sharing::times() != times
        && let Some(opened) = table::get(file)
    {
        opened.position().share(true);
    }
}

/// Has the kernel ask for the size of a file, which this program may have made longer: the kernel goes by what it has seen last where it maps a
/// file, copies it, or sends it elsewhere.
pub(crate) fn refresh(file: c_int) {
    if !table::is_known(file) {
        return;
    }
    if let Some(_within) = Within::enter() {
        // What it cannot say, it will say to the caller.
        let _size = ask_for_size(file);
    }
}

/// The same for a descriptor of which nothing is known.
pub(crate) fn refresh_end(file: c_int) {
    if file < 0 {
        return;
    }
    // SAFETY: the caller's descriptor is open as long as he uses it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(file) };
    if let Some(_within) = Within::enter()
        && mounts::has(descriptor)
    {
        // What it cannot say, it will say to the caller.
        let _size = ask_for_size(file);
    }
}

/// The same, within the library; that size.
pub(crate) fn ask_for_size(file: c_int) -> Option<u64> {
    // SAFETY: the caller's descriptor is open as long as he uses it.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    let said = statx(file, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::SIZE);
    said.ok().map(|stat| stat.stx_size)
}

/// Calls something with another open file of the same file, opened for the same and with `flags`. `None` if it cannot be opened so.
pub(crate) fn by_reopened<T>(file: c_int, flags: c_int, call: impl FnOnce(c_int) -> T) -> Option<T> {
    let mut within = Within::enter()?;
    // SAFETY: the caller's descriptor is open as long as he uses it.
    let mode = fcntl_getfl(unsafe { BorrowedFd::borrow_raw(file) }).ok()? & OFlags::RWMODE;
    let flags = mode | OFlags::from_bits_retain(flags.cast_unsigned()) | OFlags::CLOEXEC;
    // Of this thread's table, which need not be that of the process.
    let other = fs::open(format!("/proc/thread-self/fd/{file}"), flags, Mode::empty()).ok()?;
    let returned = call(other.as_raw_fd());
    within.keep_errno();
    Some(returned)
}

/// A descriptor is none of a volume's any more, or may not be.
fn forget(file: c_int) {
    if file < 0 || !table::is_known(file) {
        return;
    }
    if let Some(_within) = Within::enter()
        && descriptor_table::is_surely_used_here()
    {
        table::put(file, None);
    }
}

/// A descriptor is a copy of another one.
fn note_copy(file: c_int, copy: c_int) {
    if copy < 0 || file == copy || !(table::is_known(file) || table::is_known(copy)) {
        return;
    }
    if let Some(_within) = Within::enter()
        && descriptor_table::is_surely_used_here()
    {
        let position = table::get(file).map(|file| Arc::clone(file.position()));
        // SAFETY: it has just been made, and is the caller's, who does not have it yet.
        let descriptor = unsafe { BorrowedFd::borrow_raw(copy) };
        let opened = position.and_then(|position| Opened::of(descriptor, Some(position)));
        table::put(copy, opened.map(Arc::new));
    }
}

macro_rules! openers {
    ($($open:ident, $openat:ident, $creat:ident;)*) => {
        $(
            /// # Safety
            /// As for open(2).
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
                // SAFETY: by the caller's promise.
                opened(libc::AT_FDCWD, path, flags, |flags| unsafe { next::open(path, flags, mode) })
            }

            /// # Safety
            /// As for openat(2).
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
                // SAFETY: by the caller's promise.
                opened(directory, path, flags, |flags| unsafe { next::openat(directory, path, flags, mode) })
            }

            /// # Safety
            /// As for creat(2).
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $creat(path: *const c_char, mode: mode_t) -> c_int {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                // SAFETY: by the caller's promise.
                opened(libc::AT_FDCWD, path, flags, |flags| unsafe { next::open(path, flags, mode) })
            }
        )*
    };
}

openers! {
    open, openat, creat;
    open64, openat64, creat64;
}

macro_rules! checked_openers {
    ($($open:ident, $openat:ident;)*) => {
        $(
            /// What programs call that were compiled with checks, when no mode is needed.
            ///
            /// # Safety
            /// As for open(2).
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $open(path: *const c_char, flags: c_int) -> c_int {
                // SAFETY: by the caller's promise.
                opened(libc::AT_FDCWD, path, flags, |flags| unsafe { next::__open_2(path, flags) })
            }

            /// # Safety
            /// As for openat(2).
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $openat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
                // SAFETY: by the caller's promise.
                opened(directory, path, flags, |flags| unsafe { next::__openat_2(directory, path, flags) })
            }
        )*
    };
}

checked_openers! {
    __open_2, __openat_2;
    __open64_2, __openat64_2;
}

/// This library's own descriptors are not there, for the program.
fn is_own(file: c_int) -> bool {
    let is_own = is_own_descriptor(file) && !Within::is_here();
    if is_own {
        set_errno(libc::EBADF);
    }
    is_own
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn close(file: c_int) -> c_int {
    if is_own(file) {
        return -1;
    }
    forget(file);
    // SAFETY: as for the caller's.
    unsafe { next::close(file) }
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let unshares = flags.cast_unsigned() & libc::CLOSE_RANGE_UNSHARE != 0;
    if unshares && !unshare_descriptors() {
        return -1;
    }
    let flags = flags & !libc::CLOSE_RANGE_UNSHARE.cast_signed();
    if flags.cast_unsigned() & libc::CLOSE_RANGE_CLOEXEC == 0 {
        let is_meant = |file: &c_int| (first..=last).contains(&file.cast_unsigned());
        table::known().filter(is_meant).for_each(forget);
    }
    let mut from = first;
    let own = own_descriptors().filter_map(|own| c_uint::try_from(own).ok());
    for own in own.filter(|own| (first..=last).contains(own)) {
        // SAFETY: as for the caller's.
        if from < own && unsafe { next::close_range(from, own - 1, flags) } != 0 {
            return -1;
        }
        from = own + 1;
    }
    // SAFETY: as for the caller's.
    if from > last && first <= last { 0 } else { unsafe { next::close_range(from, last, flags) } }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn closefrom(first: c_int) {
    // It fails for nobody.
    close_range(first.max(0).cast_unsigned(), c_uint::MAX, 0);
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn dup(file: c_int) -> c_int {
    // SAFETY: as for the caller's.
    let copy = unsafe { next::dup(file) };
    note_copy(file, copy);
    copy
}

/// What dup2(2) may say of a descriptor that somebody is just opening.
fn is_taken(file: c_int) -> bool {
    let is_own = is_own(file);
    if is_own {
        set_errno(libc::EBUSY);
    }
    is_own
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn dup2(file: c_int, copy: c_int) -> c_int {
    if is_taken(copy) {
        return -1;
    }
    // SAFETY: as for the caller's.
    let copy = unsafe { next::dup2(file, copy) };
    note_copy(file, copy);
    copy
}

#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn dup3(file: c_int, copy: c_int, flags: c_int) -> c_int {
    if is_taken(copy) {
        return -1;
    }
    // SAFETY: as for the caller's.
    let copy = unsafe { next::dup3(file, copy, flags) };
    note_copy(file, copy);
    copy
}

/// fcntl(2), by any of its names.
///
/// # Safety
/// As for that.
unsafe fn controlled(file: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: by the caller's promise.
    let result = unsafe { next::fcntl(file, command, argument) };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => note_copy(file, result),
        // The flag is nobody else's business. (The kernel keeps it, whatever flags are set.)
        libc::F_GETFL
            if result >= 0 && result & TELLS != 0 && (table::is_known(file) || mounts::is_regular(file)) =>
        {
            return result & !TELLS;
        }
        libc::F_SETFL if result >= 0 && table::has_any() => note_again(file),
        _ => {}
    }
    result
}

/// The flags of an open file have changed, for all its descriptors, of which this one need not be known.
fn note_again(file: c_int) {
    let Some(_within) = Within::enter() else { return };
    // SAFETY: the caller's descriptor is open as long as he uses it.
    if !table::is_known(file) && !mounts::has(unsafe { BorrowedFd::borrow_raw(file) }) {
        return;
    }
    for copy in table::known() {
        // SAFETY: it was open a moment ago; if it is not any more, that is found out.
        let descriptor = unsafe { BorrowedFd::borrow_raw(copy) };
        let changed = table::get(copy).filter(|copy| !copy.has_same_flags(descriptor));
        if let Some(position) = changed.map(|copy| Arc::clone(copy.position())) {
            table::put(copy, Opened::of(descriptor, Some(position)).map(Arc::new));
        }
    }
}

/// The C library closes the descriptor by itself.
///
/// # Safety
/// As for fclose(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fclose(stream: *mut libc::FILE) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        forget(libc::fileno(stream));
        next::fclose(stream)
    }
}

/// # Safety
/// As for fcntl(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn fcntl(file: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { controlled(file, command, argument) }
}

/// # Safety
/// As for fcntl(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(file: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { controlled(file, command, argument) }
}
