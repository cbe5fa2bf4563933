//! What is a part of a file in memory, and how is what is stored to it made durable?

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

#[cfg(doc)]
use lodefs_mapping::replace;
use lodefs_mapping::{Region, Shown};
use lodefs_pmem::{Domain, Persist};
use lodefs_proto::maps::DurableBy;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use rustix::param::page_size;

use crate::registry::{Known, Noted, Subject};

/// How a file is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOptions {
    /// Where the part begins in the file: a multiple of 4096.
    pub offset: u64,
    /// Bytes; more than 0. What is beyond the end of the file raises SIGBUS, until the file is longer.
    pub size: usize,
    /// To store to it. The file must be open for reading and writing then.
    pub writable: bool,
    /// Only if what is flushed from user space needs no fsync, as with `MAP_SYNC`.
    pub sync: bool,
}

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// Loads and stores reach the medium.
    Direct,
    /// They reach the page cache of the kernel.
    Buffered,
}

/// Whose pages a mapping shows: the server of a mount, or the engine in the same process. It is dropped with the mapping, and unmaps
/// the region then.
pub trait Source: Send + Sync {
    /// Notes that the program has changed the file by its stores.
    fn note_change(&self) -> io::Result<()>;
}

/// A part of a file in memory. Others may change it at any time, so it is never lent as a slice.
///
/// A range of bytes that a method takes counts from the beginning of the mapping. If it does not lie within, the answer is EINVAL.
pub struct Mapping {
    base: NonNull<u8>,
    size: usize,
    writable: bool,
    how: How,
}

enum How {
    /// Dropped in this order.
    Region { persist: Persist, noted: Noted, source: Box<dyn Source>, region: Arc<Region> },
    /// As the kernel maps any file.
    Host { noted: Option<Noted> },
}

// SAFETY: the mapping belongs to the process, not to a thread; its memory is accessed through raw pointers only, as
// memory that others may change at any time anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method relies on exclusive access to the mapped bytes.
unsafe impl Sync for Mapping {}

/// Made by those who know where the pages are.
impl Mapping {
    /// What a region shows, of a medium of this domain. Nobody unmaps any of the region but the source, when it is dropped. EOPNOTSUPP
    /// if stores to such a medium cannot be made durable from user space.
    pub fn of_region(
        region: Arc<Region>,
        options: &MapOptions,
        domain: Domain,
        subject: Subject,
        source: Box<dyn Source>,
    ) -> io::Result<Self> {
        let persist =
            Persist::new(domain).map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
        let (base, size) = (region.base(), region.size());
        let MapOptions { offset, writable, sync, .. } = *options;
        let known = Known {
            number: 0,
            size,
            offset,
            region: Some(Arc::downgrade(&region)),
            subject,
            writable,
            sync,
            durable_by: match domain {
                Domain::CpuCache => DurableBy::Fence,
                Domain::MemoryController => DurableBy::Flush,
                Domain::Volatile => DurableBy::Nothing,
                Domain::Page => DurableBy::Msync,
            },
        };
        let noted = Noted::new(base.addr().get(), known);
        Ok(Self { base, size, writable, how: How::Region { persist, noted, source, region } })
    }

    /// What the kernel shows of an open file.
    pub fn of_host(file: impl AsFd, options: &MapOptions, subject: Subject) -> io::Result<Self> {
        let protection = if options.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe {
            mmap(ptr::null_mut(), options.size, protection, MapFlags::SHARED, file, options.offset)?
        };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let size = options.size.next_multiple_of(page_size());
        let MapOptions { offset, writable, .. } = *options;
        let durable_by = DurableBy::Msync;
        let known =
            Known { number: 0, size, offset, region: None, subject, writable, sync: false, durable_by };
        let noted = Noted::new(base.addr().get(), known);
        Ok(Self { base, size, writable, how: How::Host { noted: Some(noted) } })
    }
}

impl Mapping {
    /// What it is. It stays so, but for attached programs when a file is switched on demand.
    pub fn kind(&self) -> MappingKind {
        match &self.how {
            How::Region { region, .. } if !region.shows_file() => MappingKind::Direct,
            How::Region { .. } | How::Host { .. } => MappingKind::Buffered,
        }
    }

    /// Where it begins. It is good until this is dropped. As far from a multiple of 2 MiB as its offset in the file, so that huge
    /// pages can map it, if it is direct.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Its bytes, in whole pages.
    pub fn size(&self) -> usize {
        self.size
    }

    fn check(&self, at: usize, size: usize) -> Result<NonNull<u8>, Errno> {
        let lies_within = at.checked_add(size).is_some_and(|end| end <= self.size);
        if !lies_within {
            return Err(Errno::INVAL);
        }
        // SAFETY: it lies within the mapping, or at its end.
        Ok(unsafe { self.base.add(at) })
    }

