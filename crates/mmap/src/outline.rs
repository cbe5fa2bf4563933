//! Are there mappings at these addresses? Said without a lock, while mappings are few.
//!
//! Each read and write of a file by the program itself asks whether the buffer is a mapping. To ask the registry is to block signals and to
//! take a lock, which takes longer than the copy. So the first ranges of addresses are kept in atomic numbers, with a version that is odd
//! while they change: a reader that has seen a change, or of more ranges than there is room for, asks the registry.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};

/// Ranges that there is room for. Mappings side by side are one.
const RANGES_MAX: usize = 64;
/// Mappings that are looked at, at most, to see how many ranges they are.
const MAPPINGS_MAX: usize = 1024;

static OUTLINE: Outline = Outline::new();

/// Ranges of addresses, as they were at one moment.
struct Outline {
    version: AtomicU64,
    /// How many there are; more than there is room for: that is not known.
    count: AtomicUsize,
    starts: [AtomicUsize; RANGES_MAX],
    ends: [AtomicUsize; RANGES_MAX],
}

impl Outline {
    const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            starts: [const { AtomicUsize::new(0) }; RANGES_MAX],
            ends: [const { AtomicUsize::new(0) }; RANGES_MAX],
        }
    }

    fn has_some_of(&self, addresses: &Range<usize>) -> Option<bool> {
        let version = self.version.load(Acquire);
        let count = self.count.load(Relaxed);
        if version % 2 == 1 || count > RANGES_MAX {
            return None;
        }
        let meets = |index: usize| {
            self.starts[index].load(Relaxed) < addresses.end
                && addresses.start < self.ends[index].load(Relaxed)
        };
        let has_some = (0..count).any(meets);
        fence(Acquire);
        (self.version.load(Relaxed) == version).then_some(has_some)
    }

    /// One thread at a time replaces them.
    fn replace(&self, mappings: impl Iterator<Item = Range<usize>>) {
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(RANGES_MAX);
        let mut is_known = true;
        for (number, mapping) in mappings.enumerate() {
            match ranges.last_mut() {
                Some(last) if last.end == mapping.start => last.end = mapping.end,
                _ => ranges.push(mapping),
            }
            is_known = ranges.len() <= RANGES_MAX && number < MAPPINGS_MAX;
            if !is_known {
                break;
            }
        }
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        // A reader that sees a number that is stored from here on sees the odd version too.
        fence(Release);
        self.count.store(if is_known { ranges.len() } else { usize::MAX }, Relaxed);
        for (index, range) in ranges.iter().enumerate().take(RANGES_MAX) {
            self.starts[index].store(range.start, Relaxed);
            self.ends[index].store(range.end, Relaxed);
        }
        self.version.store(version + 2, Release);
    }
}

/// Whether some of these addresses are a mapping's; `None`: the registry is to be asked.
pub(crate) fn has_some_of(addresses: &Range<usize>) -> Option<bool> {
    OUTLINE.has_some_of(addresses)
}

/// From now on these are the mappings, in ascending order. The caller has the lock of the registry.
pub(crate) fn replace(mappings: impl Iterator<Item = Range<usize>>) {
    OUTLINE.replace(mappings);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn neighbours_are_one_range_and_too_many_are_not_known() {
        let outline = Outline::new();
        assert_eq!(outline.has_some_of(&(0..usize::MAX)), Some(false));
        outline.replace([10..20, 20..30, 40..50].into_iter());
        for (range, expected) in
            [(0..10, false), (0..11, true), (29..40, true), (30..40, false), (49..60, true)]
        {
            assert_eq!(outline.has_some_of(&range), Some(expected), "{range:?}");
        }
        assert_eq!(outline.count.load(Relaxed), 2);
        outline.replace((0..=RANGES_MAX).map(|number| number * 20..number * 20 + 10));
        assert_eq!(outline.has_some_of(&(0..1)), None);
        outline.replace((0..RANGES_MAX).map(|number| number * 20..number * 20 + 10));
        assert_eq!(outline.has_some_of(&(10..20)), Some(false));
        outline.replace((0..=MAPPINGS_MAX).map(|number| number..number + 1));
        assert_eq!(outline.has_some_of(&(0..1)), None);
    }

    #[test]
    fn while_they_change_they_are_not_known() {
        let outline = Outline::new();
        outline.version.store(1, Relaxed);
        assert_eq!(outline.has_some_of(&(0..1)), None);
    }

    #[test]
    fn a_reader_never_sees_parts_of_two_moments() {
        let (outline, ends) = (Outline::new(), AtomicBool::new(false));
        let moments = [0..100, 200..300];
        outline.replace(std::iter::once(moments[0].clone()));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..5_000_000 {
                    outline.replace(std::iter::once(moments[round % 2].clone()));
                }
                ends.store(true, Relaxed);
            });
            while !ends.load(Relaxed) {
                // The start of one and the end of the other would be a range between them.
                assert_ne!(outline.has_some_of(&(120..180)), Some(true));
            }
        });
    }
}
