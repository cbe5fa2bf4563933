//! The 512 bits of one chunk: which of its blocks are in use.
//!
//! A set bit is a block in use. Positions count blocks from the start of the chunk; a range never reaches
//! beyond position [`CHUNK`].

use lodefs_layout::CHUNK_BLOCKS;

/// Blocks in a chunk, as an index.
pub(super) const CHUNK: usize = CHUNK_BLOCKS as usize;
/// Words of 64 bits in a chunk.
pub(super) const WORDS: usize = CHUNK / 64;

/// One chunk, in a cache line of its own.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct ChunkBits([u64; WORDS]);

const _: () = assert!(size_of::<ChunkBits>() == 64);

/// A run of free blocks within a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FreeRun {
    pub(super) start: usize,
    pub(super) len: usize,
}

impl ChunkBits {
    pub(super) const FREE: Self = Self([0; WORDS]);
    #[cfg(test)]
    pub(super) const USED: Self = Self([u64::MAX; WORDS]);

    pub(super) fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    pub(super) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(super) fn is_used(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, start: usize, len: usize) {
        for (word, mask) in masks(start, len) {
            self.0[word] |= mask;
        }
    }

    pub(super) fn clear(&mut self, start: usize, len: usize) {
        for (word, mask) in masks(start, len) {
            self.0[word] &= !mask;
        }
    }

    pub(super) fn all_used(&self, start: usize, len: usize) -> bool {
        masks(start, len).all(|(word, mask)| self.0[word] & mask == mask)
    }

    pub(super) fn all_free(&self, start: usize, len: usize) -> bool {
        masks(start, len).all(|(word, mask)| self.0[word] & mask == 0)
    }

    pub(super) fn count_free(&self) -> usize {
        self.0.iter().map(|word| word.count_zeros() as usize).sum()
    }

    /// How many blocks from `start` on are free, up to the end of the chunk.
    pub(super) fn free_from(&self, start: usize) -> usize {
        self.next(start, true) - start
    }

    /// The same, but counts no further than `max`, of which there are at least 1 in the chunk. In the common case,
    /// a file that grows by a block, this looks at a single word.
    pub(super) fn free_from_up_to(&self, start: usize, max: usize) -> usize {
        if max == 1 { usize::from(!self.is_used(start)) } else { self.free_from(start).min(max) }
    }

    /// How many blocks right before `end` are free, down to the start of the chunk.
    pub(super) fn free_before(&self, end: usize) -> usize {
        let mut at = end;
        while at > 0 {
            let bits_below = (at - 1) % 64 + 1;
            let below = self.0[(at - 1) / 64] << (64 - bits_below);
            let free = (below.leading_zeros() as usize).min(bits_below);
            at -= free;
            if free < bits_below {
                break;
            }
        }
        end - at
    }

    /// The runs of free blocks, in order.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = FreeRun> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, false);
            if start == CHUNK {
                return None;
            }
            at = self.next(start, true);
            Some(FreeRun { start, len: at - start })
        })
    }

    /// The first position from `at` on whose block is in use (or is free), or the end of the chunk.
    fn next(&self, at: usize, used: bool) -> usize {
        let flip = if used { 0 } else { u64::MAX };
        let mut word = at / 64;
        if word >= WORDS {
            return CHUNK;
        }
        let mut candidates = (self.0[word] ^ flip) & (u64::MAX << (at % 64));
        while candidates == 0 {
            word += 1;
            if word == WORDS {
                return CHUNK;
            }
            candidates = self.0[word] ^ flip;
        }
        word * 64 + candidates.trailing_zeros() as usize
    }
}

/// The words that a range touches, each with the bits of the range in it.
fn masks(start: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = start + len;
    (start / 64..end.div_ceil(64)).map(move |word| {
        let from = start.saturating_sub(word * 64);
        let to = (end - word * 64).min(64);
        (word, (u64::MAX << from) & (u64::MAX >> (64 - to)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = (usize, usize)> {
        (0..CHUNK).prop_flat_map(|start| (Just(start), 1..=CHUNK - start))
    }

    fn bits_of(model: &[bool]) -> ChunkBits {
        let mut bits = ChunkBits::FREE;
        for (at, _) in model.iter().enumerate().filter(|(_, used)| **used) {
            bits.set(at, 1);
        }
        bits
    }

    proptest! {
        #[test]
        fn ranges_change_exactly_their_bits(changes in prop::collection::vec((ranges(), any::<bool>()), 1..20)) {
            let mut bits = ChunkBits::FREE;
            let mut model = [false; CHUNK];
            for ((start, len), used) in changes {
                model[start..start + len].fill(used);
                if used { bits.set(start, len) } else { bits.clear(start, len) }
                let done = if used { bits.all_used(start, len) } else { bits.all_free(start, len) };
                prop_assert!(done);
            }
            for (at, used) in model.iter().enumerate() {
                prop_assert_eq!(bits.is_used(at), *used);
            }
            prop_assert_eq!(bits.count_free(), model.iter().filter(|used| !**used).count());
        }

        #[test]
        fn runs_are_what_counting_finds(lengths in prop::collection::vec(1..90_usize, 1..60), first in any::<bool>()) {
            let mut model = Vec::new();
            let mut used = first;
            for len in lengths {
                model.extend(std::iter::repeat_n(used, len));
                used = !used;
            }
            model.resize(CHUNK, used);
            let bits = bits_of(&model);
            for at in 0..=CHUNK {
                prop_assert_eq!(bits.free_from(at), model[at..].iter().take_while(|used| !**used).count());
                if at < CHUNK {
                    let free = bits.free_from(at);
                    prop_assert_eq!(bits.free_from_up_to(at, 1), free.min(1));
                    prop_assert_eq!(bits.free_from_up_to(at, 70), free.min(70));
                }
                prop_assert_eq!(bits.free_before(at), model[..at].iter().rev().take_while(|used| !**used).count());
            }
            let mut from_runs = vec![true; CHUNK];
            for run in bits.free_runs() {
                prop_assert!(run.start == 0 || model[run.start - 1]);
                from_runs[run.start..run.start + run.len].fill(false);
            }
            prop_assert_eq!(from_runs, model);
        }
    }

    #[test]
    fn a_range_is_neither_free_nor_used_when_it_is_mixed() {
        let mut bits = ChunkBits::FREE;
        bits.set(63, 2);
        assert!(!bits.all_used(63, 3) && !bits.all_free(62, 2));
        assert!(bits.all_used(63, 2) && bits.all_free(65, CHUNK - 65));
        assert!(ChunkBits::USED.all_used(0, CHUNK));
    }
}
