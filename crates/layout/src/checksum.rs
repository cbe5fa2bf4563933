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
}
