//! x86-64: `movnti`/`movntdq`, `clwb` or its older relatives, `sfence`.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, __m128i, _mm_setzero_si128};
use std::ops::Range;

use super::STREAM_SIZE_MIN;

const LINE: usize = 64;
/// Bytes that one `movnti` stores.
const UNIT: usize = STREAM_SIZE_MIN;

/// How a cache line is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// Writes back and may keep the line.
    Clwb,
    /// Writes back and drops the line.
    ClflushOpt,
    /// The same, and each waits for the one before it.
    Clflush,
}

impl WriteBack {
    /// All ways, best first.
    pub(super) const ALL: &[Self] = &[Self::Clwb, Self::ClflushOpt, Self::Clflush];

    /// Whether this processor has the instruction.
    pub(super) fn is_supported(self) -> bool {
        let extended = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        match self {
            Self::Clwb => extended & (1 << 24) != 0,
            Self::ClflushOpt => extended & (1 << 23) != 0,
            Self::Clflush => __cpuid(1).edx & (1 << 19) != 0,
        }
    }

    /// The environment variable of libpmem that rules it out, if there is one.
    pub(super) fn ruled_out_by(self) -> Option<&'static str> {
        match self {
            Self::Clwb => Some("PMEM_NO_CLWB"),
            Self::ClflushOpt => Some("PMEM_NO_CLFLUSHOPT"),
            Self::Clflush => None,
        }
    }

    /// Starts the write-back of every line that holds a byte of the given ones.
    ///
    /// # Safety
    /// The processor has the instruction, and `start..start + size` is mapped.
    #[inline]
    pub(crate) unsafe fn lines(self, start: *const u8, size: usize) {
        let ahead = start.addr() % LINE;
        let first = start.wrapping_sub(ahead);
        for offset in (0..if size == 0 { 0 } else { size + ahead }).step_by(LINE) {
            let line = first.wrapping_add(offset);
            // SAFETY: by the caller's promise the instruction exists and the line is mapped: it holds a byte of the
            // given range, and lines do not cross pages. Without `nomem`, stores cannot be moved past it.
            unsafe {
                match self {
                    Self::Clwb => asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)),
                    Self::ClflushOpt => {
                        asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
                    }
                    Self::Clflush => asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)),
                }
            }
        }
    }
}

/// Waits until what this thread has streamed and written back has left for the medium.
#[inline]
pub(crate) fn fence() {
    // SAFETY: `sfence` is part of every x86-64 processor. Without `nomem`, nothing is moved past it.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) }
}

/// Copies `size` bytes past the caches.
///
/// Lines go out with four 16-byte stores: measured against 32- and 64-byte ones (AVX, AVX-512) a 4 KiB copy with its
/// fence takes the same time, since it waits for memory; so nothing is chosen at run time. What does not fill a
/// line goes out before them, in units that may overlap a line: after it, the line would be sent twice.
///
/// # Safety
/// `from` is readable and `to` writable for `size` bytes, at least [`STREAM_SIZE_MIN`], and they do not overlap.
#[inline]
pub(crate) unsafe fn stream(to: *mut u8, from: *const u8, size: usize) {
    let lines = whole_lines(to, size);
    // SAFETY: every offset is that of a unit or of a line within the `size` bytes that the caller vouches for; lines
    // are where lines of memory are.
    unsafe {
        for offset in units(0..lines.start).chain(units(lines.end..size)) {
            stream_unit(to.add(offset), from.add(offset).cast::<u64>().read_unaligned());
        }
        for offset in lines.step_by(LINE) {
            stream_line(to.add(offset), from.add(offset).cast::<[__m128i; 4]>().read_unaligned());
        }
    }
}

/// Zeroes `size` bytes past the caches.
///
/// # Safety
/// `to` is writable for `size` bytes, at least [`STREAM_SIZE_MIN`].
#[inline]
pub(crate) unsafe fn stream_zeroes(to: *mut u8, size: usize) {
    let lines = whole_lines(to, size);
    // SAFETY: as in `stream`.
    unsafe {
        for offset in units(0..lines.start).chain(units(lines.end..size)) {
            stream_unit(to.add(offset), 0);
        }
        for offset in lines.step_by(LINE) {
            stream_line(to.add(offset), [_mm_setzero_si128(); 4]);
        }
    }
}

/// Which of `size` bytes at `to` fill lines.
#[inline]
fn whole_lines(to: *mut u8, size: usize) -> Range<usize> {
    let first = (to.addr().wrapping_neg() % LINE).min(size);
    first..first + (size - first) / LINE * LINE
}

/// Offsets of units that cover a range. The last may overlap what is before it; if the range is shorter than a unit
/// at the start, the only one overlaps what is behind it.
#[inline]
fn units(range: Range<usize>) -> impl Iterator<Item = usize> {
    let last = range.end.max(UNIT) - UNIT;
    range.step_by(UNIT).map(move |offset| offset.min(last))
}

/// # Safety
/// `to` is writable for 64 bytes and a multiple of 16.
#[inline]
unsafe fn stream_line(to: *mut u8, [a, b, c, d]: [__m128i; 4]) {
    // SAFETY: the caller vouches for the 64 bytes and the alignment that `movntdq` needs; SSE2 is part of x86-64.
    unsafe {
        asm!(
            "movntdq [{to}], {a}",
            "movntdq [{to} + 16], {b}",
            "movntdq [{to} + 32], {c}",
            "movntdq [{to} + 48], {d}",
            to = in(reg) to, a = in(xmm_reg) a, b = in(xmm_reg) b, c = in(xmm_reg) c, d = in(xmm_reg) d,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
/// `to` is writable for 8 bytes; it needs no alignment.
#[inline]
unsafe fn stream_unit(to: *mut u8, unit: u64) {
    // SAFETY: by the caller's promise.
    unsafe { asm!("movnti [{}], {}", in(reg) to, in(reg) unit, options(nostack, preserves_flags)) }
}
