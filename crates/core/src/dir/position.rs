//! Positions in a listing: where it goes on behind an entry (`d_off`, which seekdir takes).
//!
//! A position is a number of 63 bits that tells where to go on without any memory of the listing, with one exception.
//! Which form a position has, depends on the entry that follows:
//!
//! | form | meaning | when |
//! |---|---|---|
//! | 0 to 2 | the start, behind `.`, behind `..` | |
//! | 17 + upper 30 bits of the hash | behind all hashes with these upper bits | the next entry has other upper bits |
//! | bit 62, and upper 62 bits of the hash | behind all hashes with these upper bits | the next entry has other upper bits |
//! | upper 30 bits, bit 31, 31 bits of a serial number | behind the entry with this number | otherwise |
//!
//! The first two forms have less than 31 bits, as 32-bit programs need. With keyed names, the third form occurs only behind an
//! entry of a bucket with more than 16 entries, and the fourth never. Without keyed names two upper parts of 30 bits
//! are equal by chance in large directories, and users can make names with one hash. Entries with one hash are listed in
//! the order of serial numbers ([`Ties`]), which they get when they are listed for the first time, and which the directory
//! remembers as long as its inode is in memory. No two entries of a directory have one position at a time.

use std::collections::{BTreeMap, HashMap};

use lodefs_layout::directory::FIRST_HASH;
use lodefs_sync::Mutex;
use smallvec::SmallVec;

use super::leaf::OwnedEntry;

/// Lower bits of a hash that a short position leaves out.
const SHORT_SHIFT: u32 = 33;
/// What is added to the upper bits of a hash, so that short positions do not meet those of the dots.
const SHORT_BASE: u64 = FIRST_HASH + 1;
/// Short positions are below, those with a serial number are not.
const SHORT_END: u64 = 1 << 31;
/// In long positions.
const LONG: u64 = 1 << 62;
/// In positions with a serial number.
const SERIAL: u64 = 1 << 31;
/// Entries of one hash that are remembered beyond the number of entries in the directory.
const SPARE_TIES: usize = 1 << 16;

/// Where a listing begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The lowest hash to be listed.
    pub(crate) hash: u64,
    /// Of entries with this hash, those with a higher serial number.
    pub(crate) behind: Option<u32>,
}

/// Entries with one hash: one, but for forged names.
pub(crate) type Group = SmallVec<[OwnedEntry; 1]>;

/// The serial numbers of entries that share a hash.
#[derive(Default)]
pub(crate) struct Ties(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    by_entry: HashMap<(u64, Box<[u8]>), u32>,
    by_number: BTreeMap<u32, (u64, Box<[u8]>)>,
    next: u32,
}

impl Ties {
    /// Where to go on at a position.
    pub(crate) fn start(&self, position: u64) -> Start {
        let at = |hash: u64| Start { hash: hash.max(FIRST_HASH), behind: None };
        if position < SHORT_BASE {
            return at(FIRST_HASH);
        }
        if position < SHORT_END {
            return at((position - SHORT_BASE + 1) << SHORT_SHIFT);
        }
        if position >= LONG {
            let upper = position & !LONG;
            return at(upper.saturating_add(1).saturating_mul(2));
        }
        let upper = position >> 32;
        let number = (position & (SERIAL - 1)) as u32;
        let numbers = self.0.lock();
        match numbers.by_number.get(&number) {
            Some((hash, _)) if position & SERIAL != 0 && hash >> SHORT_SHIFT == upper => {
                Start { hash: *hash, behind: Some(number) }
            }
            // Forgotten, or never given.
            _ => at(upper << SHORT_SHIFT),
        }
    }

    /// The position behind `entry`, if entries with a hash of `next` or more follow. The directory has `size` entries.
    pub(crate) fn behind(&self, entry: &OwnedEntry, next: u64, size: u64) -> u64 {
        if entry.hash >> SHORT_SHIFT != next >> SHORT_SHIFT {
            (entry.hash >> SHORT_SHIFT) + SHORT_BASE
        } else if entry.hash >> 1 != next >> 1 {
            LONG | entry.hash >> 1
        } else {
            let number = self.0.lock().number_of(entry, size);
            (entry.hash >> SHORT_SHIFT) << 32 | SERIAL | u64::from(number)
        }
    }

