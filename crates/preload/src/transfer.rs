//! Which calls read, write, copy, and make durable?

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::BorrowedFd;
use std::slice;

use libc::{iovec, off_t, off64_t, size_t, ssize_t};
use lodefs_direct::descriptor_table;
use lodefs_direct::run::Counter;

use crate::opened::Opened;
use crate::opening::{ask_for_size, by_reopened, refresh, refresh_end};
use crate::within::Within;
use crate::{mounts, next, stats, table};

/// Most bytes that are gathered from, or scattered to, several buffers.
const GATHERED_MAX: usize = 1 << 20;
/// The kernel's limit, too.
const PARTS_MAX: usize = 1024;

/// Does it without the kernel, if that can be; counts it as that, or as what it is otherwise.
fn done(
    file: c_int,
    counter: Counter,
    how: impl FnOnce(&Opened, BorrowedFd<'_>) -> Option<usize>,
) -> Option<ssize_t> {
    if !table::is_known(file) {
        return None;
    }
    next::cancellation_point();
    let Some(_within) = Within::enter_briefly() else {
        stats::count(Counter::Interrupting);
        return None;
    };
    done_by(&*table::get(file)?, file, counter, how)
}

fn done_by(
    opened: &Opened,
    file: c_int,
    counter: Counter,
    how: impl FnOnce(&Opened, BorrowedFd<'_>) -> Option<usize>,
) -> Option<ssize_t> {
    if !opened.is_used_often() {
        stats::count(Counter::LeftAtFirst);
        return None;
    }
    // SAFETY: the caller's descriptor is open as long as he uses it.
    let count = how(opened, unsafe { BorrowedFd::borrow_raw(file) });
    stats::count(if count.is_some() { counter } else { opened.why_left() });
    Some(count?.cast_signed())
}

/// Reads or writes at the position of the open file: without the kernel if that can be, else by it.
fn done_here(
    file: c_int,
    counter: Counter,
    how: impl FnOnce(&Opened, BorrowedFd<'_>) -> Option<usize>,
    by_kernel: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if counter == Counter::Writes && descriptor_table::was_left_here() {
        // Of this thread's descriptors nothing is known. Where one appends, the position will be where the kernel has seen the end.
        refresh_end(file);
        return by_kernel();
    }
    if !table::is_known(file) {
        return by_kernel();
    }
    next::cancellation_point();
    let Some(mut within) = Within::enter_briefly() else {
        stats::count(Counter::Interrupting);
        return by_kernel();
    };
    let Some(opened) = table::get(file) else {
        drop(within);
        return by_kernel();
    };
    if opened.position().is_shared() {
        stats::count(Counter::LeftShared);
    } else if let Some(count) = done_by(&opened, file, counter, how) {
        return count;
    }
    if counter == Counter::Writes && opened.appends() {
        // Where it ends is the offset then.
        let _size = ask_for_size(file);
    }
    let count = by_kernel();
    within.keep_errno();
    opened.position().forget();
    count
}

/// A buffer to be filled; `None` for what the kernel has to refuse.
///
/// # Safety
/// So many bytes are the caller's, who uses them for nothing else meanwhile.
unsafe fn room<'a>(buffer: *mut c_void, size: size_t) -> Option<&'a mut [u8]> {
    let is_sound = !buffer.is_null() && size > 0 && isize::try_from(size).is_ok();
    // SAFETY: by the caller's promise.
    is_sound.then(|| unsafe { slice::from_raw_parts_mut(buffer.cast(), size) })
}

/// Bytes to be written; `None` for what the kernel has to refuse.
///
/// # Safety
/// So many bytes are the caller's, and nobody changes them meanwhile.
unsafe fn bytes<'a>(buffer: *const c_void, size: size_t) -> Option<&'a [u8]> {
    let is_sound = !buffer.is_null() && size > 0 && isize::try_from(size).is_ok();
    // SAFETY: by the caller's promise.
    is_sound.then(|| unsafe { slice::from_raw_parts(buffer.cast(), size) })
}

/// # Safety
/// As for read(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn read(file: c_int, buffer: *mut c_void, size: size_t) -> ssize_t {
    done_here(
        file,
        Counter::Reads,
        // SAFETY: by the caller's promise.
        |opened, file| opened.read(file, unsafe { room(buffer, size)? }),
        // SAFETY: as above.
        || unsafe { next::read(file, buffer, size) },
    )
}

/// # Safety
/// As for write(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn write(file: c_int, buffer: *const c_void, size: size_t) -> ssize_t {
    done_here(
        file,
        Counter::Writes,
        // SAFETY: by the caller's promise.
        |opened, file| opened.write(file, unsafe { bytes(buffer, size)? }),
        // SAFETY: as above.
        || unsafe { next::write(file, buffer, size) },
    )
}

/// # Safety
/// As for pread(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn pread(
    file: c_int,
    buffer: *mut c_void,
    size: size_t,
    offset: off_t,
) -> ssize_t {
    let read = done(file, Counter::Reads, |opened, file| {
        // SAFETY: by the caller's promise.
        opened.read_at(file, unsafe { room(buffer, size)? }, u64::try_from(offset).ok()?)
    });
    // SAFETY: as above.
    read.unwrap_or_else(|| unsafe { next::pread64(file, buffer, size, offset) })
}

