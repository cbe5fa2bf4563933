//! AArch64: plain stores, `dc cvap` (clean to the point of persistence), `dsb`.

use std::arch::asm;

/// How a cache line is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// `dc cvap`, of processors with FEAT_DPB.
    CleanToPersistence,
}

impl WriteBack {
    /// All ways, best first.
    pub(super) const ALL: &[Self] = &[Self::CleanToPersistence];

    /// Whether this processor has the instruction.
    pub(super) fn is_supported(self) -> bool {
        std::arch::is_aarch64_feature_detected!("dpb")
    }

    /// libpmem has no environment variable that rules it out.
    pub(super) fn ruled_out_by(self) -> Option<&'static str> {
        let Self::CleanToPersistence = self;
        None
    }

    /// Starts the write-back of every line that holds a byte of the given ones.
    ///
    /// # Safety
    /// The processor has the instruction, and `start..start + size` is mapped.
    #[inline]
    pub(crate) unsafe fn lines(self, start: *const u8, size: usize) {
        // Lines of 64 bytes are the smallest in use; where they are longer some are cleaned twice.
        const LINE: usize = 64;
        let ahead = start.addr() % LINE;
        let first = start.wrapping_sub(ahead);
        for offset in (0..if size == 0 { 0 } else { size + ahead }).step_by(LINE) {
            let line = first.wrapping_add(offset);
            // SAFETY: by the caller's promise the instruction exists (spelt as a system instruction, so that the
            // assembler need not know of it) and the line is mapped: it holds a byte of the given range.
            unsafe { asm!("sys #3, c7, c12, #1, {}", in(reg) line, options(nostack, preserves_flags)) }
        }
    }
}

/// Waits until what this thread has written back has reached the point of persistence.
#[inline]
pub(crate) fn fence() {
    // SAFETY: `dsb` is part of every AArch64 processor. Without `nomem`, nothing is moved past it.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Copies `size` bytes and starts their write-back: there are no streaming stores that a fence would order.
///
/// # Safety
/// `from` is readable and `to` writable for `size` bytes, they do not overlap, and the processor has a
/// [`WriteBack`].
#[inline]
pub(crate) unsafe fn stream(to: *mut u8, from: *const u8, size: usize) {
    // SAFETY: the caller vouches for both ranges and for the instruction.
    unsafe {
        to.copy_from_nonoverlapping(from, size);
        WriteBack::CleanToPersistence.lines(to, size);
    }
}

/// Zeroes `size` bytes and starts their write-back.
///
/// # Safety
/// `to` is writable for `size` bytes, and the processor has a [`WriteBack`].
#[inline]
pub(crate) unsafe fn stream_zeroes(to: *mut u8, size: usize) {
    // SAFETY: the caller vouches for the range and for the instruction.
    unsafe {
        to.write_bytes(0, size);
        WriteBack::CleanToPersistence.lines(to, size);
    }
}
