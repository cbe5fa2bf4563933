//! Sets of pages of a medium: a bit for each, in memory that costs what is used of it.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{AllocError, FromZeros};

use crate::evidence::PAGE_SIZE;

/// A set of pages of the medium. Whoever uses the same pages from several threads does so under locks, or with fences,
/// which also order what they see of the set; so its atomics are none that a scheduler of tests decides about.
#[derive(Debug)]
pub(crate) struct PageSet {
    words: Box<[AtomicU64]>,
}

impl PageSet {
    pub(crate) fn new(medium_size: u64) -> Result<Self, AllocError> {
        let words = medium_size.div_ceil(PAGE_SIZE).div_ceil(u64::from(u64::BITS));
        // Memory that is zero because it was never touched: a large medium costs what is used of it.
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(words as usize)?;
        Ok(Self { words })
    }

    /// Adds the pages that hold these bytes.
    #[inline]
    pub(crate) fn insert(&self, at: u64, size: u64) {
        for (word, bits) in self.bits(at, size) {
            // Most changes hit a page that has a copy already: no need to fight over the cache line.
            if word.load(Ordering::Relaxed) & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Removes the pages that hold these bytes.
    pub(crate) fn remove(&self, at: u64, size: u64) {
        for (word, bits) in self.bits(at, size) {
            word.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    /// Whether any page that holds one of these bytes is in the set.
    #[inline]
    pub(crate) fn meets(&self, at: u64, size: u64) -> bool {
        self.bits(at, size).any(|(word, bits)| word.load(Ordering::Relaxed) & bits != 0)
    }

    /// The words that hold the pages of these bytes, and which of their bits do.
    #[inline]
    fn bits(&self, at: u64, size: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        const BITS: u64 = u64::BITS as u64;
        let (first, end) = if size == 0 { (0, 0) } else { (at / PAGE_SIZE, (at + size).div_ceil(PAGE_SIZE)) };
        (first / BITS..end.div_ceil(BITS)).map(move |word| {
            let from = first.max(word * BITS) - word * BITS;
            let to = end.min((word + 1) * BITS) - word * BITS;
            (&self.words[word as usize], u64::MAX >> (BITS - (to - from)) << from)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_set_holds_the_pages_of_the_bytes() {
        let set = PageSet::new(100 * PAGE_SIZE + 1).unwrap();
        set.insert(PAGE_SIZE - 1, 2);
        set.insert(63 * PAGE_SIZE, 2 * PAGE_SIZE);
        set.insert(100 * PAGE_SIZE, 1);
        set.insert(50 * PAGE_SIZE, 0);
        set.remove(PAGE_SIZE, 1);
        set.insert(70 * PAGE_SIZE, 20 * PAGE_SIZE);
        set.remove(71 * PAGE_SIZE, 18 * PAGE_SIZE);
        let pages: Vec<u64> = (0..101).filter(|page| set.meets(page * PAGE_SIZE, 1)).collect();
        assert_eq!(pages, [0, 63, 64, 70, 89, 100]);
        set.insert(0, 101 * PAGE_SIZE);
        assert!((0..101).all(|page| set.meets(page * PAGE_SIZE, 1)));
        set.remove(PAGE_SIZE, 62 * PAGE_SIZE);
        assert!(set.meets(2 * PAGE_SIZE, 61 * PAGE_SIZE + 1) && !set.meets(2 * PAGE_SIZE, 61 * PAGE_SIZE));
    }
}
