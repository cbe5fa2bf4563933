//! Mappings of a medium into this process, aligned for huge pages.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MsyncFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, msync,
    munlock, munmap,
};

use crate::guard::Watch;
use crate::losses::Losses;
use crate::span::{Span, SpanMut};

/// Mappings start at a multiple of this, so that a huge page of the medium can be mapped by one of the process.
const ALIGNMENT_MIN: usize = 2 << 20;

/// How a mapping relates to the medium and to other mappings of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One copy with everybody else's mapping, and with the medium as far as there is no page cache between.
    Shared,
    /// The same, and the host keeps its own metadata durable before a store can be made (`MAP_SYNC`).
    Synchronous,
    /// Reads what is shared until a page is stored to; from then on that page is this mapping's own.
    Private,
}

/// What is to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Bytes that may be accessed.
    pub(crate) size: usize,
    /// Unit in which the host maps this medium: a power of two.
    pub(crate) unit: usize,
    /// How.
    pub(crate) sharing: Sharing,
    /// Whether it may be stored to.
    pub(crate) writable: bool,
}

/// Why a range was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It does not lie within the mapping.
    OutOfRange,
    /// The mapping is read-only.
    ReadOnly,
}

/// Lets this process access what was mapped so that nobody can. A process that locks all that it maps in memory (`MCL_FUTURE`) has not filled
/// it, because it could not be accessed, and does not, because it is not locked any more: the medium may be larger than what it uses.
///
/// # Errors
/// Those of munlock(2) and mprotect(2).
///
/// # Safety
/// The addresses are the caller's, and nobody relies on their being inaccessible.
pub unsafe fn open_unlocked(base: NonNull<u8>, size: usize, protection: ProtFlags) -> rustix::io::Result<()> {
    let protection = MprotectFlags::from_bits_retain(protection.bits());
    // SAFETY: by the caller's promise.
    unsafe {
        munlock(base.as_ptr().cast(), size)?;
        mprotect(base.as_ptr().cast(), size, protection)
    }
}

/// A mapping of a whole medium. Lives as long as the value.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// Bytes that may be read.
    size: usize,
    /// Bytes that may be written: `size` or none.
    writable_size: usize,
    /// Bytes of address space: `size` rounded up to the host's unit.
    mapped: usize,
    /// Unit in which the host maps.
    unit: usize,
    watch: Option<Watch>,
}

