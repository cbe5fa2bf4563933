//! Any other processor: stores that the compiler keeps, and no write-back, so that nothing durable is claimed.

use std::sync::atomic::{Ordering, fence as memory_fence};

/// How a cache line is written back: there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, allow(dead_code))]
pub(crate) enum WriteBack {}

#[cfg_attr(test, allow(dead_code))]
impl WriteBack {
    /// None.
    pub(super) const ALL: &[Self] = &[];

    /// Never asked.
    pub(super) fn is_supported(self) -> bool {
        match self {}
    }

    /// Never asked.
    pub(super) fn ruled_out_by(self) -> Option<&'static str> {
        match self {}
    }

    /// Never called.
    ///
    /// # Safety
    /// There is nothing to promise.
    pub(crate) unsafe fn lines(self, _start: *const u8, _size: usize) {
        match self {}
    }
}

/// Orders stores for other processors.
pub(crate) fn fence() {
    memory_fence(Ordering::SeqCst);
}

/// Copies `size` bytes with stores that are not left out or repeated.
///
/// # Safety
/// `from` is readable and `to` writable for `size` bytes, and they do not overlap.
pub(crate) unsafe fn stream(to: *mut u8, from: *const u8, size: usize) {
    for offset in 0..size {
        // SAFETY: the byte lies within the `size` bytes that the caller vouches for.
        unsafe { to.add(offset).write_volatile(from.add(offset).read()) }
    }
}

/// Zeroes `size` bytes with stores that are not left out or repeated.
///
/// # Safety
/// `to` is writable for `size` bytes.
pub(crate) unsafe fn stream_zeroes(to: *mut u8, size: usize) {
    for offset in 0..size {
        // SAFETY: the byte lies within the `size` bytes that the caller vouches for.
        unsafe { to.add(offset).write_volatile(0) }
    }
}
