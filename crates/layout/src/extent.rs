//! Extents: which blocks hold which part of a file.
//!
//! The first few lie in the inode. More lie in *extent blocks*, chained from the inode; there each slot has a
//! checksum of its own and the slots are in no order, so that adding, changing or dropping one extent writes one
//! slot. The engine sorts them in memory when it first needs them.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BLOCK_SIZE;
use crate::checksum::Seed;

/// An extent within an inode, which checksums it. No blocks: the slot is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InlineExtent {
    /// First block within the file.
    pub logical: U64,
    /// First block on the volume.
    pub physical: U64,
    /// Number of blocks.
    pub blocks: U32,
    /// Unused, zero.
    pub flags: U32,
}

/// An extent in an extent block. All zero: the slot is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExtentSlot {
    /// The extent.
    pub extent: InlineExtent,
    crc: U32,
    /// Unused, zero.
    pub reserved: U32,
}

impl ExtentSlot {
    /// A slot that holds `extent` of inode `owner`.
    pub fn new(extent: InlineExtent, owner: u64, seed: Seed) -> Self {
        Self { extent, crc: U32::new(seed.crc(owner, extent.as_bytes())), reserved: U32::ZERO }
    }

    /// Whether the slot holds nothing.
    pub fn is_free(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == 0)
    }

    /// Whether the slot holds an extent of inode `owner`.
    pub fn is_valid(&self, owner: u64, seed: Seed) -> bool {
        *self == Self::new(self.extent, owner, seed)
    }
}

const EXTENT_BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"Lxb1");

/// Head of an extent block; [`SLOTS`] slots follow. Written once, before the block is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExtentBlockHead {
    crc: U32,
    magic: U32,
    /// The inode whose extents these are.
    pub owner: U64,
    /// The next block of the chain, or zero.
    pub next: U64,
    /// Unused, zero.
    pub reserved: [U64; 5],
}

/// Bytes before the first slot of an extent block.
pub const SLOTS_START: usize = size_of::<ExtentBlockHead>();
/// Bytes in a slot.
pub const SLOT_SIZE: usize = size_of::<ExtentSlot>();
/// Slots in an extent block.
pub const SLOTS: usize = 126;
/// Most blocks in one extent (32 GiB; keeps sums of a few extents far from overflow).
pub const EXTENT_BLOCKS_MAX: u64 = 1 << 23;

const _: () = assert!(SLOTS_START == 64 && SLOT_SIZE == 32 && size_of::<InlineExtent>() == 24);
const _: () = assert!((SLOTS_START + SLOTS * SLOT_SIZE) as u64 == BLOCK_SIZE);

impl ExtentBlockHead {
    /// The head of an extent block at `block`.
    pub fn new(owner: u64, next: u64, block: u64, seed: Seed) -> Self {
        let mut head = Self {
            crc: U32::ZERO,
            magic: U32::new(EXTENT_BLOCK_MAGIC),
            owner: U64::new(owner),
            next: U64::new(next),
            reserved: [U64::ZERO; 5],
        };
        head.crc = U32::new(seed.crc(block, &head.as_bytes()[4..]));
        head
    }

    /// Whether this is the head of an extent block of inode `owner` at `block`.
    pub fn is_valid(&self, owner: u64, block: u64, seed: Seed) -> bool {
        *self == Self::new(owner, self.next.get(), block, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_valid_where_it_belongs_and_unchanged() {
        let seed = Seed::of_volume(&[3; 16]);
        let head = ExtentBlockHead::new(5, 7, 9, seed);
        assert!(head.is_valid(5, 9, seed));
        assert!(!head.is_valid(6, 9, seed) && !head.is_valid(5, 8, seed));
        assert!(!head.is_valid(5, 9, Seed::of_volume(&[4; 16])));
        let mut changed = head;
        changed.next = U64::new(8);
        assert!(!changed.is_valid(5, 9, seed));
        changed = head;
        changed.reserved[4] = U64::new(1);
        assert!(!changed.is_valid(5, 9, seed));
    }
}