// SAFETY: the mapping belongs to the process, not to a thread; its memory is accessed through raw pointers only, as
// memory that others may change at any time anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method relies on exclusive access to the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `size` bytes of `file`.
    pub(crate) fn new(file: BorrowedFd<'_>, request: Request) -> io::Result<Self> {
        let Request { size, unit, sharing, writable } = request;
        let mapped = size.checked_next_multiple_of(unit).ok_or(io::ErrorKind::FileTooLarge)?;
        let reservation = Reservation::new(mapped, unit.max(ALIGNMENT_MIN))?;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Synchronous => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
            // Only pages that are stored to take memory, so the host must not set aside memory for all.
            Sharing::Private => MapFlags::PRIVATE | MapFlags::NORESERVE,
        };
        // SAFETY: the fixed address lies in the reservation, which nobody else uses and which is as long.
        unsafe {
            let start = reservation.aligned.as_ptr().cast();
            mmap(start, mapped, ProtFlags::empty(), flags | MapFlags::FIXED, file, 0)?;
            open_unlocked(reservation.aligned, mapped, protection)?;
        }
        let base = reservation.keep(mapped);
        Ok(Self { base, size, writable_size: if writable { size } else { 0 }, mapped, unit, watch: None })
    }

    /// The same mapping, of `file`, in which an access to what the host cannot provide ends, and is noted in `losses`.
    pub(crate) fn watched(mut self, file: BorrowedFd<'_>, losses: &Arc<Losses>) -> io::Result<Self> {
        let start = self.base.addr().get();
        let file = file.try_clone_to_owned()?;
        // SAFETY: the mapping, which is made of whole units, lives as long as the watch, which is dropped before it. Mapped
        // memory is none of Rust's, so it may change.
        let watch = unsafe { Watch::new(start, self.mapped, self.unit, file, Arc::clone(losses))? };
        self.watch = Some(watch);
        Ok(self)
    }

    /// Whether the host would map `file` synchronously.
    pub(crate) fn can_be_synchronous(file: BorrowedFd<'_>, writable: bool) -> bool {
        let request =
            Request { size: 1, unit: rustix::param::page_size(), sharing: Sharing::Synchronous, writable };
        Self::new(file, request).is_ok()
    }

    /// Bytes that may be read.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Unit in which the host maps.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    /// `size` bytes from `at` on, to read.
    #[inline]
    pub(crate) fn span(&self, at: u64, size: usize) -> Result<Span<'_>, Refused> {
        if !lies_within(at, size, self.size) {
            return Err(Refused::OutOfRange);
        }
        // SAFETY: the range lies within the mapping, which lives as long as the borrow.
        Ok(unsafe { Span::new(self.base.as_ptr().add(at as usize), size) })
    }

    /// `size` bytes from `at` on, to write.
    #[inline]
    pub(crate) fn span_mut(&self, at: u64, size: usize) -> Result<SpanMut<'_>, Refused> {
        if !lies_within(at, size, self.writable_size) {
            let is_inside = lies_within(at, size, self.size);
            return Err(if is_inside { Refused::ReadOnly } else { Refused::OutOfRange });
        }
        // SAFETY: the range lies within the mapping, which lives as long as the borrow and, `writable_size` not being
        // zero, was mapped writable. Mapped memory is none of Rust's. (An empty range needs nothing.)
        Ok(unsafe { SpanMut::new(self.base.as_ptr().add(at as usize), size) })
    }

    /// Asks for huge pages; the host may do as it likes.
    pub(crate) fn prefer_huge_pages(&self) {
        // SAFETY: the range is this mapping; the advice changes no contents. It is only a wish, so a refusal is no error.
        let _ = unsafe { madvise(self.address(), self.mapped, Advice::LinuxHugepage) };
    }

    /// Waits until everything stored to the mapping is on the medium.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping; the call changes no contents.
        let _: () = unsafe { msync(self.address(), self.mapped, MsyncFlags::SYNC)? };
        Ok(())
    }

    /// Drops a private mapping's own copies of whole pages: they read what is shared again.
    pub(crate) fn drop_copies(&self, at: u64, size: u64) -> io::Result<()> {
        assert!(lies_within(at, size as usize, self.mapped), "copies are dropped within the mapping");
        // SAFETY: the range lies within the mapping. Its contents change, which nobody may rely on not to happen: there
        // are no references into it.
        unsafe {
            let start = self.base.as_ptr().add(at as usize);
            Ok(madvise(start.cast(), size as usize, Advice::LinuxDontNeed)?)
        }
    }

    fn address(&self) -> *mut c_void {
        self.base.as_ptr().cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before something else can be mapped here.
        self.watch = None;
        // SAFETY: the range is this mapping, and spans, which borrow it, are gone.
        let unmapped = unsafe { munmap(self.address(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "a whole mapping can be unmapped");
    }
}

#[inline]
fn lies_within(at: u64, size: usize, end: usize) -> bool {
    size <= end && at <= (end - size) as u64
}

/// Address space that nothing else will be mapped to, with an aligned place in it.
struct Reservation {
    start: NonNull<u8>,
    size: usize,
    aligned: NonNull<u8>,
}

impl Reservation {
    fn new(size: usize, alignment: usize) -> io::Result<Self> {
        let size = size.checked_add(alignment).ok_or(io::ErrorKind::FileTooLarge)?;
        // SAFETY: a new mapping at an address that the host chooses affects nothing that exists.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                size,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let ahead = start.addr().get().next_multiple_of(alignment) - start.addr().get();
        // SAFETY: `ahead` is less than `alignment`, which was added to the size.
        let aligned = unsafe { start.add(ahead) };
        Ok(Self { start, size, aligned })
    }

    /// Gives back all but `size` bytes at the aligned address.
    fn keep(self, size: usize) -> NonNull<u8> {
        let kept = std::mem::ManuallyDrop::new(self);
        let ahead = kept.aligned.addr().get() - kept.start.addr().get();
        let behind = kept.size - ahead - size;
        // SAFETY: both ranges lie in the reservation, around what is kept, and nothing was mapped there.
        unsafe {
            unmap_if_any(kept.start.as_ptr(), ahead);
            unmap_if_any(kept.aligned.as_ptr().add(size), behind);
        }
        kept.aligned
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is this reservation, and nothing uses it.
        unsafe { unmap_if_any(self.start.as_ptr(), self.size) }
    }
}

/// # Safety
/// Nothing uses the range, which was mapped by this process.
unsafe fn unmap_if_any(start: *mut u8, size: usize) {
    if size > 0 {
        // SAFETY: by the caller's promise.
        let unmapped = unsafe { munmap(start.cast(), size) };
        debug_assert!(unmapped.is_ok(), "a reservation can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn mapping(size: usize, sharing: Sharing, writable: bool) -> Mapping {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size as u64).unwrap();
        Mapping::new(file.as_fd(), Request { size, unit: 4096, sharing, writable }).unwrap()
    }

    #[test]
    fn mappings_are_aligned_for_huge_pages() {
        for size in [1, 4096, (2 << 20) + 1, 5 << 20] {
            let map = mapping(size, Sharing::Shared, true);
            assert_eq!(map.base.addr().get() % ALIGNMENT_MIN, 0);
        }
    }

    #[test]
    fn ranges_are_checked_without_wrapping() {
        let map = mapping(10_000, Sharing::Shared, true);
        assert!(map.span(0, 10_000).is_ok() && map.span(10_000, 0).is_ok() && map.span_mut(9_999, 1).is_ok());
        for (at, size) in
            [(0, 10_001), (1, 10_000), (10_001, 0), (u64::MAX, 1), (u64::MAX, usize::MAX), (1, usize::MAX)]
        {
            assert_eq!(map.span(at, size).err(), Some(Refused::OutOfRange), "{size} at {at}");
            assert_eq!(map.span_mut(at, size).err(), Some(Refused::OutOfRange), "{size} at {at}");
        }
    }

    #[test]
    fn a_read_only_mapping_gives_nothing_to_write() {
        let map = mapping(4096, Sharing::Shared, false);
        assert!(map.span(0, 1).is_ok());
        assert_eq!(map.span_mut(0, 1).err(), Some(Refused::ReadOnly));
        assert_eq!(map.span_mut(4096, 1).err(), Some(Refused::OutOfRange));
    }

    #[test]
    fn a_size_beyond_the_address_space_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        for size in [usize::MAX, usize::MAX / 2, 1 << 60] {
            let request = Request { size, unit: 4096, sharing: Sharing::Shared, writable: true };
            assert!(Mapping::new(file.as_fd(), request).is_err());
        }
    }
}
