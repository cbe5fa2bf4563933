//! Eight bytes of mapped memory that more than one process changes, each time as a whole.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Such a word. A crash leaves any of the numbers that it has had since it was last flushed and fenced, never parts of two.
#[derive(Clone, Copy, Debug)]
pub struct Word<'m>(&'m AtomicU64);

impl Word<'_> {
    /// Its size, and what its address is a multiple of.
    pub const SIZE: usize = size_of::<u64>();

    /// The word at an address.
    ///
    /// # Safety
    /// For `'m`, eight bytes are mapped there, readable and, to change them, writable; they are no Rust value's; the address is a
    /// multiple of eight; and all who change them meanwhile do it by this type, or by something that stores eight bytes as a whole.
    pub unsafe fn at(start: NonNull<u8>) -> Self {
        debug_assert!(start.addr().get().is_multiple_of(Self::SIZE));
        // SAFETY: by the caller's promise. An atomic number is not assumed to stay as it is.
        Self(unsafe { AtomicU64::from_ptr(start.as_ptr().cast()) })
    }

    /// The number that is there. What was stored before it by whoever set it is seen after this.
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets bits of it. Gives the number that was there before.
    pub fn set_bits(self, bits: u64) -> u64 {
        self.0.fetch_or(bits, Ordering::AcqRel)
    }

    /// Makes it `new` if it is `old`; whether it was.
    pub fn replace(self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_replaced() {
        let mut memory = 5u64;
        // SAFETY: it is there, and not used otherwise meanwhile.
        let word = unsafe { Word::at(NonNull::from(&mut memory).cast()) };
        assert!(word.replace(5, 6) && !word.replace(5, 7));
        assert_eq!((word.set_bits(1 << 63), word.get()), (6, 1 << 63 | 6));
        assert!(!word.replace(6, 7));
    }
}
