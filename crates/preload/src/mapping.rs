//! Which calls map, move and unmap files?
//!
//! The kernel is asked first, and does what it can: everything but shared mappings of direct files, which are the library's.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use libc::{MAP_FAILED, off_t, size_t};
use lodefs_direct::run::Counter;
use lodefs_direct::{Place, descriptor_table};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

use crate::addresses::{self, Piece};
use crate::changing;
use crate::opening::refresh;
use crate::outline;
use crate::showing::{
    PAGE_SIZE, checked, forbid, last_errno, pages, pointer, replaced, reserved, show, show_again,
    show_nothing, unmap,
};
use crate::within::{Within, set_errno};
use crate::{mounts, next, sharing, stats};

/// Where it is mapped is for the caller to say.
const PLACED: c_int = libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE;
/// What is done when it is mapped.
const AFTERWARDS: c_int = libc::MAP_POPULATE | libc::MAP_LOCKED;

/// A call of mmap(2).
#[derive(Clone, Copy)]
struct Call {
    address: usize,
    size: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
}

/// Does something about addresses that show a file, with a lock of `changing`, and says what came of it. `by_kernel` if they do not. A signal
/// handler that has interrupted this library is refused: it might wait for itself.
pub(crate) fn done<T, L>(
    range: &Range<usize>,
    failed: T,
    by_kernel: impl FnOnce() -> T,
    lock: impl FnOnce() -> L,
    how: impl FnOnce() -> Result<T, Errno>,
) -> T {
    if !outline::has_some_of(range) {
        return by_kernel();
    }
    let Some(mut within) = Within::enter() else {
        set_errno(libc::ENOMEM);
        return failed;
    };
    let _locked = lock();
    returned(&mut within, how(), failed)
}

/// What a call returns, when the library is left.
fn returned<T>(within: &mut Within, result: Result<T, Errno>, failed: T) -> T {
    result.unwrap_or_else(|errno| {
        set_errno(errno.raw_os_error());
        within.keep_errno();
        failed
    })
}

impl Call {
    /// Whether the kernel may not be able to do it.
    fn is_shared(&self) -> bool {
        let kind = self.flags & libc::MAP_TYPE;
        let is_shared = kind == libc::MAP_SHARED || kind == libc::MAP_SHARED_VALIDATE;
        is_shared && self.flags & libc::MAP_ANONYMOUS == 0 && self.file >= 0 && mounts::are_there()
    }

    /// Whether the kernel shows what it knows of a file.
    fn is_private(&self) -> bool {
        self.flags & libc::MAP_TYPE == libc::MAP_PRIVATE && self.flags & libc::MAP_ANONYMOUS == 0
    }

    fn is_fixed(&self) -> bool {
        self.flags & PLACED == libc::MAP_FIXED
    }

    /// What it replaces.
    fn over(&self) -> Option<Range<usize>> {
        pages(self.address, self.size).ok().filter(|_| self.is_fixed())
    }

    /// # Safety
    /// As for mmap(2).
    unsafe fn kernel(&self) -> Result<usize, Errno> {
        let Self { address, size, protection, flags, file, offset } = *self;
        // SAFETY: by the caller's promise.
        match unsafe { next::mmap64(pointer(address), size, protection, flags, file, offset) } {
            MAP_FAILED => Err(last_errno()),
            start => Ok(start.expose_provenance()),
        }
    }

    /// The same over what the library has mapped. First elsewhere, so that what is refused changes nothing.
    ///
    /// # Safety
    /// As for mmap(2).
    unsafe fn kernel_over(&self, over: &Range<usize>) -> Result<usize, Errno> {
        let elsewhere = Self { address: 0, flags: self.flags & !PLACED & !AFTERWARDS, ..*self };
        // SAFETY: nothing that is there is replaced.
        let start = unsafe { elsewhere.kernel()? };
        // SAFETY: it is new; and by the caller's promise.
        unsafe { move_over(start, over)? };
        self.afterwards(over);
        Ok(over.start)
    }

