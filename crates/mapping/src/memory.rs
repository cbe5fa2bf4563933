//! How are addresses mapped?
//!
//! Nothing here knows what belongs to whom: each function does to a range of addresses what it says, and it is for the caller to
//! have the right to that. All system calls are made directly, not by functions that somebody may have replaced.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect,
    mremap_fixed, munmap,
};

use crate::request::Medium;
use crate::uffd::Uffd;

const HUGE: usize = 2 << 20;
const GIGANTIC: usize = 1 << 30;

/// Armed reservations are made of at most so many bytes, which is what a process needs in addition to its regions.
const STEP: usize = 1 << 30;

fn pointer(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// Address space that cannot be accessed yet, at an address that is as far from a huge page as `offset`.
pub(crate) fn reserve(size: usize, offset: u64) -> io::Result<Range<usize>> {
    let alignments = if size >= GIGANTIC { &[GIGANTIC, HUGE][..] } else { &[HUGE] };
    let mut result = Err(io::ErrorKind::OutOfMemory.into());
    for &alignment in alignments {
        result = reserve_congruent(size, alignment, offset);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn reserve_congruent(size: usize, alignment: usize, offset: u64) -> io::Result<Range<usize>> {
    let wider = size.checked_add(alignment).ok_or(io::ErrorKind::OutOfMemory)?;
    let whole = reserve_anywhere(wider)?;
    let distance = (offset % alignment as u64) as usize;
    let ahead = distance.wrapping_sub(whole.start) & (alignment - 1);
    let kept = whole.start + ahead..whole.start + ahead + size;
    // SAFETY: both ranges lie in the new reservation, around what is kept.
    unsafe {
        unmap(&(whole.start..kept.start))?;
        unmap(&(kept.end..whole.end))?;
    }
    Ok(kept)
}

fn reserve_anywhere(size: usize) -> io::Result<Range<usize>> {
    // SAFETY: a new mapping at an address that the host chooses affects nothing that exists.
    unsafe { reserve_with(0, size, MapFlags::empty()) }
}

/// The same at these addresses, if nothing is mapped there.
pub(crate) fn reserve_at(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: nothing that exists is replaced.
    let reserved = unsafe { reserve_with(range.start, range.len(), MapFlags::FIXED_NOREPLACE)? };
    debug_assert_eq!(reserved, *range, "all kernels that have userfaultfd's events know the flag");
    Ok(())
}

/// # Safety
/// With `MapFlags::FIXED`, the addresses are the caller's.
unsafe fn reserve_with(start: usize, size: usize, flags: MapFlags) -> io::Result<Range<usize>> {
    let flags = flags | MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: by the caller's promise.
    let start = unsafe { mmap_anonymous(pointer(start), size, ProtFlags::empty(), flags)? };
    let start = start.expose_provenance();
    let range = start..start + size;
    // SAFETY: it is new, and nobody relies on a child's having it.
    unsafe { not_for_children(&range)? };
    Ok(range)
}

/// Lets nobody access the range, whatever is there.
///
/// # Safety
/// The range is the caller's, and is not to keep its contents.
pub(crate) unsafe fn reserve_over(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { reserve_with(range.start, range.len(), MapFlags::FIXED)? };
    Ok(())
}

/// # Safety
/// The range is the caller's.
unsafe fn not_for_children(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: by the caller's promise. The contents stay.
    let _: () = unsafe { madvise(pointer(range.start), range.len(), Advice::LinuxDontFork)? };
    Ok(())
}

/// Makes accessible what is reserved: a touch is reported. It never holds unregistered pages: whoever locks all future memory of
/// the process fills only what can be accessed.
///
/// # Safety
/// The range is a reservation of the caller's.
pub(crate) unsafe fn arm_reserved(uffd: &Uffd, range: &Range<usize>, writable: bool) -> io::Result<()> {
    let mut protection = MprotectFlags::READ;
    protection.set(MprotectFlags::WRITE, writable);
    // SAFETY: by the caller's promise.
    unsafe {
        // Pages are put in one by one. Kernels without huge pages refuse, which is as good.
        let _ = madvise(pointer(range.start), range.len(), Advice::LinuxNoHugepage);
        uffd.register(range)?;
        mprotect(pointer(range.start), range.len(), protection)?;
    }
    Ok(())
}

/// Puts armed memory in place of whatever is there. When this returns without an error, no access of this process reaches what was
/// there.
///
/// # Safety
/// The range is the caller's, and is not to keep its contents.
pub(crate) unsafe fn arm_over(uffd: &Uffd, range: &Range<usize>, writable: bool) -> io::Result<()> {
    let mut steps = range.clone().step_by(STEP).map(|start| start..range.end.min(start.saturating_add(STEP)));
    // SAFETY: by the caller's promise.
    steps.try_for_each(|step| unsafe {
        move_over(uffd, &step, writable).or_else(|_| arm_in_place(uffd, &step, writable))
    })
}

/// Arms memory elsewhere, and moves it here: there is no moment at which a touch meets anything else.
///
/// # Safety
/// As for `arm_over`.
unsafe fn move_over(uffd: &Uffd, range: &Range<usize>, writable: bool) -> io::Result<()> {
    let fresh = reserve_anywhere(range.len())?;
    // SAFETY: the reservation is new; what it replaces is the caller's.
    let moved = unsafe {
        arm_reserved(uffd, &fresh, writable).and_then(|()| {
            let flags = MremapFlags::MAYMOVE;
            let size = range.len();
            mremap_fixed(pointer(fresh.start), size, size, flags, pointer(range.start))?;
            Ok(())
        })
    };
    if moved.is_err() {
        // SAFETY: it has not been moved, and nobody knows of it.
        let _ = unsafe { unmap(&fresh) };
    }
    moved
}

/// The last resort, where a process may not have more address space or mappings: for a moment, a touch raises SIGSEGV.
///
/// # Safety
/// As for `arm_over`.
#[cold]
unsafe fn arm_in_place(uffd: &Uffd, range: &Range<usize>, writable: bool) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    unsafe {
        reserve_over(range)?;
        arm_reserved(uffd, range, writable)
    }
}

/// Maps the medium from `at` on.
///
/// # Safety
/// The range is the caller's, and is not to keep its contents.
pub(crate) unsafe fn map_medium(
    range: &Range<usize>,
    medium: &Medium,
    at: u64,
    writable: bool,
) -> io::Result<()> {
    let sharing =
        if medium.is_synchronous { MapFlags::SHARED_VALIDATE | MapFlags::SYNC } else { MapFlags::SHARED };
    // SAFETY: by the caller's promise.
    unsafe { map_file(range, medium.file.as_fd(), at, writable, sharing) }
}

/// Maps a file as the host does, from `at` on.
///
/// # Safety
/// The range is the caller's, and is not to keep its contents.
pub(crate) unsafe fn map_as_host(
    range: &Range<usize>,
    file: BorrowedFd<'_>,
    at: u64,
    writable: bool,
) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { map_file(range, file, at, writable, MapFlags::SHARED) }
}

/// Maps a file that has no pages: an access raises SIGBUS, or fails with EFAULT if a system call makes it.
///
/// # Safety
/// The range is the caller's, and is not to keep its contents.
pub(crate) unsafe fn map_failing(
    range: &Range<usize>,
    empty: BorrowedFd<'_>,
    writable: bool,
) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { map_file(range, empty, 0, writable, MapFlags::SHARED) }
}

