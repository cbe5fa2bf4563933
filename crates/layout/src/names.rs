//! Where a name belongs in its directory.
//!
//! Every directory entry stores a *hash*, a number of 63 bits that orders the directory. There are two schemes:
//!
//! - Without [`KEYED_NAMES`](crate::features::KEYED_NAMES), the hash is XXH3-64 of the name, with a seed that follows from
//!   the UUID. Every user can compute the hash of a name, so a user can make names that share one hash.
//! - With it, SipHash-2-4 under a secret key selects one of 2^26 *buckets*. The hash of an entry is a number in its bucket
//!   that no other entry of the directory has. So two entries never share a hash, whatever their names are.
//!
//! In a bucket, the numbers whose lower 33 bits are zero are used first ([`HashRange::slots`]): the upper 30 bits of these
//! are unique in the directory as long as no bucket has more than 16 entries.

use core::fmt;

use siphasher::sip::SipHasher24;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::directory::FIRST_HASH;

/// Bits of a hash.
const HASH_BITS: u32 = 63;
/// Bits of a hash that are the number of its bucket: the upper ones.
const BUCKET_BITS: u32 = 26;
/// Bits of a hash that tell entries of one bucket apart.
const IN_BUCKET_BITS: u32 = HASH_BITS - BUCKET_BITS;
/// The lower bits of a hash, which are zero in the first entries of a bucket.
const TIE_BITS: u32 = 33;
/// Entries of one bucket whose upper 30 bits differ.
const SLOTS: u64 = 1 << (IN_BUCKET_BITS - TIE_BITS);
/// The hashes of a volume with keyed names are even.
const STEP: u64 = 2;

/// The secret key of a volume's names. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct NameKey(pub [u8; 16]);

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameKey(..)")
    }
}

/// How the names of one volume are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameHash {
    /// XXH3-64 with this seed.
    Seeded(u64),
    /// SipHash-2-4 with a secret key.
    Keyed(NameKey),
}

/// The hashes that an entry with a certain name may have: from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
}

impl HashRange {
    /// Whether an entry with the name may have this hash.
    pub fn contains(&self, hash: u64) -> bool {
        (self.first..=self.last).contains(&hash) && (hash - self.first).is_multiple_of(STEP)
    }

    /// The hashes to be given first, each unique in its upper 30 bits.
    pub fn slots(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, last) = (self.first, self.last);
        (0..SLOTS).map(move |slot| first + (slot << TIE_BITS)).take_while(move |hash| *hash <= last)
    }

    /// A hash that is not in `used`, which has those of the directory's other entries in this range, in ascending order.
    /// `None` if all of them are used.
    pub fn free_hash(&self, used: &[u64]) -> Option<u64> {
        if let Some(hash) = self.slots().find(|hash| used.binary_search(hash).is_err()) {
            return Some(hash);
        }
        let behind = used.last().map_or(self.first, |last| last.saturating_add(STEP));
        if self.contains(behind) {
            return Some(behind);
        }
        // The highest is used. Most others are not.
        let mut wanted = self.first;
        for hash in used {
            if *hash > wanted {
                break;
            }
            wanted = hash.saturating_add(STEP);
        }
        self.contains(wanted).then_some(wanted)
    }
}

impl NameHash {
    /// The hashes that an entry with this name may have.
    pub fn range(&self, name: &[u8]) -> HashRange {
        match self {
            Self::Seeded(seed) => {
                let hash = weak::mask(xxhash_rust::xxh3::xxh3_64_with_seed(name, *seed)) >> 1;
                let hash = hash.max(FIRST_HASH);
                HashRange { first: hash, last: hash }
            }
            Self::Keyed(NameKey(key)) => {
                let hash = weak::mask(SipHasher24::new_with_key(key).hash(name));
                // Bucket 0 has the hashes that stand for the start, `.` and `..`.
                let bucket = (hash >> (u64::BITS - BUCKET_BITS)).max(1);
                let first = bucket << IN_BUCKET_BITS;
                HashRange { first, last: first + (1 << IN_BUCKET_BITS) - STEP }
            }
        }
    }

