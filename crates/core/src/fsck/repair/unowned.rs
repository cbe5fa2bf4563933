//! What is in blocks that nobody seems to own? Chunks of inodes that the map does not know: each inode carries its number
//! and a checksum over it, so its chunk is known by what is in it. And leaves of directories, of which some may hang below
//! damage.
//!
//! Looked for among the blocks that nobody owns, and at none of them twice: that takes as long as reading them. What a
//! repair writes itself is looked at again before it is believed.

use std::collections::BTreeMap;

use lodefs_layout::directory::BlockHead;
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::CHUNK_INODES;
use zerocopy::FromBytes;

use crate::error::Result;
use crate::fsck::claims::BlockSet;
use crate::fsck::directories::{RawBlock, read_block};
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// The blocks without an owner that look like metadata.
pub(super) struct Unowned {
    looked_at: BlockSet,
    /// Nothing has become unowned since all were looked at.
    is_current: bool,
    by_chunk: BTreeMap<u64, Vec<u64>>,
    leaves: BlockSet,
    /// The same, by the directory that each belongs to, or did.
    leaves_of: BTreeMap<u64, Vec<u64>>,
}

/// What a block holds of the chunk that it may be.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    chunk: u64,
    /// Inodes with the right checksum, free ones too.
    inodes: u32,
    /// One of them has a name, or had one when it was written.
    is_in_use: bool,
}

impl Unowned {
    /// None are known on a volume of so many blocks.
    pub(super) fn new(total_blocks: u64) -> Self {
        let none = BlockSet::new(total_blocks);
        Self {
            looked_at: none.clone(),
            is_current: false,
            by_chunk: BTreeMap::new(),
            leaves: none,
            leaves_of: BTreeMap::new(),
        }
    }

    /// A new survey says which blocks are used.
    pub(super) fn expire(&mut self) {
        self.is_current = false;
    }

    /// Looks at all blocks that are not `used`, which only a survey changes.
    pub(super) fn look(&mut self, volume: &Volume, used: &BlockSet) -> Result<()> {
        if self.is_current {
            return Ok(());
        }
        for block in volume.shape.data_start..volume.shape.data_end {
            if used.contains(block) || !self.looked_at.insert(block) {
                continue;
            }
            let bytes = read_block(volume, block)?;
            let (head, _) = BlockHead::ref_from_prefix(&bytes[..]).expect("a block is longer than a head");
            if head.is_leaf(head.owner.get(), block, volume.seed) {
                self.leaves.insert(block);
                self.leaves_of.entry(head.owner.get()).or_default().push(block);
            } else if let Some(content) = content_of(volume, &bytes) {
                self.by_chunk.entry(content.chunk).or_default().push(block);
            }
        }
        self.is_current = true;
        Ok(())
    }

    /// The place of a chunk: the block that is not `used` and holds most of its inodes. The lower one wins a draw, so
    /// that the result is always the same.
    pub(super) fn place_of(&self, volume: &Volume, used: &BlockSet, chunk: u64) -> Result<Option<u64>> {
        let mut best: Option<(u32, u64)> = None;
        for &block in self.by_chunk.get(&chunk).into_iter().flatten().filter(|block| !used.contains(**block))
        {
            let content =
                content_of(volume, &*read_block(volume, block)?).filter(|content| content.chunk == chunk);
            let Some(Content { inodes, .. }) = content else { continue };
            if best.is_none_or(|(most, lowest)| inodes > most || (inodes == most && block < lowest)) {
                best = Some((inodes, block));
            }
        }
        Ok(best.map(|(_, block)| block))
    }

    /// Blocks that look like leaves of directories, or did.
    pub(super) fn leaves(&self) -> &BlockSet {
        &self.leaves
    }

    /// Those of one directory, ascending among what was found at a time.
    pub(super) fn leaves_of(&self, owner: Ino) -> &[u64] {
        self.leaves_of.get(&owner.0).map_or(&[], Vec::as_slice)
    }

    /// The chunks that may be here.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u64> {
        self.by_chunk.keys().copied()
    }
}

/// Whether an inode in this block is in use.
pub(super) fn holds_used(volume: &Volume, block: u64) -> Result<bool> {
    Ok(content_of(volume, &*read_block(volume, block)?).is_some_and(|content| content.is_in_use))
}

/// What a block is if it is a chunk of inodes. Of several, the one with most inodes in it.
fn content_of(volume: &Volume, bytes: &RawBlock) -> Option<Content> {
    let mut found: Vec<Content> = Vec::new();
    for (index, raw) in (0..).zip(bytes.chunks_exact(SLOT_SIZE)) {
        let slot = InodeSlot::read_from_bytes(raw).expect("chunks have the size of a slot");
        let ino = slot.ino.get();
        let chunk = ino / CHUNK_INODES;
        let is_possible = ino % CHUNK_INODES == index && chunk < volume.shape.inode_chunks_max;
        if !is_possible || !slot.is_valid(ino, volume.seed) {
            continue;
        }
        let is_in_use = slot.links.get() > 0 && Kind::from_mode(slot.mode.get()).is_some();
        match found.iter_mut().find(|content| content.chunk == chunk) {
            Some(content) => {
                content.inodes += 1;
                content.is_in_use |= is_in_use;
            }
            None => found.push(Content { chunk, inodes: 1, is_in_use }),
        }
    }
    // The first wins a draw.
    found.into_iter().rev().max_by_key(|content| content.inodes)
}