    /// What the kernel would have done at once.
    fn afterwards(&self, range: &Range<usize>) {
        let advice = match self.protection & libc::PROT_WRITE {
            0 => Advice::LinuxPopulateRead,
            _ => Advice::LinuxPopulateWrite,
        };
        if self.flags & AFTERWARDS != 0 {
            // What cannot be there is not, and nobody is told.
            // SAFETY: it changes no contents.
            let _ = unsafe { madvise(pointer(range.start), range.len(), advice) };
        }
        if self.flags & libc::MAP_LOCKED != 0 {
            // SAFETY: as above.
            unsafe { libc::mlock(pointer(range.start), range.len()) };
        }
    }

    /// Maps a file of a volume. Who has done it is to be counted.
    ///
    /// # Safety
    /// As for mmap(2).
    unsafe fn carry_out(mut self) -> (Counter, Result<usize, Errno>) {
        if self.flags & libc::MAP_SYNC != 0 {
            // So that the kernel does not ignore it.
            self.flags |= libc::MAP_SHARED_VALIDATE;
        }
        let asked = match self.over() {
            // SAFETY: by the caller's promise.
            None => unsafe { self.kernel() },
            // SAFETY: as above.
            Some(over) => unsafe { self.kernel_over(&over) },
        };
        match asked {
            Err(Errno::NODEV) => {}
            Err(Errno::OPNOTSUPP) if self.flags & libc::MAP_SYNC != 0 => {}
            Err(errno) => return (Counter::MappedByNobody, Err(errno)),
            Ok(start) => return (Counter::MappedByKernel, Ok(start)),
        }
        // SAFETY: by the caller's promise.
        match unsafe { self.by_library(asked) } {
            Ok(range) => {
                self.afterwards(&range);
                (Counter::Mapped, Ok(range.start))
            }
            Err(errno) => (Counter::MappedByNobody, Err(errno)),
        }
    }

    /// The same if the kernel has refused it.
    ///
    /// # Safety
    /// As for mmap(2).
    unsafe fn by_library(&self, refused: Result<usize, Errno>) -> Result<Range<usize>, Errno> {
        // SAFETY: the caller's descriptor is open as long as he uses it.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        let offset = u64::try_from(self.offset).map_err(|_| Errno::INVAL)?;
        let mut piece = Piece::of(file, offset, self.flags & libc::MAP_SYNC != 0)?;
        piece.is_locked |= self.flags & libc::MAP_LOCKED != 0;
        // A child is to find what is mapped as it is.
        if !sharing::watch() {
            return Err(Errno::NOMEM);
        }
        let writable = self.protection & libc::PROT_WRITE != 0;
        if writable && !piece.may_write {
            return Err(Errno::ACCESS);
        }
        if self.protection & libc::PROT_EXEC != 0 {
            refused?;
        }
        // SAFETY: by the caller's promise.
        let result = unsafe {
            if self.protection == libc::PROT_NONE {
                self.nothing().inspect(|range| addresses::put(range, piece))
            } else {
                self.placed(|place| show(&file, piece.clone(), self.size, writable, place))
            }
        };
        match result {
            // It is not what the kernel has refused it for.
            Err(Errno::NOTTY | Errno::PERM | Errno::OPNOTSUPP) => refused.map(|start| start..start),
            result => result,
        }
    }

    /// Addresses that nobody may access.
    ///
    /// # Safety
    /// As for mmap(2).
    unsafe fn nothing(&self) -> Result<Range<usize>, Errno> {
        // SAFETY: by the caller's promise.
        unsafe {
            if let Some(over) = self.over() {
                forbid(&over, &addresses::take(&over))?;
                return Ok(over);
            }
            let flags = self.flags & (PLACED | libc::MAP_32BIT);
            pages(reserved(self.address, self.size, flags)?, self.size)
        }
    }

    /// Shows a file where the caller wants it.
    ///
    /// # Safety
    /// As for mmap(2).
    unsafe fn placed(
        &self,
        show: impl Fn(Place) -> Result<Range<usize>, Errno>,
    ) -> Result<Range<usize>, Errno> {
        if self.flags & libc::MAP_FIXED_NOREPLACE != 0 {
            return show(Place::At(self.address));
        }
        if self.is_fixed() {
            return show(Place::Over(self.address));
        }
        if self.flags & libc::MAP_32BIT != 0 {
            // SAFETY: the kernel chooses the address.
            let reserved = unsafe { self.nothing()? };
            return show(Place::Over(reserved.start)).inspect_err(|_| {
                // SAFETY: nobody knows of it.
                unsafe { next::munmap(pointer(reserved.start), reserved.len()) };
            });
        }
        // Near the end of the address space it is as good as none.
        match self.address.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0) {
            0 => show(Place::Anywhere),
            // It is a hint.
            wanted => show(Place::At(wanted)).or_else(|_| show(Place::Anywhere)),
        }
    }
}

