//! How does a part of a file that the kernel does not map come to some addresses, and go?

use std::ffi::c_int;
use std::iter;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

use libc::MAP_FAILED;
use lodefs_direct::{MapOptions, Origin, Place, map_at, replace};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::addresses::{self, Piece, Shown};
use crate::{domain, locking, next, table};

pub(crate) const PAGE_SIZE: usize = 4096;

/// Whole pages from an address on, at least one.
pub(crate) fn pages(address: usize, size: usize) -> Result<Range<usize>, Errno> {
    let size = size.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::NOMEM)?;
    if size == 0 {
        return Err(Errno::INVAL);
    }
    let end = address.checked_add(size).ok_or(Errno::NOMEM)?;
    if address.is_multiple_of(PAGE_SIZE) { Ok(address..end) } else { Err(Errno::INVAL) }
}

/// The errno of a call of the C library that has just failed.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// What a call has returned that says 0, or that it has failed.
pub(crate) fn checked(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Shows `size` bytes of a file as `piece` says, which shows nothing yet. Returns where they are.
///
/// # Safety
/// Nobody relies on what is there already, if the place is over that.
pub(crate) unsafe fn show(
    file: &impl AsFd,
    piece: Piece,
    size: usize,
    writable: bool,
    place: Place,
) -> Result<Range<usize>, Errno> {
    let lost = match place {
        Place::Over(address) => addresses::take(&pages(address, size)?),
        Place::Anywhere | Place::At(_) => Vec::new(),
    };
    let options = MapOptions { offset: piece.offset, size, writable, sync: piece.sync };
    // SAFETY: by the caller's promise.
    match unsafe { map_at(file, &options, place, domain::forced()) } {
        Ok(mapping) => {
            let range = pages(mapping.as_ptr().addr(), mapping.size())?;
            let shown = Shown::File { mapping: Arc::new(mapping), writable };
            addresses::put(&range, Piece { shown, ..piece });
            settle(&lost);
            Ok(range)
        }
        Err(errno) => {
            // But for those that it has come to replace.
            lost.into_iter()
                .filter(|(range, piece)| piece.is_there(range))
                .for_each(|(range, piece)| addresses::put(&range, piece));
            Err(errno)
        }
    }
}

/// What was stored by pieces that are no more is made durable: whoever does so for these addresses later does it for what is there then.
fn settle(lost: &[(Range<usize>, Piece)]) {
    for (range, piece) in lost {
        if let Shown::File { mapping, writable: true } = &piece.shown {
            // If the medium has failed, whoever uses it will be told.
            let _settled = mapping.sync_range(position(mapping, range));
        }
    }
}

/// Shows what a piece shows once more, elsewhere, or in another way: more or less of it, writable or not.
///
/// # Safety
/// As for `show`.
pub(crate) unsafe fn show_again(
    piece: &Piece,
    size: usize,
    writable: bool,
    place: Place,
) -> Result<Range<usize>, Errno> {
    if writable && !piece.may_write {
        return Err(Errno::ACCESS);
    }
    let piece = Piece { shown: Shown::Nothing, ..piece.clone() };
    if let Some(own) = descriptor_of(&piece, writable) {
        // SAFETY: by the caller's promise.
        let shown = unsafe { show(&own, piece.clone(), size, writable, place) };
        // If another thread has made another file of it meanwhile, it was perhaps shown.
        if piece.is_open_as(own, writable) {
            return shown;
        }
        if let Ok(range) = shown {
            // SAFETY: nobody knows of it.
            unsafe { unmap(addresses::take(&range))? };
        }
        return Err(Errno::NOMEM);
    }
    let file = piece.file.with(writable).open()?;
    // SAFETY: by the caller's promise.
    unsafe { show(&file, piece, size, writable, place) }
}

/// A descriptor of the program's by which the file of a piece is open for that: the one by which it was mapped, or any other. To open the
/// file once more is to lose the locks that the program has on it (POSIX), when that one is closed.
pub(crate) fn descriptor_of(piece: &Piece, writable: bool) -> Option<BorrowedFd<'static>> {
    iter::once(piece.descriptor)
        .chain(table::known())
        // SAFETY: it is looked at before it is used.
        .map(|number| unsafe { BorrowedFd::borrow_raw(number) })
        .find(|descriptor| piece.is_open_as(*descriptor, writable))
}

/// Has a piece, that nobody may access, at a place.
///
/// # Safety
/// As for `show`.
pub(crate) unsafe fn show_nothing(piece: Piece, size: usize, place: Place) -> Result<Range<usize>, Errno> {
    // SAFETY: by the caller's promise.
    let start = unsafe {
        match place {
            Place::Over(address) => {
                let range = pages(address, size)?;
                forbid(&range, &addresses::take(&range))?
            }
            Place::At(address) => reserved(address, size, libc::MAP_FIXED_NOREPLACE)?,
            Place::Anywhere => reserved(0, size, 0)?,
        }
    };
    let range = pages(start, size)?;
    addresses::put(&range, piece);
    Ok(range)
}

