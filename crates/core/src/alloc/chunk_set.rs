//! A set of chunk numbers that finds its next member in a few steps, however many chunks the volume has.
//!
//! A tree of bitmaps, 64 ways wide: a bit of level `n + 1` is set if the word of level `n` under it is not zero.
//! One bit for each chunk and 1/63 on top, so twenty sets for 1 TiB take little more than 1 MiB.

/// A set of numbers below a fixed limit.
#[derive(Clone, Debug)]
pub(super) struct ChunkSet {
    /// Level 0 holds the members; the last level is a single word.
    levels: Vec<Box<[u64]>>,
    limit: usize,
}

impl ChunkSet {
    /// The empty set of numbers below `limit`.
    pub(super) fn new(limit: usize) -> Self {
        let mut levels = Vec::new();
        let mut words = limit.div_ceil(64).max(1);
        loop {
            levels.push(vec![0; words].into_boxed_slice());
            if words == 1 {
                return Self { levels, limit };
            }
            words = words.div_ceil(64);
        }
    }

    pub(super) fn insert(&mut self, member: usize) {
        debug_assert!(member < self.limit);
        let mut at = member;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let was_empty = *word == 0;
            *word |= 1 << (at % 64);
            if !was_empty {
                return;
            }
            at /= 64;
        }
    }

    pub(super) fn remove(&mut self, member: usize) {
        debug_assert!(member < self.limit);
        let mut at = member;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, member: usize) -> bool {
        self.levels[0][member / 64] >> (member % 64) & 1 == 1
    }

    /// The smallest member that is not below `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let members = level.get(at / 64)? & (u64::MAX << (at % 64));
            if members != 0 {
                return Some(self.descend(height, at / 64 * 64 + members.trailing_zeros() as usize));
            }
            at = at / 64 + 1;
        }
        None
    }

    /// The smallest member under bit `at` of level `height`, which is set.
    fn descend(&self, height: usize, mut at: usize) -> usize {
        for level in self.levels[..height].iter().rev() {
            at = at * 64 + level[at].trailing_zeros() as usize;
        }
        at
    }

    /// How many numbers in a row from `start` on are members, counting no further than `max`.
    pub(super) fn run_from(&self, start: usize, max: usize) -> usize {
        let mut len = 0;
        while len < max {
            let at = start + len;
            let Some(word) = self.levels[0].get(at / 64) else { break };
            let ones = (word >> (at % 64)).trailing_ones() as usize;
            len += ones;
            if ones < 64 - at % 64 {
                break;
            }
        }
        len.min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(
            limit in prop_oneof![1..200_usize, 4000..5000_usize, 262_000..263_000_usize],
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..80_usize, any::<bool>()), 1..30),
            probes in prop::collection::vec(any::<prop::sample::Index>(), 20),
        ) {
            let mut set = ChunkSet::new(limit);
            let mut model = BTreeSet::new();
            for (start, len, insert) in changes {
                let start = start.index(limit);
                for member in start..(start + len).min(limit) {
                    if insert {
                        set.insert(member);
                        model.insert(member);
                    } else {
                        set.remove(member);
                        model.remove(&member);
                    }
                }
            }
            for probe in probes {
                let probe = probe.index(limit + 70);
                prop_assert_eq!(set.next(probe), model.range(probe..).next().copied());
                let run = (probe..=limit).take_while(|member| model.contains(member)).count();
                prop_assert_eq!(set.run_from(probe, usize::MAX), run);
                prop_assert_eq!(set.run_from(probe, 7), run.min(7));
            }
            prop_assert!((0..limit).all(|member| set.contains(member) == model.contains(&member)));
        }
    }
}