    /// The bits of an entry's hash that its tag repeats, so that most entries need not be read.
    pub fn tag_bits(&self, hash: u64) -> u16 {
        match self {
            Self::Seeded(_) => hash as u16,
            Self::Keyed(_) => (hash >> IN_BUCKET_BITS) as u16,
        }
    }

    /// Whether two entries with these hashes are in one bucket.
    pub fn same_bucket(&self, a: u64, b: u64) -> bool {
        match self {
            Self::Seeded(_) => a == b,
            Self::Keyed(_) => a >> IN_BUCKET_BITS == b >> IN_BUCKET_BITS,
        }
    }

    /// Whether each entry of a directory has a hash of its own.
    pub fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed(_))
    }
}

/// For tests: hashes from which bits are taken away, so that many names share one.
#[cfg(feature = "weak-names")]
pub mod weak {
    use core::sync::atomic::{AtomicU64, Ordering};

    static MASK: AtomicU64 = AtomicU64::new(u64::MAX);

    /// From now on all hashes of this process have only the bits of `mask`. Volumes are to be opened with the mask with
    /// which they were filled.
    pub fn set_mask(mask: u64) {
        MASK.store(mask, Ordering::Relaxed);
    }

    pub(super) fn mask(hash: u64) -> u64 {
        hash & MASK.load(Ordering::Relaxed)
    }
}

#[cfg(not(feature = "weak-names"))]
mod weak {
    pub(super) fn mask(hash: u64) -> u64 {
        hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keyed() -> NameHash {
        NameHash::Keyed(NameKey([9; 16]))
    }

    #[test]
    fn hashes_are_positive_offsets_behind_those_of_the_dots() {
        for hash in [keyed(), NameHash::Seeded(7)] {
            for i in 0..10_000_u32 {
                let range = hash.range(&i.to_le_bytes());
                assert!(range.first >= FIRST_HASH && range.first <= range.last);
                assert!(i64::try_from(range.last).is_ok());
                assert!(hash.same_bucket(range.first, range.last));
                assert_eq!(hash.tag_bits(range.first), hash.tag_bits(range.last));
            }
        }
    }

    #[test]
    fn the_key_decides_and_is_not_shown() {
        let other = NameHash::Keyed(NameKey([8; 16]));
        assert_ne!(keyed().range(b"name"), other.range(b"name"));
        assert_ne!(keyed().range(b"name"), keyed().range(b"eman"));
        let shown = std::format!("{:?}", NameHash::Keyed(NameKey([0x5a; 16])));
        assert_eq!(shown, "Keyed(NameKey(..))");
    }

    #[test]
    fn each_entry_of_a_bucket_gets_a_hash_of_its_own() {
        let range = keyed().range(b"name");
        let mut used = BTreeSet::new();
        for _ in 0..1000 {
            let sorted: std::vec::Vec<u64> = used.iter().copied().collect();
            let hash = range.free_hash(&sorted).unwrap();
            assert!(range.contains(hash) && used.insert(hash));
        }
        let upper: BTreeSet<u64> = used.iter().map(|hash| hash >> TIE_BITS).collect();
        assert_eq!(upper.len(), 16, "the first 16 differ in their upper bits");
        // Those that were given back are given again.
        let removed = [*used.iter().next().unwrap(), *used.iter().nth(10).unwrap()];
        for hash in removed {
            used.remove(&hash);
            let sorted: std::vec::Vec<u64> = used.iter().copied().collect();
            let again = range.free_hash(&sorted).unwrap();
            assert!(range.contains(again) && used.insert(again));
        }
    }

    #[test]
    fn a_range_without_a_free_hash_says_so() {
        let range = HashRange { first: 64, last: 70 };
        assert_eq!(range.free_hash(&[64]), Some(66));
        assert_eq!(range.free_hash(&[64, 66, 70]), Some(68), "a gap below the highest");
        assert_eq!(range.free_hash(&[64, 66, 68, 70]), None);
        let single = NameHash::Seeded(7).range(b"name");
        assert_eq!(single.free_hash(&[]), Some(single.first));
        assert_eq!(single.free_hash(&[single.first]), None);
    }
}
