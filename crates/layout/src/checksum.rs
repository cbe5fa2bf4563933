//! Checksums (CRC-32C) and the volume's secret that seeds them.

/// Seeds every checksum and every name hash of one volume, so that a structure copied from another volume, or
/// left over from an earlier one on the same medium, does not pass for one of this volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    crc: u32,
    hash: u64,
}

impl Seed {
    /// Derives the seed from the volume's identity.
    pub fn of_volume(uuid: &[u8; 16]) -> Self {
        Self { crc: crc32c::crc32c(uuid), hash: xxhash_rust::xxh3::xxh3_64(uuid) }
    }

    /// The checksum of `bytes` that belong to `owner` (an inode number, a block address or an index: whatever
    /// makes a misplaced copy detectable).
    pub fn crc(&self, owner: u64, bytes: &[u8]) -> u32 {
        let salted = crc32c::crc32c_append(self.crc, &owner.to_le_bytes());
        crc32c::crc32c_append(salted, bytes)
    }

    /// The hash that places `name` in a directory: 63 bits, so that it is also a valid directory offset, and
    /// never one of the few small values that stand for `.`, `..` and the start.
    pub fn name_hash(&self, name: &[u8]) -> u64 {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(name, self.hash) >> 1;
        hash.max(crate::directory::FIRST_HASH)
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
        assert_ne!(a.name_hash(b"x"), b.name_hash(b"x"));
    }

    #[test]
    fn name_hashes_are_positive_offsets() {
        let seed = Seed::of_volume(&[7; 16]);
        for i in 0..10_000u32 {
            let hash = seed.name_hash(&i.to_le_bytes());
            assert!(hash >= crate::directory::FIRST_HASH && i64::try_from(hash).is_ok());
        }
    }
}
