//! docs/FORMAT.md gives the numbers that the code has.

use std::mem::offset_of;

use lodefs_layout::blob::BLOB_HEAD_SIZE;
use lodefs_layout::directory::{CHILDREN_MAX, FIRST_HASH, HEAD_SIZE, LEVELS_MAX, TAGS};
use lodefs_layout::extent::{InlineExtent, SLOTS, SLOTS_START};
use lodefs_layout::features::KEYED_NAMES;
use lodefs_layout::geometry::Geometry;
use lodefs_layout::inode::{INLINE_EXTENTS, INLINE_SIZE};
use lodefs_layout::inode_map::CHUNK_INODES;
use lodefs_layout::journal::{RECORD_ALIGN, RECORD_HEAD_SIZE, RECORD_SIZE_MAX, WRITE_HEAD_SIZE};
use lodefs_layout::names::{NameHash, NameKey};
use lodefs_layout::saved_bitmap::WORDS;
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use lodefs_layout::{BLOCK_SIZE, extent, inode, inode_map};

#[test]
fn the_document_has_the_numbers_of_the_code() {
    let document: String =
        include_str!("../../../docs/FORMAT.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let claims = [
        format!("blocks have {BLOCK_SIZE} bytes"),
        format!("## Superblock ({} bytes)", size_of::<Superblock>()),
        format!("## State ({} bytes", size_of::<State>()),
        format!("each at a multiple of {RECORD_ALIGN} bytes"),
        format!("A record: head of {RECORD_HEAD_SIZE} bytes"),
        format!("then writes: head of {WRITE_HEAD_SIZE} bytes"),
        format!("At most {RECORD_SIZE_MAX} bytes."),
        format!("Entry `i` ({} bytes)", inode_map::ENTRY_SIZE),
        format!("A chunk is one block with {CHUNK_INODES} inodes"),
        format!("## Inode slot ({} bytes)", inode::SLOT_SIZE),
        format!("| 160 | {INLINE_SIZE} |"),
        format!("An extent ({} bytes)", size_of::<InlineExtent>()),
        format!("has a head of {SLOTS_START} bytes"),
        format!("and {SLOTS} slots of {} bytes", extent::SLOT_SIZE),
        format!("at least {FIRST_HASH}."),
        format!("| incompatible | {KEYED_NAMES:#x} | keyed names |"),
        format!("from byte {} on, and zero without", offset_of!(Superblock, name_crc)),
        format!("Blocks have a head of {HEAD_SIZE} bytes"),
        format!("(level 1 to {LEVELS_MAX},"),
        format!("up to {CHILDREN_MAX} children"),
        format!("{TAGS} tags of 4 bytes"),
        format!("Adjacent blocks: head of {BLOB_HEAD_SIZE} bytes"),
        format!("{WORDS} words of 64 bits"),
    ];
    for claim in claims {
        assert!(document.contains(&claim), "the document does not say: {claim}");
    }
    assert_eq!(INLINE_EXTENTS, 4, "as the document says in words");
}

/// The sizes of the regions as the document says, and the words with which it says so.
#[test]
fn the_document_lays_out_a_volume_as_the_code_does() {
    let document: String =
        include_str!("../../../docs/FORMAT.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let claims = [
        "8 lanes, or 2 if `total` is less than 8192",
        "`total / 256 / (2 * lanes)` blocks, but at least 4 and at most 256",
        "the inode map has an entry for each 4 blocks, and the saved bitmap a block for each 32,256, rounded up",
        "at least 1 MiB, at most 64 TiB",
    ];
    for claim in claims {
        assert!(document.contains(claim), "{claim}");
    }
    for total in [256_u64, 257, 640, 2055, 8191, 8192, 32_256, 32_257, 1 << 20, (1 << 27) + 5, 1 << 34] {
        let lanes = if total < 8192 { 2 } else { 8 };
        let half = (total / 256 / (2 * lanes)).clamp(4, 256);
        let sizes = [2, 2 * lanes * half, total.div_ceil(4).div_ceil(256), total.div_ceil(32_256)];
        let geometry = Geometry::for_size(total * BLOCK_SIZE).unwrap();
        let regions = [geometry.state, geometry.journal, geometry.inode_map, geometry.saved_bitmap];
        assert_eq!(u64::from(geometry.lanes), lanes);
        assert_eq!(regions.map(|region| region.blocks.get()), sizes, "{total}");
        assert_eq!(geometry.data.start.get() + geometry.data.blocks.get(), total - 1);
    }
    assert!(Geometry::for_size((1 << 20) - 1).is_err() && Geometry::for_size((64 << 40) + 1).is_err());
}

/// The hashes of keyed names as the document says.
#[test]
fn the_document_hashes_names_as_the_code_does() {
    let document: String =
        include_str!("../../../docs/FORMAT.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let claims = [
        "the upper 26 bits of SipHash-2-4 of the name, with the key in the superblock, but at least 1",
        "Of the lower 37 bits the lowest is zero.",
        "those whose lower 33 bits are zero, in ascending order (16 hashes)",
        "those from bit 37 on",
    ];
    for claim in claims {
        assert!(document.contains(claim), "{claim}");
    }
    // The first vectors of the reference implementation of SipHash-2-4: nothing, and one byte of zero.
    let key: Vec<u8> = (0..16).collect();
    let names = NameHash::Keyed(NameKey(key.try_into().unwrap()));
    for (name, hash) in [(&b""[..], 0x726f_db47_dd0e_0e31_u64), (&[0], 0x74f8_39c5_93dc_67fd)] {
        let range = names.range(name);
        assert_eq!(range.first, hash >> 38 << 37);
        assert_eq!(range.last, range.first + (1 << 37) - 2);
        assert_eq!(range.slots().count(), 16);
        assert!(range.slots().all(|slot| slot.trailing_zeros() >= 33));
        assert_eq!(u64::from(names.tag_bits(range.first)), hash >> 38 & 0xffff);
    }
}