/// # Safety
/// As for pwrite(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn pwrite(
    file: c_int,
    buffer: *const c_void,
    size: size_t,
    offset: off_t,
) -> ssize_t {
    let written = done(file, Counter::Writes, |opened, file| {
        // SAFETY: by the caller's promise.
        opened.write_at(file, unsafe { bytes(buffer, size)? }, u64::try_from(offset).ok()?)
    });
    // SAFETY: as above.
    written.unwrap_or_else(|| unsafe { next::pwrite64(file, buffer, size, offset) })
}

/// The buffers of a call, if they are not too many, with their bytes in all.
///
/// # Safety
/// So many are the caller's.
unsafe fn buffers<'a>(parts: *const iovec, count: c_int) -> Option<(&'a [iovec], usize)> {
    let count =
        usize::try_from(count).ok().filter(|count| (1..=PARTS_MAX).contains(count) && !parts.is_null())?;
    // SAFETY: by the caller's promise.
    let parts = unsafe { slice::from_raw_parts(parts, count) };
    let all = parts.iter().try_fold(0_usize, |all, part| all.checked_add(part.iov_len))?;
    (1..=GATHERED_MAX).contains(&all).then_some((parts, all))
}

/// Reads all at once, because that is what others may rely on, and puts it into the buffers.
///
/// # Safety
/// The buffers are the caller's, who uses them for nothing else meanwhile.
unsafe fn scattered(
    parts: *const iovec,
    count: c_int,
    read: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<usize> {
    // SAFETY: by the caller's promise.
    let (parts, size) = unsafe { buffers(parts, count)? };
    let mut all = vec![0; size];
    let read = read(&mut all)?;
    let mut rest = &all[..read];
    for part in parts {
        let (now, later) = rest.split_at(part.iov_len.min(rest.len()));
        // SAFETY: by the caller's promise there is room for so many bytes.
        unsafe { part.iov_base.cast::<u8>().copy_from(now.as_ptr(), now.len()) };
        rest = later;
    }
    Some(read)
}

/// Writes all at once.
///
/// # Safety
/// The buffers are the caller's, and nobody changes them meanwhile.
unsafe fn gathered(
    parts: *const iovec,
    count: c_int,
    write: impl FnOnce(&[u8]) -> Option<usize>,
) -> Option<usize> {
    // SAFETY: by the caller's promise.
    let (parts, size) = unsafe { buffers(parts, count)? };
    let mut all = Vec::with_capacity(size);
    for part in parts.iter().filter(|part| part.iov_len > 0) {
        // SAFETY: by the caller's promise.
        all.extend_from_slice(unsafe { bytes(part.iov_base, part.iov_len)? });
    }
    write(&all)
}

/// # Safety
/// As for readv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn readv(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    done_here(
        file,
        Counter::Reads,
        // SAFETY: by the caller's promise.
        |opened, file| unsafe { scattered(parts, count, |into| opened.read(file, into)) },
        // SAFETY: as above.
        || unsafe { next::readv(file, parts, count) },
    )
}

/// # Safety
/// As for writev(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    done_here(
        file,
        Counter::Writes,
        // SAFETY: by the caller's promise.
        |opened, file| unsafe { gathered(parts, count, |bytes| opened.write(file, bytes)) },
        // SAFETY: as above.
        || unsafe { next::writev(file, parts, count) },
    )
}

/// # Safety
/// As for preadv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn preadv(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    let read = done(file, Counter::Reads, |opened, file| {
        let offset = u64::try_from(offset).ok()?;
        // SAFETY: by the caller's promise.
        unsafe { scattered(parts, count, |into| opened.read_at(file, into, offset)) }
    });
    // SAFETY: as above.
    read.unwrap_or_else(|| unsafe { next::preadv64(file, parts, count, offset) })
}

