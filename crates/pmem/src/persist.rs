//! Making a program's own stores durable, in a mapping of the medium that it has.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::domain::Domain;
use crate::flush::{self, WriteBack};

/// The cheapest instructions that make stores durable in a domain.
///
/// In libpmem2's terms: `flush` is its flush, `drain` its drain, `persist` both.
#[derive(Clone, Copy, Debug)]
pub struct Persist {
    way: Option<WriteBack>,
    fences: bool,
}

impl Persist {
    /// For a domain. `None` if this processor has no instruction for it, or only a system call does it.
    pub fn new(domain: Domain) -> Option<Self> {
        match domain {
            Domain::CpuCache => Some(Self { way: None, fences: true }),
            Domain::MemoryController => Some(Self { way: Some(WriteBack::best()?), fences: true }),
            Domain::Volatile => Some(Self { way: None, fences: false }),
            Domain::Page => None,
        }
    }

    /// Starts the way of stored bytes to the medium. They have arrived after the next [`Self::drain`].
    ///
    /// # Safety
    /// The bytes are mapped, and stay mapped until this returns.
    pub unsafe fn flush(&self, start: *const u8, size: usize) {
        if let Some(way) = self.way {
            // SAFETY: the caller's promise; a `WriteBack` comes from `WriteBack::best`, so the processor has it.
            unsafe { way.lines(start, size) }
        }
    }

    /// Waits until what was flushed is durable.
    pub fn drain(&self) {
        if self.fences {
            flush::fence();
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Makes stored bytes durable.
    ///
    /// # Safety
    /// As for [`Self::flush`].
    pub unsafe fn persist(&self, start: *const u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.flush(start, size) };
        self.drain();
    }
}
