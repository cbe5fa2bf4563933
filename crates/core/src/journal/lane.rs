//! One lane of the journal: a place where one operation at a time puts its record.
//!
//! The lock of a lane is held from the moment an operation draws its sequence number until its writes are at home
//! (in memory). Whoever holds the locks of all lanes therefore knows that every sequence number drawn so far belongs
//! to an operation that is completely recorded and applied.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::journal::RECORD_ALIGN;
use lodefs_pmem::DirtyRanges;

use crate::volume::Volume;

pub(crate) struct Lane {
    /// Where the lane starts on the volume, in bytes.
    start: u64,
    /// Bytes in each of its halves.
    half_size: u64,
    /// The generation that records belong to now; picks the half.
    pub(crate) generation: u64,
    /// Bytes of the present half that are taken.
    pub(crate) used: u64,
    /// What the records of this generation changed at home and is not known to be durable there.
    pub(crate) dirty: DirtyRanges,
}

impl Lane {
    pub(crate) fn new(volume: &Volume, index: u64, generation: u64) -> Self {
        let half_size = volume.shape.half_blocks * BLOCK_SIZE;
        Self {
            start: lane_start(volume, index),
            half_size,
            generation,
            used: 0,
            dirty: DirtyRanges::default(),
        }
    }

    /// Takes room for a record of `size` bytes and returns where it goes; `None` if the half is full.
    pub(crate) fn reserve(&mut self, size: usize) -> Option<u64> {
        let at = half_start(self.start, self.half_size, self.generation) + self.used;
        let taken = self.used + size.next_multiple_of(RECORD_ALIGN) as u64;
        if taken > self.half_size {
            return None;
        }
        self.used = taken;
        Some(at)
    }

    /// Whether it is time for a checkpoint.
    pub(crate) fn is_filling(&self) -> bool {
        self.used > self.half_size / 4 * 3
    }

    /// Goes on in the other half, and hands over what has to become durable at home.
    pub(crate) fn turn_over(&mut self, generation: u64) -> DirtyRanges {
        self.generation = generation;
        self.used = 0;
        std::mem::take(&mut self.dirty)
    }
}

/// Where lane `index` starts, in bytes.
pub(crate) fn lane_start(volume: &Volume, index: u64) -> u64 {
    (volume.shape.journal_start + index * 2 * volume.shape.half_blocks) * BLOCK_SIZE
}

/// Where the half for `generation` of the lane at `start` begins.
pub(crate) fn half_start(start: u64, half_size: u64, generation: u64) -> u64 {
    start + generation % 2 * half_size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_holds_what_fits_and_nothing_more() {
        let (start, half_size) = (64 * BLOCK_SIZE, 4 * BLOCK_SIZE);
        let mut lane = Lane { start, half_size, generation: 6, used: 0, dirty: DirtyRanges::default() };
        let most = usize::try_from(half_size).unwrap() - RECORD_ALIGN;
        assert_eq!(lane.reserve(most), Some(start));
        assert_eq!(lane.reserve(RECORD_ALIGN + 1), None, "it would reach into the other half");
        assert_eq!(lane.reserve(1), Some(start + half_size - RECORD_ALIGN as u64));
        assert_eq!(lane.reserve(1), None, "there is no byte left");
        let dirty = lane.turn_over(7);
        assert!(dirty.is_empty());
        assert_eq!(lane.reserve(1), Some(start + half_size));
    }
}