/// # Safety
/// The range is the caller's, and is not to keep its contents.
unsafe fn map_file(
    range: &Range<usize>,
    file: BorrowedFd<'_>,
    at: u64,
    writable: bool,
    sharing: MapFlags,
) -> io::Result<()> {
    let mut protection = ProtFlags::READ;
    protection.set(ProtFlags::WRITE, writable);
    // SAFETY: by the caller's promise.
    unsafe {
        mmap(pointer(range.start), range.len(), protection, sharing | MapFlags::FIXED, file, at)?;
        not_for_children(range)
    }
}

/// Takes away the pages of armed memory: the next touch is reported.
///
/// # Safety
/// The range is armed memory of the caller's, whose contents are not needed.
pub(crate) unsafe fn empty(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    let emptied = unsafe { madvise(pointer(range.start), range.len(), Advice::LinuxDontNeed) };
    match emptied {
        // The process has locked its memory.
        // SAFETY: by the caller's promise.
        Err(Errno::INVAL) => unsafe {
            Ok(madvise(pointer(range.start), range.len(), Advice::LinuxDontneedLocked)?)
        },
        other => Ok(other?),
    }
}

/// # Safety
/// The range is the caller's, and nobody needs it.
pub(crate) unsafe fn unmap(range: &Range<usize>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    // SAFETY: by the caller's promise.
    let _: () = unsafe { munmap(pointer(range.start), range.len())? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_as_far_from_huge_pages_as_files() {
        for (size, alignment) in
            [(4096, HUGE), (5 << 20, HUGE), (GIGANTIC, GIGANTIC), (3 * GIGANTIC, GIGANTIC)]
        {
            for offset in [0, 4096, HUGE as u64 - 4096, 7 << 20, (1 << 63) - GIGANTIC as u64 * 3] {
                let range = reserve(size, offset).unwrap();
                assert_eq!(range.start as u64 % alignment as u64, offset % alignment as u64);
                assert_eq!(range.len(), size);
                // SAFETY: nobody else knows it.
                unsafe { unmap(&range).unwrap() };
            }
        }
    }

    #[test]
    fn what_is_mapped_is_not_reserved() {
        let range = reserve(4096, 0).unwrap();
        assert_eq!(reserve_at(&range).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // SAFETY: nobody else knows it.
        unsafe { unmap(&range).unwrap() };
    }
}
