//! docs/FORMAT.md gives the numbers that the code has.

use lodefs_layout::blob::BLOB_HEAD_SIZE;
use lodefs_layout::directory::{CHILDREN_MAX, FIRST_HASH, HEAD_SIZE, LEVELS_MAX, TAGS};
use lodefs_layout::extent::{InlineExtent, SLOTS, SLOTS_START};
use lodefs_layout::inode::{INLINE_EXTENTS, INLINE_SIZE};
use lodefs_layout::inode_map::CHUNK_INODES;
use lodefs_layout::journal::{RECORD_ALIGN, RECORD_HEAD_SIZE, RECORD_SIZE_MAX, WRITE_HEAD_SIZE};
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
