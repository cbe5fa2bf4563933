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
        for (word, bit) in self.bits(at, size) {
            // Most changes hit a page that has a copy already: no need to fight over the cache line.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Removes the pages that hold these bytes.
    pub(crate) fn remove(&self, at: u64, size: u64) {
        for (word, bit) in self.bits(at, size) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Whether any page that holds one of these bytes is in the set.
    #[inline]
    pub(crate) fn meets(&self, at: u64, size: u64) -> bool {
        self.bits(at, size).any(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    #[inline]
    fn bits(&self, at: u64, size: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let pages = if size == 0 { 0..0 } else { at / PAGE_SIZE..(at + size).div_ceil(PAGE_SIZE) };
        pages.map(|page| {
            (&self.words[(page / u64::from(u64::BITS)) as usize], 1 << (page % u64::from(u64::BITS)))
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
        let pages: Vec<u64> = (0..101).filter(|page| set.meets(page * PAGE_SIZE, 1)).collect();
        assert_eq!(pages, [0, 63, 64, 100]);
        assert!(set.meets(2 * PAGE_SIZE, 61 * PAGE_SIZE + 1) && !set.meets(2 * PAGE_SIZE, 61 * PAGE_SIZE));
    }
}
