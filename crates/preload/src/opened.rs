//! How is a file read and written without the kernel?

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodefs_direct::Access;
use lodefs_direct::run::Counter;
use rustix::fs::{SeekFrom, seek};

use crate::sharing;

/// Reads and writes of a descriptor that are left to the kernel at first: as many as take the time in which a program attaches and has a file lent. So
/// one that does a few is not held up, and one that does many is by no more than that once more. (If another descriptor has the file lent already,
/// it would be taken back for these.)
const LEFT_TO_KERNEL: u32 = 16;

/// A descriptor. What is lent to one is not used by others: each may become another file without the rest.
pub(crate) struct Opened {
    access: Access,
    position: Arc<Position>,
    /// Calls so far, up to those that were left to the kernel.
    calls: AtomicU32,
}

/// The offset of an open file, which several descriptors may be.
#[derive(Default)]
pub(crate) struct Position {
    /// The kernel's offset is read, and moved.
    used: Mutex<()>,
    /// Other processes may move it.
    is_shared: AtomicBool,
}

/// Nobody else of this process moves the offset meanwhile.
pub(crate) type Alone<'a> = MutexGuard<'a, ()>;

impl Position {
    /// Nobody else moves the offset meanwhile; `None` if other processes may.
    pub(crate) fn alone(&self) -> Option<Alone<'_>> {
        // A child finds the lock as some other thread had it, but never takes it: it shares the file.
        if self.is_shared.load(Ordering::SeqCst) {
            return None;
        }
        let alone = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_shared.load(Ordering::SeqCst)).then_some(alone)
    }
}

impl Opened {
    /// That which a descriptor is, if its server tells when it is closed. `position` if it is a copy of another one.
    pub(crate) fn of(file: BorrowedFd<'_>, position: Option<Arc<Position>>) -> Option<Self> {
        let access = Access::of_watched(file).ok()??;
        // If there is no memory for that, the kernel does it all.
        sharing::watch().then(|| Self {
            access,
            position: position.unwrap_or_default(),
            calls: AtomicU32::new(0),
        })
    }

    pub(crate) fn position(&self) -> &Arc<Position> {
        &self.position
    }

    /// Whether fsync(2) has nothing to do.
    pub(crate) fn is_durable(&self) -> bool {
        self.access.is_durable()
    }

    /// Whether writes are appended.
    pub(crate) fn appends(&self) -> bool {
        self.access.appends()
    }

    /// Why the kernel is asked.
    pub(crate) fn why_left(&self) -> Counter {
        if self.access.is_left_to_kernel() { Counter::LeftForGood } else { Counter::LeftForNow }
    }

    /// Whether enough was left to the kernel.
    pub(crate) fn is_used_often(&self) -> bool {
        let is_known = self.calls.load(Ordering::Relaxed) >= LEFT_TO_KERNEL;
        is_known || self.calls.fetch_add(1, Ordering::Relaxed) >= LEFT_TO_KERNEL || self.access.has_any()
    }

    /// Leaves the offset to the kernel for good; with `waits`, when nobody is about to move it any more.
    pub(crate) fn share(&self, waits: bool) {
        self.position.is_shared.store(true, Ordering::SeqCst);
        if waits {
            drop(self.position.used.lock());
        }
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
    pub(crate) fn read(&self, file: BorrowedFd<'_>, into: &mut [u8], _: &Alone<'_>) -> Option<usize> {
        let offset = seek(file, SeekFrom::Current(0)).ok()?;
        let read = self.access.read_at(file, into, offset)?;
        seek(file, SeekFrom::Start(offset + read as u64)).ok()?;
        Some(read)
    }

    /// Writes at the kernel's offset, or appends, and moves it.
    pub(crate) fn write(&self, file: BorrowedFd<'_>, bytes: &[u8], _: &Alone<'_>) -> Option<usize> {
        let offset = if self.access.appends() { 0 } else { seek(file, SeekFrom::Current(0)).ok()? };
        let end = self.access.write_at(file, bytes, offset)?;
        // It has been written: no file is too long for an offset.
        let _moved = seek(file, SeekFrom::Start(end));
        Some(bytes.len())
    }
}
