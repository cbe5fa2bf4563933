//! Where does an open file stand, and who moves it?
//!
//! The position of an open file is the kernel's, and others move it without this library: signal handlers, the C library's own streams,
//! raw system calls, `io_uring`, other processes. So the library never reads the position, copies bytes, and then sets the position. The
//! library *claims* a range: one `lseek(SEEK_CUR, size)` moves the position over the range, and says which range that was. From then on the
//! range is nobody else's to read or write at the position.
//!
//! - A claim comes when its size is known: after a read of the bytes at the presumed position (which are read once more if the range turns
//!   out to be another one), and before a write of which it is known that it can be done.
//! - Where a claim was too large (the file ends there, the volume is full), the position is moved back, unless somebody has moved it
//!   since. Then a hole stays, rather than that anything acknowledged is replaced.
//! - An append does not depend on the position, and moves it to where its bytes end, but never back over the append of somebody else.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lodefs_direct::enter;
use rustix::fs::{SeekFrom, seek};

/// The position is not known.
const UNKNOWN: u64 = u64::MAX;

/// The position of an open file, which several descriptors may be.
pub(crate) struct Position {
    /// Where the kernel was last seen to have it.
    presumed: AtomicU64,
    /// Other processes may move it.
    is_shared: AtomicBool,
    /// Somebody appends.
    appending: Mutex<()>,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            presumed: AtomicU64::new(UNKNOWN),
            is_shared: AtomicBool::new(false),
            appending: Mutex::default(),
        }
    }
}

/// Over which range the position was moved.
pub(crate) enum Claim {
    /// Over the one that was presumed.
    Presumed,
    /// Over another one, which begins here.
    Elsewhere(u64),
}

impl Position {
    /// Where it is, most likely.
    pub(crate) fn presumed(&self, file: BorrowedFd<'_>) -> Option<u64> {
        match self.presumed.load(Ordering::Relaxed) {
            UNKNOWN => self.ask(file),
            presumed => Some(presumed),
        }
    }

    /// Where the kernel has it now.
    pub(crate) fn ask(&self, file: BorrowedFd<'_>) -> Option<u64> {
        let position = seek(file, SeekFrom::Current(0)).ok()?;
        self.note(position);
        Some(position)
    }

    /// The kernel was seen to have it there.
    pub(crate) fn note(&self, position: u64) {
        self.presumed.store(position, Ordering::Relaxed);
    }

    /// Somebody may have moved it.
    pub(crate) fn forget(&self) {
        self.presumed.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Moves it over so many bytes, which begin at `presumed`, most likely.
    pub(crate) fn claim(&self, file: BorrowedFd<'_>, presumed: u64, size: usize) -> Option<Claim> {
        let end = seek(file, SeekFrom::Current(i64::try_from(size).ok()?)).ok()?;
        self.note(end);
        let start = end - size as u64;
        Some(if start == presumed { Claim::Presumed } else { Claim::Elsewhere(start) })
    }

    /// Moves it from `from` back to `to`, unless it is not there any more.
    pub(crate) fn move_back(&self, file: BorrowedFd<'_>, from: u64, to: u64) {
        // Without signals: a handler may move it too.
        let _inside = enter();
        if self.ask(file) == Some(from) && seek(file, SeekFrom::Start(to)).is_ok() {
            self.note(to);
        }
    }

    /// Appends, and moves it to where that ends. `None` if it was not appended. `is_last`: whether nothing was appended after what ends there.
    pub(crate) fn follow(
        &self,
        file: BorrowedFd<'_>,
        append: impl FnOnce() -> Option<u64>,
        is_last: impl FnOnce(u64) -> bool,
    ) -> Option<u64> {
        // A child finds the lock as some other thread had it, but never takes it: it shares the file.
        let _alone = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.presumed(file)?;
        let end = append()?;
        // It has been written: whatever becomes of the position, no error is to be told.
        let Ok(distance) = i64::try_from(i128::from(end) - i128::from(before)) else { return Some(end) };
        let found = seek(file, SeekFrom::Current(distance)).ok();
        if found != Some(end) {
            // Somebody has moved it: before, or by an append that came after.
            let actual = found.and_then(|found| found.checked_add_signed(-distance)).unwrap_or(0);
            let place = if actual > end && !is_last(end) { actual } else { end };
            let _moved = seek(file, SeekFrom::Start(place));
            self.note(place);
            return Some(end);
        }
        self.note(end);
        Some(end)
    }

    /// Whether other processes may move it.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::SeqCst)
    }

    /// Leaves it to the kernel for good; with `waits`, when nobody is about to append any more.
    pub(crate) fn share(&self, waits: bool) {
        self.is_shared.store(true, Ordering::SeqCst);
        if waits {
            drop(self.appending.lock());
        }
    }
}