    /// Copies bytes out. SIGBUS if they lie beyond the end of the file.
    pub fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        let from = self.check(at, into.len())?;
        // SAFETY: the mapping has so many bytes there. If `into` has some of them, which takes unsafe code of the caller's, it is a
        // copy all the same. Others may change them meanwhile: what is copied then is a mixture of bytes, any of which are valid.
        unsafe { ptr::copy(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes in. EACCES if it is not writable. SIGBUS if they lie beyond the end of the file, or there is no room for them.
    pub fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.check(at, bytes.len())?;
        if !self.writable {
            return Err(Errno::ACCESS.into());
        }
        // SAFETY: the mapping has so many bytes there, which are no Rust value's; as for `read`.
        unsafe { ptr::copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Starts the way of stored bytes to the medium. They have arrived after the next [`drain`](Self::drain). If the mapping is direct,
    /// this is no system call.
    pub fn flush(&self, range: Range<usize>) -> io::Result<()> {
        let size = range.end.checked_sub(range.start).ok_or(Errno::INVAL)?;
        let start = self.check(range.start, size)?;
        let How::Region { persist, region, .. } = &self.how else { return self.write_back(range) };
        // SAFETY: these bytes are mapped as long as this is there: the source is.
        unsafe { persist.flush(start.as_ptr(), size) };
        // Asked afterwards: who was switched meanwhile has flushed the wrong copy.
        if region.shows_file() { self.write_back(range) } else { Ok(()) }
    }

    /// Waits until what was flushed is durable, as far as the medium can.
    pub fn drain(&self) {
        if let How::Region { persist, .. } = &self.how {
            persist.drain();
        }
    }

    /// Makes what was stored to these bytes durable, as far as the medium can: [`flush`](Self::flush) and [`drain`](Self::drain).
    pub fn persist(&self, range: Range<usize>) -> io::Result<()> {
        self.flush(range)?;
        self.drain();
        Ok(())
    }

    /// Makes all that was stored durable, and lets it show in the times of the file.
    pub fn sync(&self) -> io::Result<()> {
        self.sync_range(0..self.size)
    }

    /// The same with what was stored to these bytes, as msync(2) does.
    pub fn sync_range(&self, range: Range<usize>) -> io::Result<()> {
        self.check(range.start, range.end.checked_sub(range.start).ok_or(Errno::INVAL)?)?;
        let How::Region { persist, source, region, .. } = &self.how else {
            return self.write_back(range);
        };
        for part in region.parts() {
            let from = (part.offset - region.offset()) as usize;
            let bytes = from.max(range.start)..(from + part.size as usize).min(range.end);
            if let (Shown::Medium(_), false) = (part.shown, bytes.is_empty()) {
                // SAFETY: as for `flush`.
                unsafe { persist.flush(self.base.add(bytes.start).as_ptr(), bytes.len()) };
            }
        }
        persist.drain();
        if region.shows_file() {
            self.write_back(range)?;
        }
        if self.writable { source.note_change() } else { Ok(()) }
    }

    /// Unmaps these bytes. EINVAL if they do not lie within, or it is the kernel's mapping; ENOMEM, and some may still be there, if the host has no room for more mappings.
    ///
    /// # Safety
    /// Nobody uses these bytes any more, nor as a part of a range that is said here.
    pub unsafe fn unmap(&self, range: Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(&range)?;
        let How::Region { noted, region, .. } = &self.how else { return Err(Errno::INVAL.into()) };
        region.unmap(region.offset() + range.start as u64, range.len() as u64)?;
        noted.take_away(&addresses);
        Ok(())
    }

    /// These bytes are another's from now on, who maps something over them, or unmaps them ([`replace`]). EINVAL as for
    /// [`unmap`](Self::unmap).
    ///
    /// # Safety
    /// As for [`unmap`](Self::unmap).
    pub unsafe fn leave(&self, range: Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(&range)?;
        let How::Region { noted, .. } = &self.how else { return Err(Errno::INVAL.into()) };
        noted.take_away(&addresses);
        Ok(())
    }

    /// Whether any of these bytes is still mapped by this.
    pub fn has_some_of(&self, range: &Range<usize>) -> bool {
        let How::Region { region, .. } = &self.how else { return true };
        let lies_there = |offset: u64, size: u64| {
            let from = (offset - region.offset()) as usize;
            from < range.end && range.start < from + size as usize
        };
        region.parts().iter().any(|part| part.shown != Shown::Unmapped && lies_there(part.offset, part.size))
    }

    fn addresses(&self, range: &Range<usize>) -> Result<Range<usize>, Errno> {
        let size = range.end.checked_sub(range.start).ok_or(Errno::INVAL)?;
        let start = self.check(range.start, size)?.addr().get();
        Ok(start..start + size)
    }

    /// Lets the kernel write back its cache.
    fn write_back(&self, range: Range<usize>) -> io::Result<()> {
        let from = range.start - range.start % page_size();
        // SAFETY: these bytes are mapped, and writing them back changes none.
        unsafe { msync(self.base.add(from).as_ptr().cast(), range.end - from, MsyncFlags::SYNC)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let How::Host { noted } = &mut self.how {
            // Before the addresses can be another's.
            drop(noted.take());
            // SAFETY: nobody can reach it by this value any more, and pointers are good until now only.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("base", &self.base)
            .field("size", &self.size)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