/// New addresses, which nobody may access. `flags` say where.
///
/// # Safety
/// As for mmap(2).
pub(crate) unsafe fn reserved(address: usize, size: usize, flags: c_int) -> Result<usize, Errno> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: by the caller's promise.
    match unsafe { next::mmap64(pointer(address), size, libc::PROT_NONE, flags, -1, 0) } {
        MAP_FAILED => Err(last_errno()),
        start => Ok(start.expose_provenance()),
    }
}

/// In a child: what is not to be inherited is not there.
pub(crate) fn in_child() {
    for (range, piece) in addresses::found(&(0..usize::MAX)) {
        if !piece.is_inherited {
            // What cannot be unmapped stays, which harms nobody but who relies on a signal.
            // SAFETY: by what the program has said of it, the child does not use it.
            let _unmapped = unsafe { unmap(addresses::take(&range)) };
        }
    }
    locking::in_child();
}

/// Unmaps pieces that have been taken.
///
/// # Safety
/// Nobody uses these addresses any more.
pub(crate) unsafe fn unmap(taken: Vec<(Range<usize>, Piece)>) -> Result<(), Errno> {
    let mut result = Ok(());
    for (range, piece) in taken {
        let unmapped = match &piece.shown {
            // SAFETY: by the caller's promise.
            Shown::File { mapping, .. } => unsafe { mapping.unmap(position(mapping, &range)) }
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)),
            // SAFETY: as above.
            Shown::Nothing => checked(unsafe { next::munmap(pointer(range.start), range.len()) }),
        };
        if let Err(errno) = unmapped {
            addresses::put(&range, piece);
            result = Err(errno);
        }
    }
    result
}

/// Has the kernel map something over pieces that have been taken, all of which lie in `range`.
///
/// # Safety
/// Nobody relies on what is there, and `how` replaces all of it, if it does not fail.
pub(crate) unsafe fn replaced(
    range: &Range<usize>,
    taken: &[(Range<usize>, Piece)],
    how: impl FnOnce() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    for (range, piece) in taken {
        if let Shown::File { mapping, .. } = &piece.shown {
            // SAFETY: by the caller's promise; the addresses are the piece's, so they lie within.
            let _lies_within = unsafe { mapping.leave(position(mapping, range)) };
        }
    }
    let how = || {
        how().inspect_err(|errno| {
            for (lost, _) in taken {
                // SAFETY: by the caller's promise.
                if unsafe { next::munmap(pointer(lost.start), lost.len()) } != 0 {
                    // Nobody could take back what is still mapped there.
                    eprintln!(
                        "lodefs: a part of a direct mapping can be neither replaced nor unmapped: {errno}"
                    );
                    std::process::abort();
                }
            }
        })
    };
    // SAFETY: as above; if it fails, nothing is left.
    unsafe { replace(range, how) }
}

/// Addresses that nobody may access, instead of pieces that have been taken.
///
/// # Safety
/// Nobody relies on what is there.
pub(crate) unsafe fn forbid(range: &Range<usize>, taken: &[(Range<usize>, Piece)]) -> Result<usize, Errno> {
    // SAFETY: by the caller's promise.
    let map = || unsafe { reserved(range.start, range.len(), libc::MAP_FIXED) };
    // SAFETY: as above.
    let forbidden = unsafe { replaced(range, taken, map) };
    settle(taken);
    forbidden
}

/// Where addresses lie in their mapping.
pub(crate) fn position(mapping: &lodefs_direct::Mapping, range: &Range<usize>) -> Range<usize> {
    let base = mapping.as_ptr().addr();
    range.start - base..range.end - base
}

pub(crate) fn pointer(address: usize) -> *mut std::ffi::c_void {
    ptr::with_exposed_provenance_mut(address)
}

impl Piece {
    /// Whether anything of it is still there, after something was to be put over it, and failed.
    fn is_there(&self, range: &Range<usize>) -> bool {
        match &self.shown {
            Shown::File { mapping, .. } => mapping.has_some_of(&position(mapping, range)),
            Shown::Nothing => true,
        }
    }

    /// That which a descriptor is, from here on.
    pub(crate) fn of(file: BorrowedFd<'_>, offset: u64, sync: bool) -> Result<Self, Errno> {
        let may_write = fcntl_getfl(file)? & OFlags::RWMODE == OFlags::RDWR;
        let descriptor = file.as_raw_fd();
        Ok(Self {
            file: Origin::of(file, false)?,
            descriptor,
            offset,
            sync,
            may_write,
            is_inherited: true,
            is_locked: locking::locks_new(),
            shown: Shown::Nothing,
        })
    }

    /// Whether a descriptor is this file, opened for that.
    pub(crate) fn is_open_as(&self, descriptor: BorrowedFd<'_>, writable: bool) -> bool {
        let mode = fcntl_getfl(descriptor).map(|flags| flags & OFlags::RWMODE);
        let allows = matches!((mode, writable), (Ok(OFlags::RDWR), _) | (Ok(OFlags::RDONLY), false));
        allows && self.file.is(descriptor)
    }
}
