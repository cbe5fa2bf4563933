//! Blocks that were freed but may not be reused yet: a crash could still bring back the inode that owned them.
//!
//! They keep their bits in the bitmap until the checkpoint with their epoch is done, so no search can find them.
//! Invariant: no two deferred runs overlap, and `by_epoch` and `lengths` hold the same runs.

use std::collections::BTreeMap;

use super::Run;

/// The deferred runs, by epoch.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    by_epoch: BTreeMap<u64, Vec<Run>>,
    /// Length of each run by its start, to notice a block that is freed twice.
    lengths: BTreeMap<u64, u64>,
    blocks: u64,
}

impl Deferred {
    /// Blocks in all deferred runs.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether a block of `run` is deferred already.
    pub(super) fn overlaps(&self, run: Run) -> bool {
        let last_before_end = self.lengths.range(..run.end()).next_back();
        last_before_end.is_some_and(|(start, blocks)| start + blocks > run.start)
    }

    /// Adds a run that overlaps none.
    pub(super) fn push(&mut self, run: Run, epoch: u64) {
        debug_assert!(!self.overlaps(run));
        self.by_epoch.entry(epoch).or_default().push(run);
        self.lengths.insert(run.start, run.blocks);
        self.blocks += run.blocks;
    }

    /// Takes out one run whose epoch is not above `up_to_epoch`, the oldest epoch first.
    pub(super) fn pop(&mut self, up_to_epoch: u64) -> Option<Run> {
        let mut oldest = self.by_epoch.first_entry().filter(|entry| *entry.key() <= up_to_epoch)?;
        let run = oldest.get_mut().pop();
        if oldest.get().is_empty() {
            oldest.remove();
        }
        let run = run?;
        self.lengths.remove(&run.start);
        self.blocks -= run.blocks;
        Some(run)
    }

    /// All deferred runs, in order of their start.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.lengths.iter().map(|(&start, &blocks)| Run { start, blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_out_by_epoch_and_overlaps_are_noticed() {
        let mut deferred = Deferred::default();
        deferred.push(Run { start: 10, blocks: 5 }, 3);
        deferred.push(Run { start: 20, blocks: 1 }, 2);
        deferred.push(Run { start: 15, blocks: 5 }, 2);
        assert_eq!(deferred.blocks(), 11);
        for (start, blocks, overlaps) in
            [(0, 10, false), (0, 11, true), (20, 1, true), (21, 9, false), (12, 1, true)]
        {
            assert_eq!(deferred.overlaps(Run { start, blocks }), overlaps, "{start}+{blocks}");
        }
        assert_eq!(deferred.runs().map(|run| run.start).collect::<Vec<_>>(), [10, 15, 20]);
        assert_eq!(deferred.pop(1), None);
        assert_eq!(deferred.pop(2).map(|run| run.start), Some(15));
        assert_eq!(deferred.pop(2).map(|run| run.start), Some(20));
        assert_eq!(deferred.pop(2), None);
        assert!(!deferred.overlaps(Run { start: 15, blocks: 6 }));
        assert_eq!(deferred.pop(u64::MAX), Some(Run { start: 10, blocks: 5 }));
        assert_eq!((deferred.blocks(), deferred.pop(u64::MAX)), (0, None));
    }
}
