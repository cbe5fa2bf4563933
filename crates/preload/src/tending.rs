//! Which calls look after what is mapped?

use std::ffi::{c_int, c_uchar, c_void};
use std::ops::Range;
use std::ptr;

use libc::size_t;
use lodefs_direct::Place;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::addresses::{self, Piece, Shown};
use crate::mapping::done;
use crate::showing::{PAGE_SIZE, checked, descriptor_of, forbid, pages, pointer, position, show_again};
use crate::within::Within;
use crate::{changing, next, outline};

/// What a program may say of how it uses memory, of which nothing follows here.
const HINTS: [c_int; 16] = [
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_MERGEABLE,
    libc::MADV_UNMERGEABLE,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
    libc::MADV_COLD,
    libc::MADV_PAGEOUT,
    libc::MADV_DONTNEED_LOCKED,
    libc::MADV_COLLAPSE,
    libc::MADV_KEEPONFORK,
];

/// What comes of an address that is not mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unmapped {
    /// Nothing is done behind it.
    Ends,
    /// It is said when all else has been done.
    IsSaid,
}

/// Does something to each part of a range that shows a file, and something else to what lies between them, in order, until one fails.
fn each(
    range: &Range<usize>,
    unmapped: Unmapped,
    mut to_piece: impl FnMut(&Range<usize>, &Piece) -> Result<(), Errno>,
    mut to_gap: impl FnMut(&Range<usize>) -> c_int,
) -> Result<c_int, Errno> {
    let found = addresses::found(range);
    let gaps = addresses::gaps(range, &found);
    let mut all: Vec<_> = found.iter().map(|(part, piece)| (part, Some(piece))).collect();
    all.extend(gaps.iter().map(|gap| (gap, None)));
    all.sort_by_key(|(part, _)| part.start);
    let mut result = Ok(0);
    for (part, piece) in all {
        match piece.map_or_else(|| checked(to_gap(part)), |piece| to_piece(part, piece)) {
            Err(Errno::NOMEM) if unmapped == Unmapped::IsSaid => result = Err(Errno::NOMEM),
            Err(errno) => return Err(errno),
            Ok(()) => {}
        }
    }
    result
}

/// # Safety
/// As for msync(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn msync(address: *mut c_void, size: size_t, flags: c_int) -> c_int {
    // SAFETY: by the caller's promise.
    let by_kernel = |address, size| unsafe { next::msync(address, size, flags) };
    let Ok(range) = pages(address.expose_provenance(), size) else { return by_kernel(address, size) };
    let both = libc::MS_SYNC | libc::MS_ASYNC;
    let is_sound = flags & !(both | libc::MS_INVALIDATE) == 0 && flags & both != both;
    let sync = |part: &Range<usize>, piece: &Piece| match &piece.shown {
        _ if piece.is_locked && flags & libc::MS_INVALIDATE != 0 => Err(Errno::BUSY),
        Shown::File { mapping, .. } if flags & libc::MS_SYNC != 0 => mapping
            .sync_range(position(mapping, part))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        Shown::File { .. } | Shown::Nothing => Ok(()),
    };
    done(
        &range,
        -1,
        || by_kernel(address, size),
        changing::beside,
        || {
            if !is_sound {
                return Err(Errno::INVAL);
            }
            each(&range, Unmapped::IsSaid, sync, |gap| by_kernel(pointer(gap.start), gap.len()))
        },
    )
}

/// # Safety
/// As for mprotect(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mprotect(address: *mut c_void, size: size_t, protection: c_int) -> c_int {
    // SAFETY: by the caller's promise.
    let by_kernel = |address, size| unsafe { next::mprotect(address, size, protection) };
    let Ok(range) = pages(address.expose_provenance(), size) else { return by_kernel(address, size) };
    let protect = |part: &Range<usize>, piece: &Piece| match protection {
        libc::PROT_NONE => forbidden(part, piece),
        other if other & !(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) != 0 => Err(Errno::INVAL),
        other if other & libc::PROT_EXEC != 0 => Err(Errno::ACCESS),
        other => {
            let writable = other & libc::PROT_WRITE != 0;
            if piece.is_writable() == Some(writable) {
                return Ok(());
            }
            // SAFETY: what replaces it shows the same, for whoever may still access it.
            unsafe { show_again(piece, part.len(), writable, Place::Over(part.start)) }.map(drop)
        }
    };
    done(
        &range,
        -1,
        || by_kernel(address, size),
        changing::alone,
        || each(&range, Unmapped::Ends, protect, |gap| by_kernel(pointer(gap.start), gap.len())),
    )
}

