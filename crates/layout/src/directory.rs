//! Directories: a tree ordered by the hashes of the entries ([`crate::names`]).
//!
//! Interior nodes are written once, with a checksum over the whole block, and replaced when anything below them
//! splits or disappears. Leaves change in place, through the journal: an entry is some bytes in the leaf's heap,
//! with a checksum of its own, and a 32-bit *tag* that makes it exist. The order of the hashes is the order in
//! which a directory is read, so a position (`d_off`) stays right whatever is added or removed.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Seed;
use crate::{BLOCK_SIZE, NAME_MAX};

/// Hashes below this are never given to a name: they are the positions of the start, `.` and `..`.
pub const FIRST_HASH: u64 = 16;
/// Most levels of a tree. 252^7 leaves are more than any volume holds.
pub const LEVELS_MAX: u16 = 8;

const NODE_MAGIC: u32 = u32::from_le_bytes(*b"Ldn1");
const LEAF_MAGIC: u32 = u32::from_le_bytes(*b"Ldl1");

/// Head of a directory block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BlockHead {
    crc: U32,
    magic: U32,
    /// The directory's inode.
    pub owner: U64,
    /// The block itself.
    pub block: U64,
    /// Distance to the leaves: 0 for a leaf.
    pub level: U16,
    /// Of an interior node: number of children.
    pub count: U16,
    /// Unused, zero.
    pub reserved: [U32; 9],
}

/// Bytes before the content of a directory block.
pub const HEAD_SIZE: usize = size_of::<BlockHead>();
const _: () = assert!(HEAD_SIZE == 64);

/// One child of an interior node: all hashes from `hash` to the next child's are below `block`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Child {
    /// Smallest hash that may be found below it (of the first child: zero).
    pub hash: U64,
    /// The child's block.
    pub block: U64,
}

/// Most children of a node.
pub const CHILDREN_MAX: usize = 252;

/// An interior node.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Node {
    /// Its head; the checksum covers the whole block.
    pub head: BlockHead,
    /// Children in ascending order of their hashes; those past `head.count` are zero.
    pub children: [Child; CHILDREN_MAX],
}

const _: () = assert!(size_of::<Node>() as u64 == BLOCK_SIZE);

impl Node {
    /// A node at `block` of directory `owner`, at `level`, with `children`.
    ///
    /// # Panics
    /// If there are more than [`CHILDREN_MAX`] children.
    pub fn new(owner: u64, block: u64, level: u16, children: &[Child], seed: Seed) -> Self {
        let mut node = Self {
            head: BlockHead::unsealed(NODE_MAGIC, owner, block, level, children.len() as u16),
            children: [Child::default(); CHILDREN_MAX],
        };
        node.children[..children.len()].copy_from_slice(children);
        node.head.crc = U32::new(node.checksum(seed));
        node
    }

    fn checksum(&self, seed: Seed) -> u32 {
        seed.crc(self.head.block.get(), &self.as_bytes()[4..])
    }

    /// Whether this is an intact node of directory `owner` at `block` and `level`.
    pub fn is_valid(&self, owner: u64, block: u64, level: u16, seed: Seed) -> bool {
        let head = &self.head;
        head.magic.get() == NODE_MAGIC
            && head.owner.get() == owner
            && head.block.get() == block
            && head.level.get() == level
            && (1..=CHILDREN_MAX).contains(&(head.count.get() as usize))
            && head.crc.get() == self.checksum(seed)
            && self.children().is_sorted_by_key(|child| child.hash.get())
    }

    /// The children.
    pub fn children(&self) -> &[Child] {
        &self.children[..(self.head.count.get() as usize).min(CHILDREN_MAX)]
    }
}

impl BlockHead {
    fn unsealed(magic: u32, owner: u64, block: u64, level: u16, count: u16) -> Self {
        Self {
            crc: U32::ZERO,
            magic: U32::new(magic),
            owner: U64::new(owner),
            block: U64::new(block),
            level: U16::new(level),
            count: U16::new(count),
            reserved: [U32::ZERO; 9],
        }
    }

