//! What is known of pages that the host could not provide.
//!
//! An access to such a page of a mapping raises SIGBUS: the file has been cut, its file system has no room for a page
//! that is stored to for the first time, its device failed, or the memory did. The handler in [`crate::guard`] notes the
//! page here and puts an empty one in its place, so that the access ends; it is up to those who made it to ask here
//! afterwards, and to believe nothing of it.
//!
//! Why asking afterwards is enough: the page is noted before it is replaced. Whoever has read from or stored to an empty
//! page, in this thread or in another, therefore finds it noted if he asks after that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use zerocopy::AllocError;

use crate::page_set::PageSet;

/// Why the host could not provide a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file has only this many bytes left.
    Truncated { found: u64 },
    /// The host's file system is full.
    NoRoom,
    /// The memory that held it failed.
    Memory,
    /// Something else: its device, most likely.
    Unknown,
}

/// The lost pages of a medium.
#[derive(Debug)]
pub(crate) struct Losses {
    any: AtomicBool,
    memory_failed: AtomicBool,
    pages: PageSet,
    /// Found out once, so that everybody is told the same.
    fault: OnceLock<Fault>,
}

impl Losses {
    /// None yet, of a mapping of this size.
    pub(crate) fn new(mapped: u64) -> Result<Self, AllocError> {
        Ok(Self {
            any: AtomicBool::new(false),
            memory_failed: AtomicBool::new(false),
            pages: PageSet::new(mapped)?,
            fault: OnceLock::new(),
        })
    }

    /// Notes that bytes are lost. May be called by a signal handler: it only changes atomic numbers.
    pub(crate) fn note(&self, at: u64, size: u64, memory_failed: bool) {
        if memory_failed {
            self.memory_failed.store(true, Ordering::Relaxed);
        }
        self.pages.insert(at, size);
        self.any.store(true, Ordering::Release);
    }

    /// Whether anything is lost that the caller has accessed before.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // The accesses before must not be made after the question.
        fence(Ordering::Acquire);
        self.any.load(Ordering::Acquire)
    }

    /// Whether any of these bytes is lost. [`Losses::any`] has been asked before.
    pub(crate) fn meets(&self, at: u64, size: u64) -> bool {
        self.pages.meets(at, size)
    }

    /// The fault; found out by `look` the first time.
    pub(crate) fn fault(&self, look: impl FnOnce() -> Fault) -> Fault {
        *self.fault.get_or_init(|| {
            let fault = if self.memory_failed.load(Ordering::Relaxed) { Fault::Memory } else { look() };
            if let Fault::Truncated { found } = fault {
                // The rest of its last page reads as zeroes, without a signal.
                self.pages.insert(found, 1);
            }
            fault
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_failed_is_told_from_the_rest() {
        let losses = Losses::new(1 << 20).unwrap();
        losses.note(8192, 4096, false);
        assert_eq!(losses.fault(|| Fault::NoRoom), Fault::NoRoom);
        let losses = Losses::new(1 << 20).unwrap();
        losses.note(8192, 4096, true);
        assert_eq!(losses.fault(|| Fault::NoRoom), Fault::Memory);
        assert!(losses.any() && losses.meets(9000, 1) && !losses.meets(0, 8192));
    }
}