    /// Brings entries with one hash into the order in which they are listed, and leaves out those up to the number
    /// `behind`.
    pub(crate) fn arrange(&self, group: &mut Group, behind: Option<u32>, size: u64) {
        if group.len() < 2 && behind.is_none() {
            return;
        }
        group.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut numbers = self.0.lock();
        let mut numbered: Vec<(u32, OwnedEntry)> =
            group.drain(..).map(|entry| (numbers.number_of(&entry, size), entry)).collect();
        numbered.sort_by_key(|(number, _)| *number);
        let is_behind = |number: u32| behind.is_none_or(|behind| number > behind);
        group.extend(numbered.into_iter().filter(|(number, _)| is_behind(*number)).map(|(_, entry)| entry));
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.0.lock().by_number.values().map(|(_, name)| 2 * (name.len() + 48)).sum()
    }
}

impl Numbers {
    fn number_of(&mut self, entry: &OwnedEntry, size: u64) -> u32 {
        let key = (entry.hash, entry.name.clone().into_boxed_slice());
        if let Some(number) = self.by_entry.get(&key) {
            return *number;
        }
        if u64::from(self.next) >= SERIAL {
            *self = Self::default();
        }
        // Names that come and go must not fill the memory.
        while self.by_number.len() >= SPARE_TIES.saturating_add(size as usize) {
            let Some((_, oldest)) = self.by_number.pop_first() else { break };
            self.by_entry.remove(&oldest);
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, key.clone());
        self.by_entry.insert(key, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ino, Kind};

    fn entry(hash: u64, name: &str) -> OwnedEntry {
        OwnedEntry { hash, ino: Ino(5), kind: Kind::File, name: name.into() }
    }

    #[test]
    fn each_form_leads_behind_its_entry() {
        let ties = Ties::default();
        for hash in [FIRST_HASH, 1 << 33, (1 << 33) + 5, 123 << 40, i64::MAX as u64] {
            let entry = entry(hash, "x");
            let short = ties.behind(&entry, u64::MAX, 1);
            assert!(short < 1 << 31 && short > FIRST_HASH, "{hash:#x}");
            let start = ties.start(short);
            assert!(start.hash > hash && start.hash >> 33 == (hash >> 33) + 1 && start.behind.is_none());
            let next = hash + 2;
            if next >> 33 == hash >> 33 {
                let long = ties.behind(&entry, next, 1);
                assert!(i64::try_from(long).is_ok() && long >= LONG);
                assert!(hash < ties.start(long).hash && ties.start(long).hash <= next);
            }
            let numbered = ties.behind(&entry, hash, 1);
            assert!(i64::try_from(numbered).is_ok() && (SHORT_END..LONG).contains(&numbered));
            assert_eq!(ties.start(numbered).hash, hash);
            assert!(ties.start(numbered).behind.is_some());
        }
    }

    #[test]
    fn every_number_is_a_position() {
        let ties = Ties::default();
        for shift in 0..64 {
            for position in [1 << shift, (1 << shift) - 1, (1 << shift) + 5, u64::MAX << shift] {
                let start = ties.start(position);
                assert!(start.hash >= FIRST_HASH && start.behind.is_none());
            }
        }
    }

    #[test]
    fn names_that_come_and_go_are_forgotten() {
        let ties = Ties::default();
        let first = ties.behind(&entry(100, "first"), 100, 2);
        for i in 0..SPARE_TIES + 10 {
            ties.behind(&entry(100, &i.to_string()), 100, 2);
        }
        assert_eq!(ties.0.lock().by_entry.len(), SPARE_TIES + 2);
        assert_eq!(ties.0.lock().by_number.len(), SPARE_TIES + 2);
        assert_eq!(ties.start(first), Start { hash: FIRST_HASH, behind: None }, "it begins again");
    }
}
