//! How is a file read and written without the kernel?

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lodefs_direct::Access;
use lodefs_direct::run::Counter;
use rustix::io::{Errno, pread, pwrite};

use crate::position::{Claim, Position};
use crate::sharing;

/// Reads and writes of a descriptor that are left to the kernel at first: as many as take the time in which a program attaches and has a file lent. So
/// one that does a few is not held up, and one that does many is by no more than that once more. (If another descriptor has the file lent already,
/// it would be taken back for these.)
const LEFT_TO_KERNEL: u32 = 16;

/// How often a read begins anew because the position has moved.
const TRIES: usize = 8;

/// A descriptor. What is lent to one is not used by others: each may become another file without the rest.
pub(crate) struct Opened {
    access: Access,
    position: Arc<Position>,
    /// Calls so far, up to those that were left to the kernel.
    calls: AtomicU32,
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

    /// Whether the descriptor has the flags that are known of it.
    pub(crate) fn has_same_flags(&self, file: BorrowedFd<'_>) -> bool {
        self.access.has_same_flags(file)
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

    /// Reads at an offset. `None`, here and below: the kernel is to be asked.
    pub(crate) fn read_at(&self, file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Option<usize> {
        self.access.read_at(file, into, offset)
    }

    /// Writes at an offset, or appends if the file was opened so; returns how much.
    pub(crate) fn write_at(&self, file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Option<usize> {
        if self.position.is_shared() && !self.has_same_flags(file) {
            // Another process has changed O_APPEND.
            return None;
        }
        let offset = (!self.access.appends()).then_some(offset);
        self.access.write_at(file, bytes, offset).map(|_| bytes.len())
    }

    /// Appends, however the file was opened; returns how much. The position stays.
    pub(crate) fn append_aside(&self, file: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
        self.access.write_at(file, bytes, None).map(|_| bytes.len())
    }

    /// Reads at the position, and moves it.
    pub(crate) fn read(&self, file: BorrowedFd<'_>, into: &mut [u8]) -> Option<usize> {
        for _ in 0..TRIES {
            let at = self.position.presumed(file)?;
            let read = self.access.read_at(file, into, at)?;
            // Where the file ends, less would be read at another position, or more.
            if read < into.len() && self.position.ask(file)? != at {
                continue;
            }
            if read == 0 {
                return Some(0);
            }
            match self.position.claim(file, at, read)? {
                Claim::Presumed => return Some(read),
                Claim::Elsewhere(offset) => return self.read_claimed(file, &mut into[..read], offset),
            }
        }
        None
    }

    /// Reads bytes over which the position has been moved already.
    fn read_claimed(&self, file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Option<usize> {
        let read = match self.access.read_at(file, into, offset) {
            Some(read) => Ok(read),
            None => retry_on_intr(|| pread(file, &mut *into, offset)),
        };
        let moved_to = offset + read.unwrap_or(0) as u64;
        if moved_to < offset + into.len() as u64 {
            self.position.move_back(file, offset + into.len() as u64, moved_to);
        }
        read.ok()
    }

    /// Writes at the position, or appends, and moves it.
    pub(crate) fn write(&self, file: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
        if self.access.appends() {
            return self.append(file, bytes);
        }
        let at = self.position.presumed(file)?;
        if !self.access.can_write_at(file, bytes.len(), at) {
            return None;
        }
        let offset = match self.position.claim(file, at, bytes.len())? {
            Claim::Presumed => at,
            Claim::Elsewhere(offset) => offset,
        };
        match self.access.write_at(file, bytes, Some(offset)) {
            Some(_) => Some(bytes.len()),
            None => self.write_claimed(file, bytes, offset),
        }
    }

    /// Appends, however the file was opened, and moves the position.
    pub(crate) fn append(&self, file: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
        let append = || self.access.write_at(file, bytes, None);
        self.position.follow(file, append, |end| self.access.ends_at(end)).map(|_| bytes.len())
    }

    /// Has the kernel write bytes over which the position has been moved already.
    fn write_claimed(&self, file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Option<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match retry_on_intr(|| pwrite(file, &bytes[written..], offset + written as u64)) {
                Ok(0) | Err(_) => break,
                Ok(more) => written += more,
            }
        }
        if written < bytes.len() {
            self.position.move_back(file, offset + bytes.len() as u64, offset + written as u64);
        }
        // If there is nothing, write(2) says why.
        (written > 0).then_some(written)
    }
}

fn retry_on_intr<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