/// # Safety
/// As for pwritev(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn pwritev(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    let written = done(file, Counter::Writes, |opened, file| {
        let offset = u64::try_from(offset).ok()?;
        // SAFETY: by the caller's promise.
        unsafe { gathered(parts, count, |bytes| opened.write_at(file, bytes, offset)) }
    });
    // SAFETY: as above.
    written.unwrap_or_else(|| unsafe { next::pwritev64(file, parts, count, offset) })
}

/// # Safety
/// As for preadv2(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn preadv2(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: by the caller's promise.
    unsafe {
        match (offset, flags) {
            (-1, 0) => readv(file, parts, count),
            (0.., 0) => preadv(file, parts, count, offset),
            _ => next::preadv64v2(file, parts, count, offset, flags),
        }
    }
}

/// What of pwritev2(2) changes where bytes go. (Of the other flags none has an effect: each write is durable, and nobody waits for a device.)
const APPENDS: c_int = libc::RWF_APPEND;
const NO_EFFECT: c_int = libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC;
/// `RWF_NOAPPEND` of linux/fs.h.
const KEEPS_OFFSET: c_int = 0x20;

/// # Safety
/// As for pwritev2(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn pwritev2(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: by the caller's promise.
    unsafe {
        match (offset, flags & !NO_EFFECT) {
            (-1, 0) => writev(file, parts, count),
            (0.., 0) => pwritev(file, parts, count, offset),
            (-1.., APPENDS) if is_of_volume(file) => appended(file, parts, count, offset, flags),
            (0.., KEEPS_OFFSET) if is_of_volume(file) => placed(file, parts, count, offset, flags),
            _ => next::pwritev64v2(file, parts, count, offset, flags),
        }
    }
}

/// Whether a descriptor is a file of a volume, however it was opened.
fn is_of_volume(file: c_int) -> bool {
    if !mounts::are_there() || file < 0 {
        return false;
    }
    // SAFETY: the caller's descriptor is open as long as he uses it.
    table::is_known(file) || mounts::has(unsafe { BorrowedFd::borrow_raw(file) })
}

/// Appends, though the file was not opened for that. The kernel takes the end from what it has seen last, which may be long ago where programs
/// append by themselves. The server finds the end if the file was opened to append: so it is opened once more.
///
/// # Safety
/// As for pwritev2(2).
unsafe fn appended(file: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
    let written = done(file, Counter::Writes, |opened, file| {
        let append = |bytes: &[u8]| match offset {
            -1 => opened.append(file, bytes),
            _ => opened.append_aside(file, bytes),
        };
        // SAFETY: by the caller's promise.
        unsafe { gathered(parts, count, append) }
    });
    if let Some(written) = written {
        return written;
    }
    // SAFETY: as above.
    let by_other = |other| unsafe {
        let written = next::pwritev64v2(other, parts, count, -1, flags & !APPENDS);
        (written, next::lseek64(other, 0, libc::SEEK_CUR))
    };
    let Some((written, end)) = by_reopened(file, libc::O_APPEND, by_other) else {
        refresh_end(file);
        // SAFETY: as above.
        return unsafe { next::pwritev64v2(file, parts, count, offset, flags) };
    };
    if offset == -1 && written > 0 {
        // SAFETY: moves the position of the caller's descriptor, as the call does.
        unsafe { lseek(file, end, libc::SEEK_SET) };
    }
    written
}

/// Writes at an offset, though the file was opened to append: then the server takes each write for an append.
///
/// # Safety
/// As for pwritev2(2).
unsafe fn placed(file: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
    // SAFETY: by the caller's promise.
    let by_other = |other| unsafe { next::pwritev64v2(other, parts, count, offset, flags & !KEEPS_OFFSET) };
    let written = by_reopened(file, 0, by_other);
    // SAFETY: as above.
    written.unwrap_or_else(|| unsafe { next::pwritev64v2(file, parts, count, offset, flags) })
}

/// The same functions by the names that programs with large files use.
macro_rules! also {
    ($($name:ident = $same:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            /// # Safety
            /// As for the function of which it is another name.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> ssize_t {
                // SAFETY: by the caller's promise.
                unsafe { $same($($argument),*) }
            }
        )*
    };
}

also! {
    pread64 = pread(file: c_int, buffer: *mut c_void, size: size_t, offset: off_t);
    pwrite64 = pwrite(file: c_int, buffer: *const c_void, size: size_t, offset: off_t);
    preadv64 = preadv(file: c_int, parts: *const iovec, count: c_int, offset: off_t);
    pwritev64 = pwritev(file: c_int, parts: *const iovec, count: c_int, offset: off_t);
    preadv64v2 = preadv2(file: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int);
    sendfile = sendfile64(to: c_int, from: c_int, offset: *mut off64_t, size: size_t);
    pwritev64v2 = pwritev2(file: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int);
}

