//! Every decoder, with bytes that have nothing to do with what it expects.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::blob::{BLOB_HEAD_SIZE, BlobHead, XattrHead};
use lodefs_layout::checksum::Seed;
use lodefs_layout::directory::{BlockHead, ENTRY_HEAD_SIZE, EntryHead, Leaf, Node, tag_position};
use lodefs_layout::extent::{ExtentBlockHead, ExtentSlot, InlineExtent};
use lodefs_layout::inode::InodeSlot;
use lodefs_layout::inode_map::Entry;
use lodefs_layout::journal::{RECORD_HEAD_SIZE, claimed_size, verify, writes};
use lodefs_layout::names::NameKey;
use lodefs_layout::saved_bitmap::BitmapBlock;
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use zerocopy::FromBytes;

use super::atlas::Kind;
use super::choices::Choices;
use super::edit::Case;

/// Takes the input for each structure in turn, by the functions that read them.
pub(super) fn parse(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (owner, block) = (choices.number(), choices.number());
    let bytes = choices.rest();
    let mut seed = Seed::of_volume(&[7; 16]);
    if owner % 2 == 1 {
        seed = seed.with_name_key(NameKey([3; 16]));
    }
    if let Ok(found) = Superblock::parse(bytes) {
        assert_eq!(found.sealed(), found);
    }
    if let Some(found) = State::parse(bytes, seed) {
        assert_eq!(found.sealed(seed), found);
    }
    parse_record(bytes, seed);
    parse_directory(bytes, owner, block, seed);
    if let Ok((slot, _)) = InodeSlot::read_from_prefix(bytes) {
        let mut again = slot.sealed(owner, seed);
        assert_eq!(again.is_valid(owner, seed), slot.ino.get() == owner);
        again.set_inline_extents(slot.inline_extents());
        assert_eq!(again.inline, slot.inline);
    }
    if let Ok((entry, _)) = Entry::read_from_prefix(bytes) {
        let _ = entry.interpret(owner, seed);
    }
    if let Ok((slot, _)) = ExtentSlot::read_from_prefix(bytes) {
        let again = ExtentSlot::new(slot.extent, owner, seed);
        assert!(again.is_valid(owner, seed) && !(slot.is_free() && slot.is_valid(owner, seed)));
    }
    if let Ok((head, _)) = ExtentBlockHead::read_from_prefix(bytes) {
        let _ = head.is_valid(owner, block, seed);
    }
    if let Ok((bitmap, _)) = BitmapBlock::read_from_prefix(bytes) {
        let _ = bitmap.is_valid(owner, block, seed);
    }
    if let Ok((head, content)) = BlobHead::read_from_prefix(bytes) {
        let _ = head.is_valid(owner, content, seed);
        assert!(BlobHead::new(owner, content, seed).is_valid(owner, content, seed));
    }
    let _ = (XattrHead::read_from_prefix(bytes), InlineExtent::read_from_prefix(bytes));
}

/// The writes of a record lie one behind the other within it.
fn parse_record(bytes: &[u8], seed: Seed) {
    if let Some(head) = bytes.first_chunk::<RECORD_HEAD_SIZE>() {
        let _ = claimed_size(head, u64::from(bytes[0]));
    }
    let _ = verify(bytes, seed);
    let stored: usize = writes(bytes).flatten().map(|(_, content)| content.len()).sum();
    assert!(stored <= bytes.len());
}

fn parse_directory(bytes: &[u8], owner: u64, block: u64, seed: Seed) {
    if let Ok((head, _)) = BlockHead::read_from_prefix(bytes) {
        let _ = (head.is_leaf(owner, block, seed), head.claimed_level());
    }
    if let Ok((node, _)) = Node::read_from_prefix(bytes) {
        let _ = node.is_valid(owner, block, node.head.claimed_level(), seed);
        let again = Node::new(owner, block, node.head.claimed_level(), node.children(), seed);
        let is_sorted = node.children().is_sorted_by_key(|child| child.hash.get());
        let is_good = is_sorted && !node.children().is_empty();
        assert_eq!(again.is_valid(owner, block, node.head.claimed_level(), seed), is_good);
    }
    if let Ok((leaf, _)) = Leaf::read_from_prefix(bytes) {
        let _ = leaf.tags.iter().map(|tag| tag_position(tag.get())).max();
    }
    if let Ok((head, rest)) = EntryHead::read_from_prefix(bytes) {
        let _ = head.is_valid(owner, rest, seed);
        let name = &rest[..rest.len().min(usize::from(head.name_size))];
        let hash = seed.name_range(name).first;
        assert!(
            EntryHead::new(owner, name, hash, head.ino.get(), head.kind, seed).is_valid(owner, name, seed)
        );
    }
}

/// A volume on which one structure is replaced by the input, behind its head and under a right checksum, so that the
/// engine's own decoders get it.
pub(super) fn place(data: &[u8]) -> Option<Case> {
    let mut choices = Choices::new(data);
    let mut case = Case::unchanged(&mut choices);
    let kind = Kind::ALL[usize::from(choices.byte()) % Kind::ALL.len()];
    let keeps_head = choices.byte() & 1 == 0;
    let structure = *choices.pick(case.base.atlas.of_kind(kind))?;
    let head = match kind {
        Kind::Record => RECORD_HEAD_SIZE,
        Kind::Superblock | Kind::Node | Kind::Bitmap => 64,
        Kind::Inode => 16,
        Kind::State | Kind::ExtentHead => 8,
        Kind::Xattrs | Kind::Target => BLOB_HEAD_SIZE,
        Kind::Entry => ENTRY_HEAD_SIZE,
        Kind::MapEntry | Kind::ExtentSlot | Kind::LeafHead | Kind::Tags => 0,
    };
    // The tags of a leaf come with its heap.
    let end = if kind == Kind::Tags { (structure.at / BLOCK_SIZE + 1) * BLOCK_SIZE } else { structure.end() };
    let start = structure.at + if keeps_head { head as u64 } else { 0 };
    let content = choices.rest();
    let content = &content[..content.len().min((end - start) as usize)];
    if matches!(kind, Kind::Xattrs | Kind::Target) && keeps_head {
        case.resize_blob(&structure, content.len());
    }
    case.apply_bytes(start, content, true);
    Some(case)
}
