//! Where the regions of a volume of a given size lie. mkfs lays it out like this, and a superblock that says otherwise is
//! not believed.

use crate::superblock::Region;
use crate::{BLOCK_SIZE, CHUNK_BLOCKS, inode_map, journal, saved_bitmap};
use zerocopy::little_endian::U64;

/// Smallest volume, in bytes.
pub const VOLUME_SIZE_MIN: u64 = 1 << 20;
/// Largest volume, in bytes: what a process can map with room to spare.
pub const VOLUME_SIZE_MAX: u64 = 1 << 46;

/// The regions of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks in the whole volume.
    pub total_blocks: u64,
    /// Number of journal lanes.
    pub lanes: u32,
    /// State slots.
    pub state: Region,
    /// Journal.
    pub journal: Region,
    /// Inode map.
    pub inode_map: Region,
    /// Saved allocation bitmap.
    pub saved_bitmap: Region,
    /// Inodes, directories, file data.
    pub data: Region,
}

/// The size of a volume is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeOutOfRange;

impl Geometry {
    /// Lays out a volume of `bytes` bytes; what does not fill a block is left unused.
    pub fn for_size(bytes: u64) -> Result<Self, SizeOutOfRange> {
        if !(VOLUME_SIZE_MIN..=VOLUME_SIZE_MAX).contains(&bytes) {
            return Err(SizeOutOfRange);
        }
        let total_blocks = bytes / BLOCK_SIZE;
        let (lanes, half_blocks) = journal_shape(total_blocks);
        let mut next = 1;
        let mut take = |blocks: u64| {
            let region = Region { start: U64::new(next), blocks: U64::new(blocks) };
            next += blocks;
            region
        };
        let state = take(2);
        let journal = take(u64::from(lanes) * 2 * half_blocks);
        let inode_map = take(inode_map::blocks_for(total_blocks));
        let saved_bitmap = take(saved_bitmap::blocks_for(total_blocks));
        let data = Region { start: U64::new(next), blocks: U64::new(total_blocks - 1 - next) };
        Ok(Self { total_blocks, lanes, state, journal, inode_map, saved_bitmap, data })
    }
}

/// Lanes and blocks in half a lane: about 1/256 of the volume, within the limits of a record and of the caches.
fn journal_shape(total_blocks: u64) -> (u32, u64) {
    let lanes = if total_blocks < 16 * CHUNK_BLOCKS { 2 } else { 8 };
    let half_blocks = (total_blocks / 256 / (2 * u64::from(lanes)))
        .clamp(journal::HALF_BLOCKS_MIN, journal::HALF_BLOCKS_MAX);
    (lanes, half_blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_volumes_have_fewer_lanes() {
        for (bytes, lanes) in [(VOLUME_SIZE_MIN, 2), ((32 << 20) - 4096, 2), (32 << 20, 8), (1 << 40, 8)] {
            assert_eq!(Geometry::for_size(bytes).unwrap().lanes, lanes, "{bytes} bytes");
        }
    }

    #[test]
    fn regions_are_adjacent_and_fill_the_volume() {
        for bytes in [VOLUME_SIZE_MIN, 3 << 20, 100_000_001, 1 << 30, 1 << 40, VOLUME_SIZE_MAX] {
            let g = Geometry::for_size(bytes).unwrap();
            let mut next = 1;
            for region in [g.state, g.journal, g.inode_map, g.saved_bitmap, g.data] {
                assert_eq!(region.start.get(), next);
                next += region.blocks.get();
            }
            assert_eq!(next, g.total_blocks - 1, "the last block holds the second superblock");
            assert!(g.data.blocks.get() > g.total_blocks / 2, "{bytes} bytes leave too little for data");
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(Geometry::for_size(VOLUME_SIZE_MIN - 1), Err(SizeOutOfRange));
        assert_eq!(Geometry::for_size(VOLUME_SIZE_MAX + 1), Err(SizeOutOfRange));
    }
}
