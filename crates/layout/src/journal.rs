//! Journal records: the bytes that a metadata operation will have written, in one checksummed unit.
//!
//! A lane is used by one operation at a time. It has two halves, for even and odd generations; within a half
//! records follow each other from its start. A record counts if its checksum, its generation and its size are
//! right; the first one that does not ends the lane. A crash can tear only the last record of a lane, the
//! operation of which had not returned.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Seed;

/// Fewest blocks in half a lane.
pub const HALF_BLOCKS_MIN: u64 = 4;
/// Most blocks in half a lane (1 MiB): small enough to stay in a cache, large enough to make checkpoints rare.
pub const HALF_BLOCKS_MAX: u64 = 256;
/// Records start at multiples of this, so that no two share a cache line.
pub const RECORD_ALIGN: usize = 64;
/// Longest record in bytes; half a lane always has room for one.
pub const RECORD_SIZE_MAX: usize = (HALF_BLOCKS_MIN * crate::BLOCK_SIZE) as usize;

/// Head of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RecordHead {
    /// Checksum of everything behind this field, up to `size`.
    pub crc: U32,
    /// Bytes in the record, head included, without the padding to [`RECORD_ALIGN`].
    pub size: U32,
    /// The generation the record belongs to.
    pub generation: U64,
    /// Orders the records of all lanes.
    pub seq: U64,
}

/// Head of one write within a record; `size` bytes follow, padded to a multiple of eight.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct WriteHead {
    /// Where the bytes belong, from the start of the volume.
    pub offset: U64,
    /// How many bytes.
    pub size: U32,
    /// Unused, zero.
    pub reserved: U32,
}

/// Size of a [`RecordHead`].
pub const RECORD_HEAD_SIZE: usize = size_of::<RecordHead>();
/// Size of a [`WriteHead`].
pub const WRITE_HEAD_SIZE: usize = size_of::<WriteHead>();
const _: () = assert!(RECORD_HEAD_SIZE == 24 && WRITE_HEAD_SIZE == 16);

/// Completes the head of the record in `bytes`, which already holds the writes.
pub fn seal(bytes: &mut [u8], generation: u64, seq: u64, seed: Seed) {
    let mut head = RecordHead {
        crc: U32::ZERO,
        size: U32::new(bytes.len() as u32),
        generation: U64::new(generation),
        seq: U64::new(seq),
    };
    bytes[..RECORD_HEAD_SIZE].copy_from_slice(head.as_bytes());
    head.crc = U32::new(seed.crc(0, &bytes[4..]));
    bytes[..4].copy_from_slice(head.crc.as_bytes());
}

/// The size that the record's head claims, if it can be the head of a record of this generation at all.
pub fn claimed_size(head: &[u8; RECORD_HEAD_SIZE], generation: u64) -> Option<usize> {
    let head = RecordHead::read_from_bytes(head).ok()?;
    let size = head.size.get() as usize;
    (head.generation.get() == generation && (RECORD_HEAD_SIZE..=RECORD_SIZE_MAX).contains(&size))
        .then_some(size)
}

/// Checks the record in `bytes` and returns its sequence number.
pub fn verify(bytes: &[u8], seed: Seed) -> Option<u64> {
    let (head, _) = RecordHead::read_from_prefix(bytes).ok()?;
    (seed.crc(0, bytes.get(4..)?) == head.crc.get()).then(|| head.seq.get())
}

/// The writes of a verified record, each with the offset it goes to. Ends early, with `None` as the last item, if
/// the record's inside does not add up.
pub fn writes(record: &[u8]) -> impl Iterator<Item = Option<(u64, &[u8])>> {
    let mut rest = record.get(RECORD_HEAD_SIZE..).unwrap_or_default();
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = split_write(rest);
        rest = parsed.map_or(&[], |(_, _, tail)| tail);
        Some(parsed.map(|(offset, bytes, _)| (offset, bytes)))
    })
}

fn split_write(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (head, tail) = WriteHead::read_from_prefix(bytes).ok()?;
    let size = head.size.get() as usize;
    let content = tail.get(..size)?;
    let rest = tail.get(size.next_multiple_of(8)..)?;
    Some((head.offset.get(), content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn record(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut bytes = std::vec![0; RECORD_HEAD_SIZE];
        for (offset, content) in parts {
            let head = WriteHead {
                offset: U64::new(*offset),
                size: U32::new(content.len() as u32),
                reserved: U32::ZERO,
            };
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    #[test]
    fn a_sealed_record_reads_back() {
        let seed = Seed::of_volume(&[3; 16]);
        let mut bytes = record(&[(4096, b"hello"), (8192, b"12345678")]);
        seal(&mut bytes, 5, 9, seed);
        let head = bytes[..RECORD_HEAD_SIZE].try_into().unwrap();
        assert_eq!(claimed_size(&head, 5), Some(bytes.len()));
        assert_eq!(claimed_size(&head, 6), None);
        assert_eq!(verify(&bytes, seed), Some(9));
        let parts: Vec<_> = writes(&bytes).collect();
        assert_eq!(parts, [Some((4096, &b"hello"[..])), Some((8192, &b"12345678"[..]))]);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let seed = Seed::of_volume(&[3; 16]);
        let mut bytes = record(&[(4096, b"hello")]);
        seal(&mut bytes, 5, 9, seed);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&bytes, seed), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn nonsense_inside_ends_the_writes() {
        let mut bytes = record(&[(4096, b"hello")]);
        bytes[RECORD_HEAD_SIZE + 8] = 200;
        assert_eq!(writes(&bytes).collect::<Vec<_>>(), [None]);
    }
}
