//! How is a file read and written without the kernel?

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lodefs_direct::Access;
use rustix::fs::{SeekFrom, seek};

/// An open file, which several descriptors may be.
pub(crate) struct Opened {
    access: Access,
    /// The kernel's offset is read, and moved.
    position: Mutex<()>,
    /// Other processes may move it.
    is_shared: AtomicBool,
}

impl Opened {
    /// That which a descriptor is, if its server tells when it is closed.
    pub(crate) fn of(file: BorrowedFd<'_>, is_shared: bool) -> Option<Self> {
        let access = Access::of_watched(file).ok()??;
        Some(Self { access, position: Mutex::new(()), is_shared: AtomicBool::new(is_shared) })
    }

    /// Leaves the offset to the kernel for good.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::SeqCst)
    }

    /// Reads at an offset. `None`, here and below: the kernel is to be asked.
    pub(crate) fn read_at(&self, file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Option<usize> {
        self.access.read_at(file, into, offset)
    }

    /// Writes at an offset; returns how much.
    pub(crate) fn write_at(&self, file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Option<usize> {
        self.access.write_at(file, bytes, offset).map(|_| bytes.len())
    }

    /// Reads at the kernel's offset, and moves it.
    pub(crate) fn read(&self, file: BorrowedFd<'_>, into: &mut [u8]) -> Option<usize> {
        let _alone = self.position()?;
        let offset = seek(file, SeekFrom::Current(0)).ok()?;
        let read = self.access.read_at(file, into, offset)?;
        seek(file, SeekFrom::Start(offset + read as u64)).ok()?;
        Some(read)
    }

    /// Writes at the kernel's offset, or appends, and moves it.
    pub(crate) fn write(&self, file: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
        let _alone = self.position()?;
        let offset = if self.access.appends() { 0 } else { seek(file, SeekFrom::Current(0)).ok()? };
        let end = self.access.write_at(file, bytes, offset)?;
        // It has been written: no file is too long for an offset.
        let _moved = seek(file, SeekFrom::Start(end));
        Some(bytes.len())
    }

    /// Nobody else moves the offset meanwhile; `None` if others may.
    fn position(&self) -> Option<MutexGuard<'_, ()>> {
        // A child finds the lock as some other thread had it, but never takes it: it shares the file.
        if self.is_shared() {
            return None;
        }
        let alone = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_shared()).then_some(alone)
    }
}
