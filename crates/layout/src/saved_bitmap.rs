//! The allocation bitmap as it is saved at a clean unmount, so that the next open need not look at every inode.
//!
//! While the volume is in use the bitmap lives in memory only; after a crash it is rebuilt from the inodes. It is
//! believed only if the state says that the volume is clean.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BLOCK_SIZE;
use crate::checksum::Seed;

/// Words of 64 bits in one bitmap block.
pub const WORDS: usize = 504;
/// Blocks of the volume that one bitmap block covers.
pub const COVERED_BLOCKS: u64 = WORDS as u64 * 64;

/// One block of the saved bitmap.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BitmapBlock {
    crc: U32,
    /// Unused, zero.
    pub reserved: U32,
    /// The state update with which it was saved: older bitmaps do not count.
    pub update: U64,
    /// Unused, zero.
    pub reserved2: [U64; 6],
    /// A bit for each block, least significant first; 1 means in use.
    pub words: [U64; WORDS],
}

const _: () = assert!(size_of::<BitmapBlock>() as u64 == BLOCK_SIZE);

impl BitmapBlock {
    /// The bitmap block `index` with these words, saved with state update `update`.
    pub fn new(index: u64, update: u64, words: [U64; WORDS], seed: Seed) -> Self {
        let mut block = Self {
            crc: U32::ZERO,
            reserved: U32::ZERO,
            update: U64::new(update),
            reserved2: [U64::ZERO; 6],
            words,
        };
        block.crc = U32::new(block.checksum(index, seed));
        block
    }

    fn checksum(&self, index: u64, seed: Seed) -> u32 {
        seed.crc(index, &self.as_bytes()[4..])
    }

    /// Whether this is bitmap block `index`, saved with state update `update`.
    pub fn is_valid(&self, index: u64, update: u64, seed: Seed) -> bool {
        self.update.get() == update && self.crc.get() == self.checksum(index, seed)
    }
}

/// Blocks that the bitmap of a volume needs.
pub fn blocks_for(total_blocks: u64) -> u64 {
    total_blocks.div_ceil(COVERED_BLOCKS)
}
