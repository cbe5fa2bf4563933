//! Where the entries of a leaf that is full are divided.

use lodefs_layout::directory::entry_size;
use lodefs_layout::names::NameHash;
use rustix::io::Errno;
use smallvec::SmallVec;

use super::leaf::{self, OwnedEntry};
use crate::error::{Result, ensure};

/// Divides entries, sorted by hash, into parts that fit into a leaf each. `NOSPC` if too many entries share one hash.
///
/// A part that is nearly full is divided too, or the next entry would do it; but it stays whole if it cannot be divided.
pub(crate) fn parts(names: NameHash, entries: &[OwnedEntry]) -> Result<SmallVec<[&[OwnedEntry]; 2]>> {
    let mut done = SmallVec::new();
    let mut left: SmallVec<[&[OwnedEntry]; 4]> = SmallVec::new();
    left.push(entries);
    while let Some(part) = left.pop() {
        if has_room(part) {
            done.push(part);
        } else if let Some(middle) = split_point(names, part) {
            let (before, behind) = part.split_at(middle);
            left.extend([behind, before]);
        } else {
            ensure(leaf::fits(part), Errno::NOSPC)?;
            done.push(part);
        }
    }
    Ok(done)
}

/// Whether a leaf with these entries has room for more.
fn has_room(entries: &[OwnedEntry]) -> bool {
    leaf::fits(entries) && leaf::heap_size(entries) <= leaf::FULL_HEAP
}

/// The boundary that is nearest to the middle: between two buckets if that leaves room on both sides, so that names are
/// found in one leaf; or else between any two hashes.
fn split_point(names: NameHash, entries: &[OwnedEntry]) -> Option<usize> {
    let between_buckets = nearest(entries, |a, b| !names.same_bucket(a, b));
    let leaves_room = |at: &usize| has_room(&entries[..*at]) && has_room(&entries[*at..]);
    between_buckets.filter(leaves_room).or_else(|| nearest(entries, |a, b| a != b))
}

/// The boundary nearest to the middle, of those that `is_boundary` allows between two hashes.
fn nearest(entries: &[OwnedEntry], is_boundary: impl Fn(u64, u64) -> bool) -> Option<usize> {
    let is_boundary = |i: &usize| is_boundary(entries[i - 1].hash, entries[*i].hash);
    let half = leaf::heap_size(entries) / 2;
    let mut size = 0;
    let middle = entries.iter().position(|entry| {
        size += entry_size(entry.name.len());
        size > half
    })?;
    let middle = middle.clamp(1, entries.len().max(2) - 1);
    let above = (middle..entries.len()).find(is_boundary);
    let below = (1..middle).rev().find(is_boundary);
    match (below, above) {
        (Some(below), Some(above)) => Some(if middle - below < above - middle { below } else { above }),
        (below, above) => below.or(above),
    }
}

#[cfg(test)]
mod tests {
    use lodefs_layout::names::NameKey;

    use super::*;
    use crate::types::{Ino, Kind};

    const KEYED: NameHash = NameHash::Keyed(NameKey([1; 16]));

    fn entries(hashes: &[u64], name_size: usize) -> Vec<OwnedEntry> {
        let entry = |hash: &u64| OwnedEntry {
            hash: *hash,
            ino: Ino(1),
            kind: Kind::File,
            name: vec![b'n'; name_size],
        };
        hashes.iter().map(entry).collect()
    }

    fn sizes(names: NameHash, entries: &[OwnedEntry]) -> Vec<usize> {
        parts(names, entries).unwrap().iter().map(|part| part.len()).collect()
    }

    #[test]
    fn one_hash_that_fills_a_leaf_has_it_for_itself() {
        // Thirteen entries of 256 bytes fit, but leave no room.
        let mut hashes = vec![100; 13];
        assert_eq!(sizes(NameHash::Seeded(0), &entries(&hashes, 232)), [13]);
        hashes.push(200);
        assert_eq!(sizes(NameHash::Seeded(0), &entries(&hashes, 232)), [13, 1]);
        hashes.insert(0, 50);
        assert_eq!(sizes(NameHash::Seeded(0), &entries(&hashes, 232)), [1, 13, 1]);
        let same = entries(&[100; 14], 232);
        assert_eq!(parts(NameHash::Seeded(0), &same).unwrap_err().errno(), Errno::NOSPC);
    }

    #[test]
    fn a_bucket_is_divided_only_if_it_must_be() {
        let bucket = |number: u64, count: u64| (0..count).map(move |i| (number << 37) + (i << 33));
        let hashes: Vec<u64> = bucket(1, 5).chain(bucket(2, 9)).collect();
        assert_eq!(sizes(KEYED, &entries(&hashes, 232)), [5, 9]);
        let hashes: Vec<u64> = bucket(1, 14).collect();
        assert_eq!(sizes(KEYED, &entries(&hashes, 232)), [7, 7]);
        let hashes: Vec<u64> = bucket(1, 1).chain(bucket(2, 13)).collect();
        assert_eq!(sizes(KEYED, &entries(&hashes, 232)).iter().sum::<usize>(), 14);
    }
}
