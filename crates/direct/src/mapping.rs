//! A part of a file in memory, reaching the medium itself if the file is direct.

use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use lodefs_mapping::Shown;
use lodefs_pmem::{Domain, Persist};
use lodefs_proto::server;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::attachment::{Mapped, Wanted};

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

/// A part of a file in memory. Others may change it at any time, so it is never lent as a slice.
pub struct Mapping {
    base: NonNull<u8>,
    size: usize,
    writable: bool,
    how: How,
}

enum How {
    Direct { mapped: Arc<Mapped>, persist: Persist },
    Buffered,
}

// SAFETY: the mapping belongs to the process, not to a thread; its memory is accessed through raw pointers only, as
// memory that others may change at any time anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method relies on exclusive access to the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a part of an open file: directly if it is direct and this process may attach, else as the kernel does.
    ///
    /// # Errors
    /// OPNOTSUPP if it should be `sync` and cannot; ACCESS if the file was not opened for what is to be done; INVAL for an offset or
    /// a size that cannot be mapped; NODEV if the file is direct and this process may not attach: the kernel maps no such file.
    pub fn new(file: &impl AsFd, options: &MapOptions) -> Result<Self, Errno> {
        let MapOptions { offset, size, writable, sync } = *options;
        match Mapped::new(file, Wanted { offset, size, writable, sync }) {
            Ok(mapped) => {
                let persist = Persist::new(domain_of(mapped.domain)).ok_or(Errno::OPNOTSUPP)?;
                let (base, size) = (mapped.region.base(), mapped.region.size());
                Ok(Self { base, size, writable, how: How::Direct { mapped, persist } })
            }
            // It is not direct, not on a lodefs volume, or this process may not attach.
            Err(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP | Errno::PERM) if !sync => {
                Self::buffered(file, options)
            }
            Err(Errno::INVAL | Errno::NOTTY | Errno::PERM) if sync => Err(Errno::OPNOTSUPP),
            Err(errno) => Err(errno),
        }
    }

    fn buffered(file: &impl AsFd, options: &MapOptions) -> Result<Self, Errno> {
        let protection = if options.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe {
            mmap(ptr::null_mut(), options.size, protection, MapFlags::SHARED, file, options.offset)?
        };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let size = options.size.next_multiple_of(rustix::param::page_size());
        Ok(Self { base, size, writable: options.writable, how: How::Buffered })
    }

    /// What it is: fixed as long as it is there.
    pub fn kind(&self) -> MappingKind {
        match self.how {
            How::Direct { .. } => MappingKind::Direct,
            How::Buffered => MappingKind::Buffered,
        }
    }

    /// Where it begins. It is good until this is dropped.
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

    /// Copies bytes out. INVAL if they do not lie within the mapping. SIGBUS if they lie beyond the end of the file.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Result<(), Errno> {
        let from = self.check(at, into.len())?;
        // SAFETY: the mapping has so many bytes there, and none of them is `into`'s, which is borrowed for change. Others may
        // change them meanwhile: what is copied then is a mixture of bytes, any of which are valid.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes in. INVAL if they do not lie within the mapping, ACCESS if it is not writable. SIGBUS if they lie beyond the end
    /// of the file, or there is no room for them.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        let to = self.check(at, bytes.len())?;
        if !self.writable {
            return Err(Errno::ACCESS);
        }
        // SAFETY: the mapping has so many bytes there, which are no Rust value's.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Makes what was stored to these bytes durable, as far as the medium can: with no system call, if it is direct.
    pub fn persist(&self, range: Range<usize>) -> Result<(), Errno> {
        let size = range.end.checked_sub(range.start).ok_or(Errno::INVAL)?;
        let start = self.check(range.start, size)?;
        match &self.how {
            How::Direct { persist, .. } => {
                // SAFETY: these bytes are mapped as long as this is there.
                unsafe { persist.persist(start.as_ptr(), size) };
                Ok(())
            }
            How::Buffered => {
                let page = rustix::param::page_size();
                let from = range.start - range.start % page;
                // SAFETY: these bytes are mapped, and writing them back changes none.
                unsafe { msync(self.base.add(from).as_ptr().cast(), range.end - from, MsyncFlags::SYNC) }
            }
        }
    }

    /// Makes all that was stored durable, and lets it show in the times of the file.
    pub fn sync(&self) -> Result<(), Errno> {
        let How::Direct { mapped, persist } = &self.how else { return self.persist(0..self.size) };
        for part in mapped.region.parts() {
            if let Shown::Medium(_) = part.shown {
                let from = (part.offset - mapped.region.offset()) as usize;
                // SAFETY: these bytes are mapped as long as this is there. (If they have been recalled meanwhile, they are touched
                // once more, to be read.)
                unsafe { persist.flush(self.base.add(from).as_ptr(), part.size as usize) };
            }
        }
        persist.drain();
        if self.writable { mapped.note_change() } else { Ok(()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if matches!(self.how, How::Buffered) {
            // SAFETY: nobody can reach it by this value any more, and pointers are good until now only.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping")
            .field("base", &self.base)
            .field("size", &self.size)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

fn domain_of(domain: server::Domain) -> Domain {
    match domain {
        server::Domain::CpuCache => Domain::CpuCache,
        server::Domain::MemoryController => Domain::MemoryController,
        server::Domain::Volatile => Domain::Volatile,
    }
}
