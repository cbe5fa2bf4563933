//! The superblock: what the volume is. Written by mkfs, kept in the first and in the last block.
//!
//! A crash can tear neither copy in use: the superblock is rewritten only when a label or a feature changes, one
//! copy after the other, each made durable before the next is touched.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::{Seed, unseeded_crc};
use crate::features::KEYED_NAMES;
use crate::geometry::Geometry;
use crate::names::NameKey;

/// The first bytes of every volume.
pub const MAGIC: [u8; 8] = *b"LODEFS\r\n";

/// The first bytes of the first block while a volume is being made. No volume is there until the superblocks replace
/// them, and nothing that was there before counts.
pub const UNFINISHED: [u8; 8] = *b"LODEFS-\0";

/// A run of blocks with one purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Region {
    /// First block.
    pub start: U64,
    /// Number of blocks.
    pub blocks: U64,
}

/// The stored superblock, at the start of its block; the rest of the block is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Superblock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// CRC-32C of everything behind this field, up to `name_crc`.
    pub crc: U32,
    /// Version of the format: [`crate::features::FORMAT_VERSION`].
    pub version: U32,
    /// Features that a reader may ignore.
    pub compat: U64,
    /// Features that forbid writing to whoever does not know them.
    pub ro_compat: U64,
    /// Features that forbid opening to whoever does not know them.
    pub incompat: U64,
    /// Identity of the volume; seeds checksums and name hashes.
    pub uuid: [u8; 16],
    /// Name given by the user, UTF-8, padded with zeros.
    pub label: [u8; 64],
    /// Bytes in a block: [`crate::BLOCK_SIZE`].
    pub block_size: U32,
    /// Number of journal lanes.
    pub lanes: U32,
    /// Blocks in the whole volume, both superblocks included.
    pub total_blocks: U64,
    /// When the volume was made, seconds since 1970.
    pub created_s: I64,
    /// Two blocks, one for each state slot.
    pub state: Region,
    /// Journal: `lanes` lanes of two halves each.
    pub journal: Region,
    /// Inode map: one entry for each possible chunk of inodes.
    pub inode_map: Region,
    /// Where the allocation bitmap is saved at a clean unmount.
    pub saved_bitmap: Region,
    /// Blocks that hold inodes, directories and file data.
    pub data: Region,
    /// CRC-32C of the UUID and of what follows; zero without [`KEYED_NAMES`].
    pub name_crc: U32,
    /// Unused, zero.
    pub reserved: [U32; 3],
    /// The secret key of the names; zero without [`KEYED_NAMES`].
    pub name_key: NameKey,
}

/// Bytes that every version has, up to `name_crc`.
const COMMON_SIZE: usize = 224;

const _: () = assert!(core::mem::offset_of!(Superblock, name_crc) == COMMON_SIZE);
const _: () = assert!(size_of::<Superblock>() == 256);

/// Why bytes are not a superblock of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// The magic number is missing: this is something else.
    NotAVolume,
    /// The checksum is wrong: it was a superblock once.
    Damaged,
    /// A later version wrote it.
    NewerVersion(u32),
}

impl Superblock {
    /// The same for a volume that is laid out like this. The checksum is not filled in.
    #[must_use]
    pub fn with_geometry(mut self, geometry: &Geometry) -> Self {
        self.lanes = U32::new(geometry.lanes);
        self.total_blocks = U64::new(geometry.total_blocks);
        self.state = geometry.state;
        self.journal = geometry.journal;
        self.inode_map = geometry.inode_map;
        self.saved_bitmap = geometry.saved_bitmap;
        self.data = geometry.data;
        self
    }