fn forbidden(part: &Range<usize>, piece: &Piece) -> Result<(), Errno> {
    if piece.is_writable().is_none() {
        return Ok(());
    }
    // SAFETY: nobody may access it from now on.
    unsafe { forbid(part, &addresses::take(part))? };
    addresses::put(part, Piece { shown: Shown::Nothing, ..piece.clone() });
    Ok(())
}

/// # Safety
/// As for madvise(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn madvise(address: *mut c_void, size: size_t, advice: c_int) -> c_int {
    // SAFETY: by the caller's promise.
    let by_kernel = |address, size| unsafe { next::madvise(address, size, advice) };
    let Ok(range) = pages(address.expose_provenance(), size) else { return by_kernel(address, size) };
    let to_piece = |part: &Range<usize>, piece: &Piece| match advice {
        libc::MADV_REMOVE | libc::MADV_DONTNEED | libc::MADV_COLD | libc::MADV_PAGEOUT if piece.is_locked => {
            Err(Errno::INVAL)
        }
        libc::MADV_REMOVE => removed(part, piece),
        libc::MADV_POPULATE_READ | libc::MADV_POPULATE_WRITE => {
            checked(by_kernel(pointer(part.start), part.len()))
        }
        libc::MADV_DONTFORK | libc::MADV_DOFORK => {
            let is_inherited = advice == libc::MADV_DOFORK;
            addresses::put(part, Piece { is_inherited, ..piece.clone() });
            Ok(())
        }
        // Of memory that is no file's.
        libc::MADV_FREE | libc::MADV_WIPEONFORK => Err(Errno::INVAL),
        // The contents are where they are, whatever is said of them.
        known if HINTS.contains(&known) => Ok(()),
        _ => Err(Errno::INVAL),
    };
    // To have it done beside others is to have nothing changed.
    let changes = matches!(advice, libc::MADV_DONTFORK | libc::MADV_DOFORK);
    let lock = || (changes.then(changing::alone), (!changes).then(changing::beside));
    done(
        &range,
        -1,
        || by_kernel(address, size),
        lock,
        || each(&range, Unmapped::IsSaid, to_piece, |gap| by_kernel(pointer(gap.start), gap.len())),
    )
}

/// Takes the contents away, in the file.
fn removed(part: &Range<usize>, piece: &Piece) -> Result<(), Errno> {
    if !piece.may_write {
        return Err(Errno::ACCESS);
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match descriptor_of(piece, true) {
        Some(own) => fallocate(own, flags, piece.offset, part.len() as u64),
        None => fallocate(piece.file.with(true).open()?, flags, piece.offset, part.len() as u64),
    }
}

/// # Safety
/// As for mincore(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mincore(address: *mut c_void, size: size_t, into: *mut c_uchar) -> c_int {
    // SAFETY: by the caller's promise.
    let said = unsafe { next::mincore(address, size, into) };
    let Ok(range) = pages(address.expose_provenance(), size) else { return said };
    if said == 0
        && outline::has_some_of(&range)
        && let Some(_within) = Within::enter()
    {
        for (part, _) in addresses::found(&range) {
            let (first, count) = ((part.start - range.start) / PAGE_SIZE, part.len() / PAGE_SIZE);
            // They are on the medium, which is memory.
            // SAFETY: there is a byte for each page, as the kernel has just found.
            unsafe { ptr::write_bytes(into.add(first), 1, count) };
        }
    }
    said
}