    /// The head of a leaf at `block` of directory `owner`. Its checksum covers the head only.
    pub fn leaf(owner: u64, block: u64, seed: Seed) -> Self {
        let mut head = Self::unsealed(LEAF_MAGIC, owner, block, 0, 0);
        head.crc = U32::new(seed.crc(block, &head.as_bytes()[4..]));
        head
    }

    /// Whether this is the head of a leaf of directory `owner` at `block`.
    pub fn is_leaf(&self, owner: u64, block: u64, seed: Seed) -> bool {
        *self == Self::leaf(owner, block, seed)
    }

    /// The level that the block claims, to tell a leaf from a node before either is checked.
    pub fn claimed_level(&self) -> u16 {
        self.level.get()
    }
}

/// Tags in a leaf.
pub const TAGS: usize = 128;
/// Where the tags of a leaf start.
pub const TAGS_START: usize = HEAD_SIZE;
/// Where the heap of a leaf starts.
pub const HEAP_START: usize = TAGS_START + TAGS * size_of::<U32>();
/// Where the heap of a leaf ends.
pub const HEAP_END: usize = BLOCK_SIZE as usize;

/// A leaf.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Leaf {
    /// Its head.
    pub head: BlockHead,
    /// One tag for each entry, in no order; zero is free. Low half: the entry's place in the block, in units of
    /// eight bytes. High half: 16 bits of its hash, so that most entries need not be looked at.
    pub tags: [U32; TAGS],
    /// Entries, each at a multiple of eight bytes, in no order.
    pub heap: [u8; HEAP_END - HEAP_START],
}

const _: () = assert!(size_of::<Leaf>() as u64 == BLOCK_SIZE);
const _: () = assert!(HEAP_START.is_multiple_of(8));

/// Head of an entry; the name follows, padded with zeros to a multiple of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EntryHead {
    /// Checksum of the rest of the head and of the name, by the directory's number.
    pub crc: U32,
    /// Bytes in the name.
    pub name_size: u8,
    /// Type of the inode, as in `d_type`.
    pub kind: u8,
    /// Unused, zero.
    pub reserved: U16,
    /// Orders the directory: one of the hashes that the name may have ([`crate::names`]).
    pub hash: U64,
    /// The inode.
    pub ino: U64,
}

/// Bytes before the name of an entry.
pub const ENTRY_HEAD_SIZE: usize = size_of::<EntryHead>();
const _: () = assert!(ENTRY_HEAD_SIZE == 24);

/// Bytes that an entry with a name of `name_size` bytes takes.
pub const fn entry_size(name_size: usize) -> usize {
    (ENTRY_HEAD_SIZE + name_size).next_multiple_of(8)
}

/// Most bytes that an entry takes.
pub const ENTRY_SIZE_MAX: usize = entry_size(NAME_MAX);

impl EntryHead {
    /// The head of the entry `name` in directory `owner`.
    ///
    /// # Panics
    /// If the name is longer than [`NAME_MAX`].
    pub fn new(owner: u64, name: &[u8], hash: u64, ino: u64, kind: u8, seed: Seed) -> Self {
        assert!(name.len() <= NAME_MAX, "names are checked before they get here");
        let mut head = Self {
            crc: U32::ZERO,
            name_size: name.len() as u8,
            kind,
            reserved: U16::ZERO,
            hash: U64::new(hash),
            ino: U64::new(ino),
        };
        head.crc = U32::new(head.checksum(owner, name, seed));
        head
    }

    fn checksum(&self, owner: u64, name: &[u8], seed: Seed) -> u32 {
        let head = seed.crc(owner, &self.as_bytes()[4..]);
        seed.crc(u64::from(head), name)
    }

    /// Whether this is the intact head of the entry `name` in directory `owner`.
    pub fn is_valid(&self, owner: u64, name: &[u8], seed: Seed) -> bool {
        self.name_size as usize == name.len() && self.crc.get() == self.checksum(owner, name, seed)
    }
}

/// The tag of an entry at byte `position` of its leaf, with the bits of [`tag_bits`](crate::names::NameHash::tag_bits).
pub const fn tag(bits: u16, position: usize) -> u32 {
    ((bits as u32) << 16) | (position / 8) as u32
}

/// The byte position that a tag points to.
pub const fn tag_position(tag: u32) -> usize {
    (tag & 0xffff) as usize * 8
}
