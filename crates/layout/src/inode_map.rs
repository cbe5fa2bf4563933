//! The inode map: where each chunk of inodes lies.
//!
//! Inode `i` is slot `i % 16` of chunk `i / 16`; a chunk is one block. Chunks are added when needed, and given back when
//! all their inodes are free; their numbers are used again. A crash can tear no entry: it is written through the journal.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Seed;
use crate::{BLOCK_SIZE, inode};

/// Inodes in a chunk.
pub const CHUNK_INODES: u64 = BLOCK_SIZE / inode::SLOT_SIZE as u64;
/// Bytes in an entry.
pub const ENTRY_SIZE: u64 = size_of::<Entry>() as u64;

/// One entry of the inode map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Entry {
    /// The chunk's block; zero if it was given back.
    pub block: U64,
    crc: U32,
    /// Unused, zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such chunk yet, nor any behind it.
    Absent,
    /// The chunk was given back.
    Gone,
    /// The chunk is this block.
    At(u64),
    /// The entry's checksum is wrong.
    Damaged,
}

impl Entry {
    /// The entry for chunk `index`, which is `block`.
    pub fn new(index: u64, block: u64, seed: Seed) -> Self {
        let crc = seed.crc(index, &block.to_le_bytes());
        Self { block: U64::new(block), crc: U32::new(crc), reserved: U32::ZERO }
    }

    /// The entry for chunk `index` when it was given back.
    pub fn gone(index: u64, seed: Seed) -> Self {
        Self::new(index, 0, seed)
    }

    /// Interprets the entry of chunk `index`.
    pub fn interpret(&self, index: u64, seed: Seed) -> Found {
        if self.as_bytes().iter().all(|byte| *byte == 0) {
            return Found::Absent;
        }
        match self.block.get() {
            block if *self != Self::new(index, block, seed) => Found::Damaged,
            // The root is in the first one.
            0 if index == 0 => Found::Damaged,
            0 => Found::Gone,
            block => Found::At(block),
        }
    }
}

/// Most chunks of inodes on a volume: one inode for each KiB.
pub fn chunks_max(total_blocks: u64) -> u64 {
    (total_blocks * (BLOCK_SIZE / 1024)).div_ceil(CHUNK_INODES)
}

/// Blocks that the map of a volume needs.
pub fn blocks_for(total_blocks: u64) -> u64 {
    (chunks_max(total_blocks) * ENTRY_SIZE).div_ceil(BLOCK_SIZE)
}