/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mmap(
    address: *mut c_void,
    size: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: by the caller's promise.
    let by_kernel = || unsafe { next::mmap64(address, size, protection, flags, file, offset) };
    let call = Call { address: address.expose_provenance(), size, protection, flags, file, offset };
    if call.is_shared()
        && descriptor_table::is_used_here()
        && let Some(mut within) = Within::enter()
    {
        // SAFETY: the caller's descriptor is open as long as he uses it.
        if mounts::has(unsafe { BorrowedFd::borrow_raw(file) }) {
            let alone = changing::alone();
            // SAFETY: by the caller's promise.
            let (counter, result) = unsafe { call.carry_out() };
            drop(alone);
            stats::count(counter);
            return returned(&mut within, result.map(pointer), MAP_FAILED);
        }
    }
    if call.is_private() {
        refresh(file);
    }
    match call.over() {
        // SAFETY: as above.
        Some(over) => done(&over, MAP_FAILED, by_kernel, changing::alone, || unsafe {
            call.kernel_over(&over).map(pointer)
        }),
        None => by_kernel(),
    }
}

/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mmap64(
    address: *mut c_void,
    size: size_t,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: by the caller's promise.
    unsafe { mmap(address, size, protection, flags, file, offset) }
}

/// # Safety
/// As for munmap(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn munmap(address: *mut c_void, size: size_t) -> c_int {
    // SAFETY: by the caller's promise.
    let by_kernel = || unsafe { next::munmap(address, size) };
    let Ok(range) = pages(address.expose_provenance(), size) else { return by_kernel() };
    // SAFETY: as above.
    done(&range, -1, by_kernel, changing::alone, || unsafe { unmap_all(&range) }.map(|()| 0))
}

/// # Safety
/// Nobody uses these addresses any more.
unsafe fn unmap_all(range: &Range<usize>) -> Result<(), Errno> {
    if range.is_empty() {
        return Ok(());
    }
    let taken = addresses::take(range);
    let gaps = addresses::gaps(range, &taken);
    // SAFETY: by the caller's promise.
    unsafe { unmap(taken)? };
    // SAFETY: as above.
    gaps.iter().try_for_each(|gap| checked(unsafe { next::munmap(pointer(gap.start), gap.len()) }))
}

/// Moves what the kernel has mapped elsewhere over these addresses; if that fails, it is gone.
///
/// # Safety
/// It is the caller's, and nobody relies on what is there.
unsafe fn move_over(start: usize, over: &Range<usize>) -> Result<(), Errno> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let taken = addresses::take(over);
    // SAFETY: by the caller's promise.
    let map = || match unsafe {
        next::mremap(pointer(start), over.len(), over.len(), flags, pointer(over.start))
    } {
        MAP_FAILED => Err(last_errno()),
        start => Ok(start.expose_provenance()),
    };
    // SAFETY: as above.
    let moved = unsafe { replaced(over, &taken, map) };
    if moved.is_err() {
        // SAFETY: nobody knows of it.
        unsafe { next::munmap(pointer(start), over.len()) };
    }
    moved.map(drop)
}

