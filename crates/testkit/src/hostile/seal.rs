//! Making the checksum of a structure right, whatever is in it.

use std::mem::offset_of;
use std::ops::Range;

use lodefs_layout::blob::{BLOB_HEAD_SIZE, BlobHead};
use lodefs_layout::checksum::{Seed, unseeded_crc};
use lodefs_layout::directory::{ENTRY_HEAD_SIZE, EntryHead};
use lodefs_layout::journal::RecordHead;
use lodefs_layout::superblock::Superblock;
use zerocopy::{FromBytes, IntoBytes};

use super::structure::{Kind, Structure};

/// The seed of a volume according to its first superblock, whether that is intact or not.
pub(super) fn seed_of(bytes: &[u8]) -> Seed {
    let superblock = Superblock::read_from_prefix(bytes);
    superblock.map_or_else(|_| Seed::of_volume(&[0; 16]), |(superblock, _)| superblock.seed())
}

/// Fills in the checksum. What the structure says of its own size counts as far as there are bytes.
pub(super) fn seal(volume: &mut [u8], structure: &Structure, seed: Seed) {
    let Some(bytes) = volume.get_mut(structure.at as usize..) else { return };
    if bytes.len() < structure.size {
        return;
    }
    let salted = |bytes: &[u8], range: Range<usize>| seed.crc(structure.salt, &bytes[range]);
    let (place, crc) = match structure.kind {
        Kind::Tags => return,
        Kind::Superblock => {
            seal_names(bytes);
            (8, unseeded_crc(&bytes[12..offset_of!(Superblock, name_crc)]))
        }
        Kind::MapEntry => (8, salted(bytes, 0..8)),
        Kind::ExtentSlot => (24, salted(bytes, 0..24)),
        Kind::State | Kind::Inode | Kind::ExtentHead | Kind::Node | Kind::LeafHead | Kind::Bitmap => {
            (0, salted(bytes, 4..structure.size))
        }
        Kind::Record => {
            let size = RecordHead::read_from_prefix(bytes).map_or(0, |(head, _)| head.size.get() as usize);
            (0, salted(bytes, 4..size.clamp(4, bytes.len())))
        }
        Kind::Entry => {
            let size = EntryHead::read_from_prefix(bytes).map_or(0, |(head, _)| usize::from(head.name_size));
            (0, chained(bytes, ENTRY_HEAD_SIZE, size, structure.salt, seed))
        }
        Kind::Xattrs | Kind::Target => {
            let size = BlobHead::read_from_prefix(bytes).map_or(0, |(head, _)| head.size.get() as usize);
            (0, chained(bytes, BLOB_HEAD_SIZE, size.min(bytes.len()), structure.salt, seed))
        }
    };
    bytes[place..place + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Fills in the checksum of the key of the names, if the superblock says that there is one.
fn seal_names(superblock: &mut [u8]) {
    if let Ok((found, _)) = Superblock::read_from_prefix(superblock)
        && found.has_keyed_names()
    {
        let at = offset_of!(Superblock, name_crc);
        superblock[at..at + 4].copy_from_slice(found.sealed().name_crc.as_bytes());
    }
}

/// The checksum of a head and, with that as its owner, of the `size` bytes behind it.
fn chained(bytes: &[u8], head_size: usize, size: usize, salt: u64, seed: Seed) -> u32 {
    let head = seed.crc(salt, &bytes[4..head_size]);
    let end = (head_size + size).min(bytes.len());
    seed.crc(u64::from(head), &bytes[head_size..end])
}

/// Seals every structure that a change of these ranges has touched; all of them, if the change was of the volume's
/// identity, which is in every checksum.
pub(super) fn seal_touched(volume: &mut [u8], all: &[Structure], touched: &[Range<u64>], old_seed: Seed) {
    let seed = seed_of(volume);
    let is_touched = |it: &Structure| {
        touched.iter().any(|range| it.meets(range.start, (range.end - range.start) as usize))
    };
    for structure in all {
        if seed != old_seed || is_touched(structure) {
            seal(volume, structure, seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bases;
    use super::*;

    #[test]
    fn what_is_right_stays_as_it_is() {
        for base in bases::all() {
            let mut bytes = base.image.bytes().to_vec();
            for structure in base.atlas.structures() {
                // A slot that never held anything has no checksum.
                let content = structure.at as usize..structure.end() as usize;
                if bytes[content].iter().all(|byte| *byte == 0) {
                    continue;
                }
                seal(&mut bytes, structure, base.image.seed());
                assert!(bytes == base.image.bytes(), "{}: {structure:?}", base.name);
            }
        }
    }
}