/// Where a file ends, the server is asked: a kernel that is told, just then, that others change the file goes by what it has seen before.
///
/// # Safety
/// As for lseek(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn lseek(file: c_int, offset: off_t, whence: c_int) -> off_t {
    // SAFETY: by the caller's promise.
    let by_kernel = |offset, whence| unsafe { next::lseek64(file, offset, whence) };
    if !table::is_known(file) {
        return by_kernel(offset, whence);
    }
    if whence != libc::SEEK_END {
        let moved = by_kernel(offset, whence);
        note_position(file, moved);
        return moved;
    }
    let Some(mut within) = Within::enter() else { return by_kernel(offset, whence) };
    let end = ask_for_size(file).and_then(|size| off_t::try_from(size).ok()?.checked_add(offset));
    let moved = match end {
        Some(end) => by_kernel(end, libc::SEEK_SET),
        None => by_kernel(offset, whence),
    };
    within.keep_errno();
    note_position(file, moved);
    moved
}

/// The kernel has said where an open file stands.
fn note_position(file: c_int, position: off_t) {
    if let (Some(opened), Ok(position)) = (table::get(file), u64::try_from(position)) {
        opened.position().note(position);
    }
}

/// # Safety
/// As for lseek(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn lseek64(file: c_int, offset: off_t, whence: c_int) -> off_t {
    // SAFETY: by the caller's promise.
    unsafe { lseek(file, offset, whence) }
}

/// Whether all that is in a file is durable already.
fn is_durable(file: c_int) -> bool {
    if !table::is_known(file) {
        return false;
    }
    next::cancellation_point();
    let is_durable =
        Within::enter().is_some_and(|_within| table::get(file).is_some_and(|opened| opened.is_durable()));
    if is_durable {
        stats::count(Counter::Syncs);
    }
    is_durable
}

#[unsafe(no_mangle)]
extern "C-unwind" fn fsync(file: c_int) -> c_int {
    // SAFETY: as for the caller's.
    if is_durable(file) { 0 } else { unsafe { next::fsync(file) } }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: as for the caller's.
    if is_durable(file) { 0 } else { unsafe { next::fdatasync(file) } }
}

/// # Safety
/// As for `copy_file_range(2)`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn copy_file_range(
    from: c_int,
    from_offset: *mut off64_t,
    to: c_int,
    to_offset: *mut off64_t,
    size: size_t,
    flags: c_uint,
) -> ssize_t {
    refresh(from);
    // SAFETY: by the caller's promise.
    unsafe { next::copy_file_range(from, from_offset, to, to_offset, size, flags) }
}

/// # Safety
/// As for sendfile(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendfile64(
    to: c_int,
    from: c_int,
    offset: *mut off64_t,
    size: size_t,
) -> ssize_t {
    refresh(from);
    // SAFETY: by the caller's promise.
    unsafe { next::sendfile64(to, from, offset, size) }
}

/// # Safety
/// As for splice(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn splice(
    from: c_int,
    from_offset: *mut off64_t,
    to: c_int,
    to_offset: *mut off64_t,
    size: size_t,
    flags: c_uint,
) -> ssize_t {
    refresh(from);
    // SAFETY: by the caller's promise.
    unsafe { next::splice(from, from_offset, to, to_offset, size, flags) }
}

/// What programs call that were compiled with checks of their buffers.
///
/// # Safety
/// As for read(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __read_chk(
    file: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
) -> ssize_t {
    // SAFETY: by the caller's promise. The C library ends a program that asks for more than it has room for.
    unsafe {
        if size <= room { read(file, buffer, size) } else { next::__read_chk(file, buffer, size, room) }
    }
}

/// # Safety
/// As for pread(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __pread_chk(
    file: c_int,
    buffer: *mut c_void,
    size: size_t,
    offset: off_t,
    room: size_t,
) -> ssize_t {
    // SAFETY: as above.
    unsafe {
        if size <= room {
            pread(file, buffer, size, offset)
        } else {
            next::__pread64_chk(file, buffer, size, offset, room)
        }
    }
}

/// # Safety
/// As for pread(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __pread64_chk(
    file: c_int,
    buffer: *mut c_void,
    size: size_t,
    offset: off_t,
    room: size_t,
) -> ssize_t {
    // SAFETY: as above.
    unsafe { __pread_chk(file, buffer, size, offset, room) }
}