/// # Safety
/// As for mremap(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mremap(
    old: *mut c_void,
    old_size: size_t,
    size: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: by the caller's promise.
    let by_kernel = || unsafe { next::mremap(old, old_size, size, flags, new) };
    // Of a range without bytes, that which begins there is meant.
    let Ok(from) = pages(old.expose_provenance(), old_size.max(1)) else { return by_kernel() };
    let is_fixed = flags & libc::MREMAP_FIXED != 0;
    let over = is_fixed.then(|| pages(new.expose_provenance(), size));
    if outline::has_some_of(&from) {
        return done(&from, MAP_FAILED, by_kernel, changing::alone, || {
            let from = if old_size == 0 { from.start..from.start } else { from.clone() };
            // SAFETY: by the caller's promise.
            unsafe { moved(&from, size, flags, over.transpose()?.as_ref()).map(pointer) }
        });
    }
    match over {
        // What moves is the kernel's, which says what it thinks of it before anything is lost.
        Some(Ok(over)) => done(&over, MAP_FAILED, by_kernel, changing::alone, || {
            if over.start < from.end && from.start < over.end {
                return Err(Errno::INVAL);
            }
            // SAFETY: by the caller's promise.
            unsafe {
                let elsewhere = reserved(0, size, 0)?;
                match next::mremap(old, old_size, size, flags, pointer(elsewhere)) {
                    MAP_FAILED => {
                        let errno = last_errno();
                        next::munmap(pointer(elsewhere), size);
                        Err(errno)
                    }
                    start => move_over(start.expose_provenance(), &over).map(|()| pointer(over.start)),
                }
            }
        }),
        Some(Err(_)) | None => by_kernel(),
    }
}

/// Moves, lengthens or shortens what shows a file.
///
/// # Safety
/// As for mremap(2).
unsafe fn moved(
    from: &Range<usize>,
    size: usize,
    flags: c_int,
    over: Option<&Range<usize>>,
) -> Result<usize, Errno> {
    let may_move = flags & libc::MREMAP_MAYMOVE != 0;
    let is_known = flags & !(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) == 0;
    let overlaps = |over: &Range<usize>| over.start < from.end && from.start < over.end;
    if !is_known || size == 0 || over.is_some_and(|over| !may_move || overlaps(over)) {
        return Err(Errno::INVAL);
    }
    let size = pages(0, size)?.end;
    let mut from = from.clone();
    if size < from.len() {
        is_mapped(from.start)?;
        // SAFETY: by the caller's promise.
        unsafe { unmap_all(&(from.start + size..from.end))? };
        from.end = from.start + size;
    }
    if over.is_none() && size == from.len() {
        is_mapped(from.start)?;
        return Ok(from.start);
    }
    let whole = whole(&from)?;
    // SAFETY: by the caller's promise.
    let show = |piece: &Piece, size, place| unsafe {
        match piece.is_writable() {
            Some(writable) => show_again(piece, size, writable, place),
            None => show_nothing(piece.clone(), size, place),
        }
    };
    // SAFETY: as above.
    unsafe {
        if let (None, false) = (over, from.is_empty()) {
            let behind = Piece { offset: whole.offset + from.len() as u64, ..whole.clone() };
            let more = size - from.len();
            if show(&behind, more, Place::At(from.end)).is_ok() {
                return Ok(from.start);
            }
        }
        if !may_move {
            return Err(Errno::NOMEM);
        }
        let place = over.map_or(Place::Anywhere, |over| Place::Over(over.start));
        let to = show(&whole, size, place)?;
        unmap_all(&from)?;
        Ok(to.start)
    }
}

/// Whether anything is mapped in a page; else EFAULT.
fn is_mapped(page: usize) -> Result<(), Errno> {
    if !addresses::found(&(page..page + PAGE_SIZE)).is_empty() {
        return Ok(());
    }
    // SAFETY: it asks for nothing to be changed.
    match unsafe { next::mremap(pointer(page), PAGE_SIZE, PAGE_SIZE, 0, pointer(0)) } {
        MAP_FAILED => Err(last_errno()),
        _ => Ok(()),
    }
}

/// What these addresses show, if that is one part of one file.
fn whole(range: &Range<usize>) -> Result<Piece, Errno> {
    let found = addresses::found(&(range.start..range.end.max(range.start + 1)));
    let continues = |pair: &[(Range<usize>, Piece)]| {
        let ((before, piece), (after, next)) = (&pair[0], &pair[1]);
        before.end == after.start && piece.is_continued_by(before.len(), next)
    };
    let (first, last) = (found.first().ok_or(Errno::FAULT)?, found.last().ok_or(Errno::FAULT)?);
    let is_whole = first.0.start == range.start && last.0.end >= range.end && found.windows(2).all(continues);
    if is_whole { Ok(first.1.clone()) } else { Err(Errno::FAULT) }
}
