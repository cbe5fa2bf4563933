//! How much memory the engine takes: an allocator that counts, and the bound that holds for any image.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that may be taken whatever the size of the volume.
pub const BOUND: u64 = 2 << 20;
/// Bytes that may be taken besides for each byte of the volume.
pub const BOUND_FACTOR: u64 = 1;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of what each thread has taken. Where it is not the program's allocator nothing
/// is counted, and everything is within bounds.
///
/// The mapping of the volume and private copies of its pages are not allocated, and not counted: they are at most twice
/// the size of the volume.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

// SAFETY: every request is passed on to the system's allocator as it is, and what that returns is passed back. Counting
// touches only cells of the thread, which need neither memory from the heap nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed() as i64);
        // SAFETY: the caller promises what the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size().cast_signed() as i64));
        // SAFETY: the caller promises what the system's allocator wants, which is where the pointer is from.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: i64) {
    let now = NOW.get() + bytes;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

/// Does something with a volume of `size` bytes.
///
/// # Panics
/// If this thread has taken more memory for it than any volume of this size may need.
pub fn bounded<T>(size: u64, work: impl FnOnce() -> T) -> T {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    let taken = (PEAK.get() - before).unsigned_abs();
    let bound = BOUND + BOUND_FACTOR * size;
    assert!(taken <= bound, "{taken} bytes of memory for a volume of {size} bytes, more than {bound}");
    result
}
