//! Private copies of metadata pages on media where the host decides when a page is written.
//!
//! The host may write any page of a shared mapping to the medium at any time. Metadata is therefore changed in a
//! private mapping of the same bytes, where the host cannot see it, and goes into the shared mapping only when the
//! journal records that explain it survive a power failure. A page that was never changed has no private copy, and
//! reads what is shared.
//!
//! Invariant: a page with a private copy is written in the shared mapping only by settling it. Anything else would
//! be hidden by the copy, and overwritten when it is settled; so the pages that have one are known and guarded.

use std::io;

use crate::evidence::{DirtyRanges, PAGE_SIZE};
use crate::mapping::{Mapping, Refused};
use crate::page_set::PageSet;

/// Staged pages: runs (offset, size) of whole pages, and their bytes one after another.
#[derive(Debug)]
pub(crate) struct StagedPages {
    runs: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

/// The private mapping of a medium.
#[derive(Debug)]
pub(crate) struct Overlay {
    private: Mapping,
    copied: PageSet,
}

impl Overlay {
    pub(crate) fn new(private: Mapping) -> io::Result<Self> {
        let copied = PageSet::new(private.size() as u64).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { private, copied })
    }

    /// Where metadata is read.
    #[inline]
    pub(crate) fn private(&self) -> &Mapping {
        &self.private
    }

    /// Changes metadata.
    #[inline]
    pub(crate) fn store(&self, at: u64, bytes: &[u8]) -> Result<(), Refused> {
        let span = self.private.span_mut(at, bytes.len())?;
        self.copied.insert(at, bytes.len() as u64);
        span.copy_in(bytes);
        Ok(())
    }

    /// Whether any of these bytes, which lie within the medium, are in a page with a private copy.
    #[inline]
    pub(crate) fn hides(&self, at: u64, size: u64) -> bool {
        self.copied.meets(at, size)
    }

    /// Copies the dirty pages aside, as they are now.
    pub(crate) fn stage(&self, dirty: &DirtyRanges) -> StagedPages {
        let mut runs = dirty.runs(PAGE_SIZE);
        for (at, size) in &mut runs {
            // The medium may end within its last page.
            *size = (*size).min((self.private.size() as u64).saturating_sub(*at));
        }
        let total: u64 = runs.iter().map(|(_, size)| size).sum();
        let mut bytes = vec![0; total as usize];
        let mut rest = &mut bytes[..];
        for &(at, size) in &runs {
            let (run, behind) = rest.split_at_mut(size as usize);
            let copied = self.private.span(at, run.len()).map(|span| span.copy_out(run));
            debug_assert_eq!(copied, Ok(()), "dirty ranges lie within the medium that made them");
            rest = behind;
        }
        StagedPages { runs, bytes }
    }

    /// Drops the private copies of the `settled` pages that are not dirty again.
    pub(crate) fn release(&self, settled: &[(u64, u64)], still_dirty: &DirtyRanges) -> io::Result<()> {
        for (at, size) in without(settled, &still_dirty.runs(PAGE_SIZE)) {
            self.private.drop_copies(at, size.next_multiple_of(PAGE_SIZE))?;
            self.copied.remove(at, size);
        }
        Ok(())
    }
}

impl StagedPages {
    /// The runs with their bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = &self.bytes[..];
        self.runs.iter().map(move |&(at, size)| {
            let (run, behind) = rest.split_at(size as usize);
            rest = behind;
            (at, run)
        })
    }

    /// Forgets the bytes.
    pub(crate) fn into_runs(self) -> Vec<(u64, u64)> {
        self.runs
    }
}

/// What of the sorted, disjoint runs `all` is in none of the sorted, disjoint runs `excluded`.
fn without(all: &[(u64, u64)], excluded: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    for &(start, size) in all {
        let end = start + size;
        let mut at = start;
        let first = excluded.partition_point(|&(hole, hole_size)| hole + hole_size <= start);
        for &(hole, hole_size) in excluded[first..].iter().take_while(|&&(hole, _)| hole < end) {
            if at < hole {
                left.push((at, hole - at));
            }
            at = at.max(hole + hole_size);
        }
        if at < end {
            left.push((at, end - at));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs_of(units: &[bool]) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (index, _) in units.iter().enumerate().filter(|&(_, &set)| set) {
            match runs.last_mut() {
                Some((at, size)) if *at + *size == index as u64 => *size += 1,
                _ => runs.push((index as u64, 1)),
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn taking_runs_away_is_set_difference(
            units in prop::collection::vec(any::<(bool, bool)>(), 0..40)
        ) {
            let (all, excluded): (Vec<bool>, Vec<bool>) = units.iter().copied().unzip();
            let expected: Vec<bool> = units.iter().map(|&(here, gone)| here && !gone).collect();
            prop_assert_eq!(without(&runs_of(&all), &runs_of(&excluded)), runs_of(&expected));
        }
    }
}
