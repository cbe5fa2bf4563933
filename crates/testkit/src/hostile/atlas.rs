//! Where everything is on a volume that is in order.

use lodefs_core::Kind as InodeKind;
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::blob::{BLOB_HEAD_SIZE, BlobHead};
use lodefs_layout::directory::{HEAD_SIZE, TAGS, TAGS_START, entry_size};
use lodefs_layout::extent::{SLOT_SIZE as EXTENT_SLOT_SIZE, SLOTS_START};
use lodefs_layout::inode::{INLINE_SIZE, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry, Found};
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;

use super::forge::Journal;
use super::image::Image;
pub use super::structure::{Kind, Structure};

/// The structures of a volume.
#[derive(Clone, Debug, Default)]
pub struct Atlas {
    structures: Vec<Structure>,
    by_kind: Vec<Vec<Structure>>,
    inodes: Vec<u64>,
    blocks: Vec<u64>,
}

impl Atlas {
    /// Looks at a volume that is in order, or was when it crashed.
    pub fn of(image: &Image) -> Self {
        let mut atlas = Self::default();
        atlas.add_fixed(image);
        for chunk in 0..image.chunks() {
            atlas.add_chunk(image, chunk);
        }
        let of_kind = |kind| atlas.structures.iter().filter(|it| it.kind == kind).copied().collect();
        atlas.by_kind = Kind::ALL.into_iter().map(of_kind).collect();
        atlas.blocks = atlas.structures.iter().map(|structure| structure.at / BLOCK_SIZE).collect();
        atlas.blocks.sort_unstable();
        atlas.blocks.dedup();
        atlas
    }

    /// All of them.
    pub fn structures(&self) -> &[Structure] {
        &self.structures
    }

    /// Those of one kind.
    pub fn of_kind(&self, kind: Kind) -> &[Structure] {
        Kind::ALL.iter().position(|it| *it == kind).map_or(&[], |index| &self.by_kind[index])
    }

    /// The inodes in use.
    pub fn inodes(&self) -> &[u64] {
        &self.inodes
    }

    /// The blocks with metadata.
    pub fn blocks(&self) -> &[u64] {
        &self.blocks
    }

    fn add(&mut self, kind: Kind, at: u64, size: usize, salt: u64, ino: u64) {
        self.structures.push(Structure { kind, at, size, salt, ino });
    }

    fn add_fixed(&mut self, image: &Image) {
        let superblock = image.superblock();
        for at in [0, image.last_block()] {
            self.add(Kind::Superblock, at, size_of::<Superblock>(), 0, 0);
        }
        for slot in 0..2 {
            self.add(Kind::State, image.state_at(slot), size_of::<State>(), 0, 0);
        }
        for index in 0..superblock.saved_bitmap.blocks.get() {
            let at = (superblock.saved_bitmap.start.get() + index) * BLOCK_SIZE;
            self.add(Kind::Bitmap, at, BLOCK_SIZE as usize, index, 0);
        }
        for (at, size) in Journal::of(image).records(image.bytes(), &image.state()) {
            self.add(Kind::Record, at, size, 0, 0);
        }
    }

    fn add_chunk(&mut self, image: &Image, chunk: u64) {
        self.add(Kind::MapEntry, image.map_at(chunk), ENTRY_SIZE as usize, chunk, 0);
        let entry: Entry = image.get(image.map_at(chunk));
        if !matches!(entry.interpret(chunk, image.seed()), Found::At(_)) {
            return;
        }
        for ino in chunk * CHUNK_INODES..(chunk + 1) * CHUNK_INODES {
            self.add(Kind::Inode, image.inode_at(ino), SLOT_SIZE, ino, ino);
            let slot = image.inode(ino);
            if slot.is_free() {
                continue;
            }
            self.inodes.push(ino);
            if slot.xattr_block.get() != 0 {
                self.add_blob(image, Kind::Xattrs, slot.xattr_block.get(), ino);
            }
            match InodeKind::from_mode(slot.mode.get()) {
                Some(InodeKind::File) => self.add_extents(image, ino),
                Some(InodeKind::Directory) => self.add_directory(image, ino),
                Some(InodeKind::Symlink) if slot.size.get() as usize > INLINE_SIZE => {
                    self.add_blob(image, Kind::Target, slot.root.get(), ino);
                }
                _ => {}
            }
        }
    }

    fn add_blob(&mut self, image: &Image, kind: Kind, block: u64, ino: u64) {
        let head: BlobHead = image.get(block * BLOCK_SIZE);
        self.add(kind, block * BLOCK_SIZE, BLOB_HEAD_SIZE + head.size.get() as usize, ino, ino);
    }

    fn add_extents(&mut self, image: &Image, ino: u64) {
        for block in image.chain(ino) {
            self.add(Kind::ExtentHead, block * BLOCK_SIZE, SLOTS_START, block, ino);
            for at in image.extent_slots(block) {
                self.add(Kind::ExtentSlot, at, EXTENT_SLOT_SIZE, ino, ino);
            }
        }
    }

    fn add_directory(&mut self, image: &Image, ino: u64) {
        let (nodes, leaves) = image.tree(ino);
        for block in nodes {
            self.add(Kind::Node, block * BLOCK_SIZE, BLOCK_SIZE as usize, block, ino);
        }
        for block in leaves {
            self.add(Kind::LeafHead, block * BLOCK_SIZE, HEAD_SIZE, block, ino);
            self.add(Kind::Tags, block * BLOCK_SIZE + TAGS_START as u64, TAGS * size_of::<u32>(), 0, ino);
            for entry in image.entries(block) {
                self.add(Kind::Entry, entry.head, entry_size(image.name(entry).len()), ino, ino);
            }
        }
    }
}
