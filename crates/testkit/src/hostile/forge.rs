//! Journal records that the engine never wrote.

use std::ops::Range;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::checksum::Seed;
use lodefs_layout::journal::{
    RECORD_ALIGN, RECORD_HEAD_SIZE, RECORD_SIZE_MAX, WRITE_HEAD_SIZE, WriteHead, claimed_size, seal, verify,
};
use lodefs_layout::state::State;
use zerocopy::IntoBytes;

use super::image::Image;

/// Where the journal of a volume is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    start: u64,
    lanes: u64,
    half_size: u64,
    seed: Seed,
}

impl Journal {
    /// According to the superblock.
    pub(super) fn of(image: &Image) -> Self {
        let superblock = image.superblock();
        let lanes = u64::from(superblock.lanes.get());
        Self {
            start: superblock.journal.start.get() * BLOCK_SIZE,
            lanes,
            half_size: superblock.journal.blocks.get() / (2 * lanes) * BLOCK_SIZE,
            seed: image.seed(),
        }
    }

    /// The half of a lane in which the records of a generation are.
    fn half(&self, lane: u64, generation: u64) -> Range<u64> {
        let start = self.start + (lane % self.lanes * 2 + generation % 2) * self.half_size;
        start..start + self.half_size
    }

    /// The records that recovery finds: where they are, and their sizes.
    pub(super) fn records(&self, volume: &[u8], state: &State) -> Vec<(u64, usize)> {
        let generation = state.generation.get();
        let halves = (0..self.lanes).flat_map(|lane| [(lane, generation), (lane, generation + 1)]);
        halves.flat_map(|(lane, generation)| self.records_in(volume, lane, generation)).collect()
    }

    fn records_in(&self, volume: &[u8], lane: u64, generation: u64) -> Vec<(u64, usize)> {
        let half = self.half(lane, generation);
        let mut found = Vec::new();
        let mut at = half.start;
        while let Some(size) = self.size_of_record(volume, at..half.end, generation) {
            found.push((at, size));
            at += size.next_multiple_of(RECORD_ALIGN) as u64;
        }
        found
    }

    /// The size of the record at the start of `place`, if there is one.
    fn size_of_record(&self, volume: &[u8], place: Range<u64>, generation: u64) -> Option<usize> {
        let bytes = volume.get(place.start as usize..place.end as usize)?;
        let head = bytes.first_chunk::<RECORD_HEAD_SIZE>()?;
        let size = claimed_size(head, generation)?;
        verify(bytes.get(..size)?, self.seed).map(|_| size)
    }

    /// Adds a record behind those of a generation in a lane, if it has room. Returns where it is.
    pub(super) fn add(
        &self,
        volume: &mut [u8],
        lane: u64,
        generation: u64,
        seq: u64,
        writes: &[(u64, Vec<u8>)],
    ) -> Option<Range<u64>> {
        let mut record = vec![0; RECORD_HEAD_SIZE];
        for (offset, bytes) in writes {
            let size = bytes.len() as u32;
            record.extend(
                WriteHead { offset: (*offset).into(), size: size.into(), reserved: 0.into() }.as_bytes(),
            );
            record.extend(bytes);
            record.resize(record.len().next_multiple_of(8), 0);
        }
        seal(&mut record, generation, seq, self.seed);
        let half = self.half(lane, generation);
        let last = self.records_in(volume, lane, generation).pop();
        let at = last.map_or(half.start, |(at, size)| at + size.next_multiple_of(RECORD_ALIGN) as u64);
        let range = at..at + record.len() as u64;
        if range.end > half.end {
            return None;
        }
        volume[range.start as usize..range.end as usize].copy_from_slice(&record);
        Some(range)
    }

    /// Most bytes that a record with one write can store.
    pub(super) const WRITE_MAX: usize = RECORD_SIZE_MAX - RECORD_HEAD_SIZE - WRITE_HEAD_SIZE;
}
