//! From a slot that was read to one that makes sense.
//!
//! What is checked here lets the engine use the slot without surprises; whether it agrees with the rest of the volume
//! (links, owners of blocks) is for fsck to find out.

use lodefs_layout::blob::{BLOB_SIZE_MAX, blocks_for};
use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};
use lodefs_layout::{FILE_SIZE_MAX, SYMLINK_MAX};

use crate::types::{Ino, Kind};
use crate::volume::{Run, Volume};

/// Says what is wrong with the slot of inode `ino`, which is in use.
pub(crate) fn fault_of(volume: &Volume, ino: Ino, slot: &InodeSlot) -> Option<&'static str> {
    if !slot.is_valid(ino.0, volume.seed) {
        return Some("wrong checksum");
    }
    let Some(kind) = Kind::from_mode(slot.mode.get()) else { return Some("unknown type") };
    if slot.blocks.get() > volume.shape.total_blocks {
        return Some("impossible number of blocks");
    }
    if slot.times_ns.iter().any(|ns| ns.get() >= 1_000_000_000) {
        return Some("impossible time");
    }
    let xattr_run = Run { start: slot.xattr_block.get(), blocks: blocks_for(slot.xattr_size.get() as usize) };
    let xattr_fine = slot.xattr_block.get() == 0
        || (slot.xattr_size.get() as usize <= BLOB_SIZE_MAX && volume.holds(xattr_run));
    if !xattr_fine {
        return Some("attributes outside of the volume");
    }
    let size = slot.size.get();
    match kind {
        Kind::File if size > FILE_SIZE_MAX => Some("impossible size"),
        Kind::Symlink if size == 0 || size as usize > SYMLINK_MAX => {
            Some("impossible length of a symbolic link")
        }
        Kind::Symlink if size as usize > INLINE_SIZE && slot.root.get() == 0 => Some("target is missing"),
        Kind::Directory if slot.root.get() != 0 && !volume.holds_block(slot.root.get()) => {
            Some("directory block outside of the volume")
        }
        Kind::Directory if slot.links.get() == 1 => Some("impossible number of links"),
        _ => None,
    }
}
