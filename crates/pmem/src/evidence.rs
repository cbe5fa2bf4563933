//! Evidence of persistence: values that exist only because a step was made.
//!
//! stored and flushed ([`Flushed`]) -> ordered ([`Ordered`]) -> surviving a power failure ([`Durable`]). A function
//! that must come after a step asks for its evidence. All constructors are private to the crate.

use std::marker::PhantomData;

use crate::overlay::StagedPages;

/// Bytes in a cache line, the unit of write-back.
pub(crate) const LINE_SIZE: u64 = 64;
/// Bytes in a page of the overlay, the unit of msync.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// Bytes were stored and their write-back was started, but nothing waits for it yet. Not even other threads see them
/// for certain, so the fence comes before the lock over the bytes is given back.
///
/// A fence orders only the stores of the thread that makes it, so this evidence cannot leave its thread.
#[derive(Debug)]
#[must_use = "what was written is in no order to anything that follows until it is fenced"]
pub struct Flushed {
    /// There was something to write.
    pub(crate) pending: bool,
    _of_this_thread: PhantomData<*const ()>,
}

impl Flushed {
    pub(crate) fn new() -> Self {
        Self { pending: true, _of_this_thread: PhantomData }
    }

    pub(crate) fn nothing() -> Self {
        Self { pending: false, ..Self::new() }
    }

    /// Joins the evidence of two writes, so that one fence serves both.
    #[expect(clippy::needless_pass_by_value, reason = "the evidence is used up")]
    pub fn and(self, other: Self) -> Self {
        Self { pending: self.pending || other.pending, ..self }
    }
}

/// What was flushed is ordered before everything that follows: a journal record may now refer to it, and metadata
/// that it explains may now be changed.
///
/// On the `page` domain this orders only against a crash of the process; against power failure it takes a
/// [`Durable`]. On the `volatile` domain nothing survives a power failure anyway.
#[derive(Debug)]
#[must_use = "the fence was made for something that may follow it"]
pub struct Ordered {
    _private: (),
}

impl Ordered {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}

/// Everything ordered before survives a power failure, as far as the medium's domain can.
#[derive(Debug)]
#[must_use = "durability was paid for; what needed it?"]
pub struct Durable {
    _private: (),
}

impl Durable {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}

/// Metadata that was changed in place and is not yet on the medium. Belongs into [`DirtyRanges`].
#[derive(Debug)]
#[must_use = "the change is lost to the medium unless it is kept in DirtyRanges and settled"]
pub struct Dirty {
    line: u64,
    lines: u32,
}

impl Dirty {
    /// The lines that hold the bytes from `at` on; the caller has checked that they lie within the medium.
    #[inline]
    pub(crate) fn covering(at: u64, size: usize) -> Self {
        let first = at / LINE_SIZE;
        let end = (at + size as u64).div_ceil(LINE_SIZE);
        Self { line: first, lines: (end - first) as u32 }
    }
}

/// Changed metadata, in the order of the changes and in units of cache lines.
#[derive(Debug, Default)]
pub struct DirtyRanges {
    ranges: Vec<(u64, u32)>,
}

impl DirtyRanges {
    /// Adds a change.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "what is dirty is noted once")]
    pub fn push(&mut self, dirty: Dirty) {
        let Dirty { line, lines } = dirty;
        match self.ranges.last() {
            Some(&(last, count)) if last <= line && line + u64::from(lines) <= last + u64::from(count) => {}
            _ => self.ranges.push((line, lines)),
        }
    }

    /// Moves everything in `other` to the end of this.
    pub fn append(&mut self, other: &mut Self) {
        self.ranges.append(&mut other.ranges);
    }

    /// Adds a copy of the ranges of `other`.
    pub fn extend_from(&mut self, other: &Self) {
        self.ranges.extend_from_slice(&other.ranges);
    }

    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges kept: an upper bound of what is worth a checkpoint, not a count of bytes.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The dirty bytes as sorted, disjoint, non-adjacent runs of whole units of `unit` bytes: (offset, size).
    pub(crate) fn runs(&self, unit: u64) -> Vec<(u64, u64)> {
        let mut sorted: Vec<(u64, u64)> = self
            .ranges
            .iter()
            .map(|&(line, lines)| {
                let start = line * LINE_SIZE;
                let end = start + u64::from(lines) * LINE_SIZE;
                (start / unit * unit, end.next_multiple_of(unit))
            })
            .filter(|(start, end)| start < end)
            .collect();
        sorted.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (start, end) in sorted {
            match runs.last_mut() {
                Some((run_start, size)) if start <= *run_start + *size => {
                    *size = (*size).max(end - *run_start);
                }
                _ => runs.push((start, end - start)),
            }
        }
        runs
    }
}

/// Changed metadata on its way to the medium, as it was when it was staged.
#[derive(Debug)]
#[must_use = "staged metadata is lost to the medium unless it is settled"]
pub struct Staged {
    pub(crate) what: StagedWhat,
}

/// How staged metadata travels.
#[derive(Debug)]
pub(crate) enum StagedWhat {
    /// It is in the shared mapping already and needs write-back.
    InPlace(DirtyRanges),
    /// Copies of its pages, to be put into the shared mapping.
    Copied(StagedPages),
}

/// Metadata that has reached the medium; what was private to hold it back may be dropped.
#[derive(Debug)]
#[must_use = "private copies are kept in memory until they are released"]
pub struct Settled {
    /// Runs of whole pages of which there are private copies: (offset, size).
    pub(crate) pages: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirty(changes: &[(u64, usize)]) -> DirtyRanges {
        let mut ranges = DirtyRanges::default();
        for &(at, size) in changes {
            ranges.push(Dirty::covering(at, size));
        }
        ranges
    }

    #[test]
    fn runs_are_sorted_merged_and_of_whole_units() {
        let ranges = dirty(&[(8192, 8), (100, 60), (130, 1), (64, 1), (9000, 4), (192, 64)]);
        assert_eq!(ranges.runs(LINE_SIZE), [(64, 192), (8192, 64), (8960, 64)]);
        assert_eq!(ranges.runs(PAGE_SIZE), [(0, 4096), (8192, 4096)]);
    }

    #[test]
    fn a_repeated_change_costs_no_room() {
        let mut ranges = dirty(&[(128, 64), (130, 4), (128, 1)]);
        assert_eq!(ranges.len(), 1);
        let mut more = dirty(&[(0, 1)]);
        ranges.append(&mut more);
        assert_eq!((ranges.len(), more.is_empty()), (2, true));
    }

    #[test]
    fn a_copy_leaves_the_original() {
        let (mut ranges, more) = (dirty(&[(128, 64)]), dirty(&[(8192, 8)]));
        ranges.extend_from(&more);
        assert_eq!(ranges.runs(LINE_SIZE), [(128, 64), (8192, 64)]);
        assert_eq!(more.runs(LINE_SIZE), [(8192, 64)]);
    }

    #[test]
    fn an_empty_change_dirties_nothing() {
        assert_eq!(dirty(&[(64, 0)]).runs(LINE_SIZE), []);
    }
}
