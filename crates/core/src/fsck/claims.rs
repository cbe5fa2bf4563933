//! Which blocks have an owner, and which have more than one.
//!
//! Two bits for each block of the volume. Marking blocks that many claim already costs next to nothing, so an image
//! on which every file claims every block takes no longer than one on which each has its own.

use crate::alloc::{Builder, Run};

/// Blocks in one word of bits.
const WORD: u64 = 64;

/// Blocks of a run that had an owner before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// From the first to the last of them.
    pub(super) span: Run,
    /// How many they are.
    pub(super) count: u64,
}

impl Taken {
    fn add(taken: &mut Option<Self>, first: u64, last: u64, count: u64) {
        let start = taken.map_or(first, |taken| taken.span.start);
        let before = taken.map_or(0, |taken| taken.count);
        *taken = Some(Self { span: Run { start, blocks: last + 1 - start }, count: before + count });
    }
}

/// A set of blocks of a volume.
#[derive(Clone, Debug)]
pub(super) struct BlockSet {
    words: Vec<u64>,
    total_blocks: u64,
}

impl BlockSet {
    /// The empty set.
    pub(super) fn new(total_blocks: u64) -> Self {
        Self { words: vec![0; total_blocks.div_ceil(WORD) as usize], total_blocks }
    }

    /// Blocks of the volume.
    pub(super) fn total_blocks(&self) -> u64 {
        self.total_blocks
    }

    /// Adds a block of the volume; `false` if it was there.
    pub(super) fn insert(&mut self, block: u64) -> bool {
        let (word, bit) = (&mut self.words[(block / WORD) as usize], 1 << (block % WORD));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether it holds this block, or the block lies beyond the end of the volume.
    pub(super) fn contains(&self, block: u64) -> bool {
        self.words.get((block / WORD) as usize).is_none_or(|word| word >> (block % WORD) & 1 == 1)
    }

    /// Whether it holds any block of `run`.
    pub(super) fn contains_any(&self, run: Run) -> bool {
        words_of(run.start, run.end().min(self.total_blocks)).any(|(word, mask)| self.words[word] & mask != 0)
    }

    /// A bit for each block, least significant first.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds what has its bit set in `words`.
    pub(super) fn add_words(&mut self, words: &[u64]) {
        for (own, others) in self.words.iter_mut().zip(words) {
            *own |= others;
        }
    }

    /// An allocator in the making in which exactly these blocks are in use.
    pub(super) fn builder(&self) -> Builder {
        let words = self.words.iter().copied();
        Builder::from_words(self.total_blocks, words).expect("there is a word for every 64 blocks")
    }
}

/// The claims on the blocks of a volume.
pub(super) struct Claims {
    /// Blocks with an owner.
    pub(super) used: BlockSet,
    shared: Vec<u64>,
    /// A bit for each word of `shared` whose bits are all set.
    saturated: Vec<u64>,
}

impl Claims {
    /// Nobody owns anything yet.
    pub(super) fn new(total_blocks: u64) -> Self {
        let used = BlockSet::new(total_blocks);
        let words = used.words.len();
        Self { used, shared: vec![0; words], saturated: vec![0; words.div_ceil(WORD as usize)] }
    }

    /// Gives the blocks of `run`, which lies within the volume, to an owner. Says which of them had one.
    pub(super) fn take(&mut self, run: Run) -> Option<Taken> {
        let end = run.end().min(self.used.total_blocks);
        let mut taken = None;
        let mut block = run.start;
        while block < end {
            let word = (block / WORD) as usize;
            if block.is_multiple_of(WORD * WORD) && self.saturated[word / 64] == u64::MAX {
                let next = (block + WORD * WORD).min(end);
                Taken::add(&mut taken, block, next - 1, next - block);
                block = next;
                continue;
            }
            let next = ((block / WORD + 1) * WORD).min(end);
            let mask = mask_of(block, next);
            let overlap = self.used.words[word] & mask;
            if overlap != 0 {
                self.share(word, overlap);
                let base = block / WORD * WORD;
                let first = base + u64::from(overlap.trailing_zeros());
                let last = base + 63 - u64::from(overlap.leading_zeros());
                Taken::add(&mut taken, first, last, u64::from(overlap.count_ones()));
            }
            self.used.words[word] |= mask;
            block = next;
        }
        taken
    }

    /// Gives one block to an owner; `false` if it had one.
    pub(super) fn take_block(&mut self, block: u64) -> bool {
        self.take(Run { start: block, blocks: 1 }).is_none()
    }

    fn share(&mut self, word: usize, bits: u64) {
        self.shared[word] |= bits;
        if self.shared[word] == u64::MAX {
            self.saturated[word / 64] |= 1 << (word % 64);
        }
    }
}

/// The bits from `block` to `next`, which lie in one word.
fn mask_of(block: u64, next: u64) -> u64 {
    let len = next - block;
    (u64::MAX >> (WORD - len)) << (block % WORD)
}

fn words_of(mut block: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    std::iter::from_fn(move || {
        if block >= end {
            return None;
        }
        let next = ((block / WORD + 1) * WORD).min(end);
        let item = ((block / WORD) as usize, mask_of(block, next));
        block = next;
        Some(item)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claims_are_what_counting_finds(
            runs in prop::collection::vec((0..9000_u64, 1..9000_u64), 1..12),
            total in 1..9000_u64,
        ) {
            let mut claims = Claims::new(total);
            let mut model = vec![false; total as usize];
            for (start, blocks) in runs {
                let start = start % total;
                let blocks = blocks.min(total - start);
                let range = start as usize..(start + blocks) as usize;
                let overlap: Vec<u64> = range.clone().filter(|b| model[*b]).map(|b| b as u64).collect();
                let expected = overlap.first().map(|first| Taken {
                    span: Run { start: *first, blocks: overlap.last().unwrap() + 1 - first },
                    count: overlap.len() as u64,
                });
                prop_assert_eq!(claims.used.contains_any(Run { start, blocks }), expected.is_some());
                prop_assert_eq!(claims.take(Run { start, blocks }), expected);
                model[range].fill(true);
            }
            for (block, used) in model.iter().enumerate() {
                prop_assert_eq!(claims.used.contains(block as u64), *used);
            }
        }
    }

    #[test]
    fn what_is_claimed_by_many_is_still_counted() {
        let total = 64 * 64 * 3 + 17;
        let all = Run { start: 0, blocks: total };
        let mut claims = Claims::new(total);
        assert_eq!(claims.take(all), None);
        for _ in 0..3 {
            assert_eq!(claims.take(all), Some(Taken { span: all, count: total }));
        }
    }
}