    /// Fills in the checksums.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        if self.has_keyed_names() {
            self.name_crc = U32::new(self.name_checksum(&self.uuid));
        } else {
            self.clear_names();
        }
        self.crc = U32::new(self.checksum());
        self
    }

    fn checksum(&self) -> u32 {
        unseeded_crc(&self.as_bytes()[12..COMMON_SIZE])
    }

    fn name_checksum(&self, uuid: &[u8; 16]) -> u32 {
        crc32c::crc32c_append(unseeded_crc(uuid), &self.as_bytes()[COMMON_SIZE + 4..])
    }

    fn clear_names(&mut self) {
        (self.name_crc, self.reserved, self.name_key) = (U32::ZERO, [U32::ZERO; 3], NameKey([0; 16]));
    }

    /// The key of the names of the volume with this UUID, if the checksum of the key is right, be the rest of the superblock
    /// damaged.
    pub fn name_key_of(&self, uuid: &[u8; 16]) -> Option<NameKey> {
        let is_set = self.name_key != NameKey([0; 16]);
        (is_set && self.name_crc.get() == self.name_checksum(uuid)).then_some(self.name_key)
    }

    /// Whether the names of directories are hashed with a secret key.
    pub fn has_keyed_names(&self) -> bool {
        self.incompat.get() & KEYED_NAMES != 0
    }

    /// What seeds the checksums and the name hashes of this volume.
    pub fn seed(&self) -> Seed {
        let seed = Seed::of_volume(&self.uuid);
        if self.has_keyed_names() { seed.with_name_key(self.name_key) } else { seed }
    }

    /// Reads a superblock from the first bytes of a block.
    pub fn parse(block: &[u8]) -> Result<Self, SuperblockError> {
        let (mut found, _) = Self::read_from_prefix(block).map_err(|_| SuperblockError::NotAVolume)?;
        if found.magic != MAGIC {
            return Err(SuperblockError::NotAVolume);
        }
        if found.crc.get() != found.checksum() {
            return Err(SuperblockError::Damaged);
        }
        if found.version.get() != crate::features::FORMAT_VERSION {
            return Err(SuperblockError::NewerVersion(found.version.get()));
        }
        if !found.has_keyed_names() {
            // Without the feature these bytes mean nothing.
            found.clear_names();
        } else if found.name_crc.get() != found.name_checksum(&found.uuid) {
            return Err(SuperblockError::Damaged);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn superblock(version: u32) -> Superblock {
        let mut superblock = Superblock::new_zeroed();
        superblock.magic = MAGIC;
        superblock.version = U32::new(version);
        superblock.sealed()
    }

    #[test]
    fn only_what_is_whole_and_of_this_version_is_read() {
        let parse = |superblock: &Superblock| Superblock::parse(superblock.as_bytes()).map(|_| ());
        let version = crate::features::FORMAT_VERSION;
        assert_eq!(parse(&superblock(version)), Ok(()));
        for other in [0, version + 1, u32::MAX] {
            assert_eq!(parse(&superblock(other)), Err(SuperblockError::NewerVersion(other)));
        }
        let mut changed = superblock(version);
        changed.lanes = U32::new(1);
        assert_eq!(parse(&changed), Err(SuperblockError::Damaged));
        changed = superblock(version);
        changed.magic = [0; 8];
        assert_eq!(parse(&changed), Err(SuperblockError::NotAVolume));
    }
    #[test]
    fn the_key_counts_only_with_its_feature_and_its_checksum() {
        let mut keyed = superblock(crate::features::FORMAT_VERSION);
        keyed.incompat = U64::new(KEYED_NAMES);
        keyed.name_key = NameKey([5; 16]);
        let keyed = keyed.sealed();
        assert_eq!(Superblock::parse(keyed.as_bytes()), Ok(keyed));
        assert_ne!(keyed.seed().name_range(b"name"), Seed::of_volume(&keyed.uuid).name_range(b"name"));
        let mut damaged = keyed;
        damaged.name_key.0[3] ^= 1;
        assert_eq!(Superblock::parse(damaged.as_bytes()), Err(SuperblockError::Damaged));
        // An engine that knows no more than 224 bytes finds a right checksum, and refuses for the feature.
        assert_eq!(keyed.crc.get(), unseeded_crc(&keyed.as_bytes()[12..224]));
        let plain = superblock(crate::features::FORMAT_VERSION);
        let mut followed = plain;
        (followed.name_crc, followed.name_key) = (U32::new(1), NameKey([1; 16]));
        assert_eq!(Superblock::parse(followed.as_bytes()), Ok(plain), "what follows means nothing");
        assert_eq!(plain.seed(), Seed::of_volume(&plain.uuid));
    }
}
