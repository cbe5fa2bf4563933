//! Checksums (CRC-32C), and what seeds them.

use crate::names::{HashRange, NameHash, NameKey};

/// Seeds every checksum and every name hash of one volume, so that a structure copied from another volume, or
/// left over from an earlier one on the same medium, does not pass for one of this volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    crc: u32,
    /// How names are hashed.
    pub names: NameHash,
}

impl Seed {
    /// Derives the seed from the volume's identity.
    pub fn of_volume(uuid: &[u8; 16]) -> Self {
        Self { crc: crc32c::crc32c(uuid), names: NameHash::Seeded(xxhash_rust::xxh3::xxh3_64(uuid)) }
    }

    /// The same for a volume with a secret key for its names.
    #[must_use]
    pub fn with_name_key(self, key: NameKey) -> Self {
        Self { names: NameHash::Keyed(key), ..self }
    }

    /// The checksum of `bytes` that belong to `owner` (an inode number, a block address or an index: whatever
    /// makes a misplaced copy detectable).
    pub fn crc(&self, owner: u64, bytes: &[u8]) -> u32 {
        let salted = crc32c::crc32c_append(self.crc, &owner.to_le_bytes());
        crc32c::crc32c_append(salted, bytes)
    }

    /// The hashes that an entry with this name may have in a directory.
    pub fn name_range(&self, name: &[u8]) -> HashRange {
        self.names.range(name)
    }
}

/// An identity under which the checksums of a volume are right whose own identity is lost: with it, `bytes` of `owner` have the
/// checksum `crc`. The first twelve bytes are those of `start`, and the name hashes are others than before.
pub fn identity_like(crc: u32, owner: u64, bytes: &[u8], start: [u8; 16]) -> [u8; 16] {
    let salt = owner.to_le_bytes();
    let seed = argument_of(|seed| crc32c::crc32c_append(crc32c::crc32c_append(seed, &salt), bytes), crc);
    let mut identity = start;
    let (kept, free) = identity.split_at_mut(12);
    let before = crc32c::crc32c(kept);
    let end = argument_of(|end| crc32c::crc32c_append(before, &end.to_le_bytes()), seed);
    free.copy_from_slice(&end.to_le_bytes());
    identity
}

/// The one argument for which `function` is `value`. The function must be affine over bits, and have another value for each
/// argument, as a CRC in its start and in any 32 bits of its input.
fn argument_of(function: impl Fn(u32) -> u32, value: u32) -> u32 {
    let constant = function(0);
    // For each bit of a value: a value of which that is the highest bit, and its argument.
    let mut basis = [(0, 0); 32];
    let reduce = |basis: &[(u32, u32); 32], mut value: u32, mut argument: u32| {
        for (base, base_argument) in basis.iter().rev() {
            if *base != 0 && value ^ base < value {
                value ^= base;
                argument ^= base_argument;
            }
        }
        (value, argument)
    };
    for bit in 0..32 {
        let (rest, argument) = reduce(&basis, function(1 << bit) ^ constant, 1 << bit);
        if rest != 0 {
            basis[31 - rest.leading_zeros() as usize] = (rest, argument);
        }
    }
    reduce(&basis, value ^ constant, 0).1
}

/// The checksum of a structure that is found before the volume's identity is known (the superblock).
pub fn unseeded_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_volume_change_the_checksum() {
        let a = Seed::of_volume(&[1; 16]);
        let b = Seed::of_volume(&[2; 16]);
        assert_ne!(a.crc(1, b"x"), a.crc(2, b"x"));
        assert_ne!(a.crc(1, b"x"), b.crc(1, b"x"));
        assert_ne!(a.name_range(b"x"), b.name_range(b"x"));
    }

    #[test]
    fn an_identity_is_found_again_by_a_checksum() {
        for number in 0..100u8 {
            let lost = Seed::of_volume(&[number; 16]);
            let found = identity_like(lost.crc(3, b"a structure"), 3, b"a structure", [0x40 | number; 16]);
            assert_eq!(found[..12], [0x40 | number; 12]);
            let seed = Seed::of_volume(&found);
            for (owner, bytes) in [(3, &b"a structure"[..]), (4, b"another"), (u64::MAX, b"")] {
                assert_eq!(seed.crc(owner, bytes), lost.crc(owner, bytes));
            }
        }
    }
}
