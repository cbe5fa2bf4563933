//! What recovery does follows from what it reads: a tree of the reads of all recoveries so far.
//!
//! Recovery is a function of the image. It reads a first range, whatever the image; what is there decides which range
//! it reads next, and so on to its end. An image that has the same bytes wherever one that was recovered before was
//! read is therefore recovered in the same way, and need not be: only the bytes that were not read differ afterwards.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::look::Boot;

/// A range of an image: its first byte and the number of bytes.
pub(super) type Range = (u64, u64);

/// Outcomes of recoveries, by what was read.
#[derive(Debug)]
pub(super) struct Known<T> {
    reads: Vec<Read>,
    outcomes: Vec<T>,
    first: HashMap<Boot, Next>,
}

/// A range that is read, and what comes next.
#[derive(Debug)]
struct Read {
    range: Range,
    /// By the hash of what the image has there.
    next: HashMap<u64, Next>,
}

/// Positions in the tables.
#[derive(Clone, Copy, Debug)]
enum Next {
    Read(usize),
    End(usize),
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { reads: Vec::new(), outcomes: Vec::new(), first: HashMap::new() }
    }
}

impl<T> Known<T> {
    /// The outcome for an image with the same bytes wherever they matter.
    pub(super) fn find(&self, image: &[u8], boot: Boot) -> Option<&T> {
        let mut next = *self.first.get(&boot)?;
        loop {
            match next {
                Next::End(outcome) => return Some(&self.outcomes[outcome]),
                Next::Read(read) => {
                    let read = &self.reads[read];
                    next = *read.next.get(&hash_of(image, read.range))?;
                }
            }
        }
    }

    /// Notes the outcome for an image of which these ranges were read, in this order.
    ///
    /// # Panics
    /// If something else was read of an image with the same bytes before: then outcomes follow from something else too.
    pub(super) fn insert(&mut self, image: &[u8], boot: Boot, reads: &[Range], outcome: T) {
        self.outcomes.push(outcome);
        let end = Next::End(self.outcomes.len() - 1);
        let mut from: Option<(usize, u64)> = None;
        for &range in reads {
            let known = match from {
                None => self.first.get(&boot),
                Some((read, hash)) => self.reads[read].next.get(&hash),
            };
            let read = match known {
                Some(Next::Read(read)) => *read,
                Some(Next::End(_)) => panic!("recovery read {range:?} where it had ended before"),
                None => {
                    self.reads.push(Read { range, next: HashMap::new() });
                    let new = self.reads.len() - 1;
                    self.lead(boot, from, Next::Read(new));
                    new
                }
            };
            let expected = self.reads[read].range;
            assert_eq!(range, expected, "recovery read something else of an image with the same bytes");
            from = Some((read, hash_of(image, range)));
        }
        self.lead(boot, from, end);
    }

    fn lead(&mut self, boot: Boot, from: Option<(usize, u64)>, next: Next) {
        match from {
            None => self.first.insert(boot, next),
            Some((read, hash)) => self.reads[read].next.insert(hash, next),
        };
    }
}

fn hash_of(image: &[u8], (at, size): Range) -> u64 {
    xxh3_64(&image[at as usize..(at + size) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::Failure;

    #[test]
    fn what_was_not_read_makes_no_difference() {
        let boot = Boot::FIRST;
        let mut known = Known::default();
        known.insert(b"1a..", boot, &[(0, 1), (1, 1)], "read the second byte");
        known.insert(b"2..b", boot, &[(0, 1), (3, 1)], "read the last byte");
        assert_eq!(known.find(b"1axy", boot), Some(&"read the second byte"));
        assert_eq!(known.find(b"2xyb", boot), Some(&"read the last byte"));
        for unknown in [b"3a..", b"1b..", b"2..a"] {
            assert_eq!(known.find(unknown, boot), None);
        }
        assert_eq!(known.find(b"1axy", boot.after(Failure::Power)), None);
    }

    #[test]
    #[should_panic = "something else"]
    fn a_recovery_that_follows_from_something_else_is_noticed() {
        let mut known = Known::default();
        known.insert(b"1a", Boot::FIRST, &[(0, 1), (1, 1)], ());
        known.insert(b"1a", Boot::FIRST, &[(1, 1)], ());
    }
}
