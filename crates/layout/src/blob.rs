//! Blobs: adjacent blocks that hold one value, written once and then replaced as a whole: the extended attributes
//! of an inode, or the target of a long symbolic link.
//!
//! A crash cannot tear a blob: it is durable before the inode that points at it is.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BLOCK_SIZE;
use crate::checksum::Seed;

const MAGIC: u32 = u32::from_le_bytes(*b"Lbl1");

/// Head of a blob; its bytes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BlobHead {
    crc: U32,
    magic: U32,
    /// The inode it belongs to.
    pub owner: U64,
    /// How many bytes follow.
    pub size: U32,
    /// Unused, zero.
    pub reserved: U32,
}

/// Bytes before the content of a blob.
pub const BLOB_HEAD_SIZE: usize = size_of::<BlobHead>();
const _: () = assert!(BLOB_HEAD_SIZE == 24);

/// Most bytes of content in a blob.
pub const BLOB_SIZE_MAX: usize = 1 << 20;

impl BlobHead {
    /// The head of a blob with this content.
    pub fn new(owner: u64, content: &[u8], seed: Seed) -> Self {
        let mut head = Self {
            crc: U32::ZERO,
            magic: U32::new(MAGIC),
            owner: U64::new(owner),
            size: U32::new(content.len() as u32),
            reserved: U32::ZERO,
        };
        head.crc = U32::new(head.checksum(content, seed));
        head
    }

    fn checksum(&self, content: &[u8], seed: Seed) -> u32 {
        let head = seed.crc(self.owner.get(), &self.as_bytes()[4..]);
        seed.crc(u64::from(head), content)
    }

    /// Whether this is the head of a blob of `owner` with this content.
    pub fn is_valid(&self, owner: u64, content: &[u8], seed: Seed) -> bool {
        self.magic.get() == MAGIC
            && self.owner.get() == owner
            && self.size.get() as usize == content.len()
            && self.crc.get() == self.checksum(content, seed)
    }
}

/// Blocks that a blob with `size` bytes of content needs.
pub fn blocks_for(size: usize) -> u64 {
    ((BLOB_HEAD_SIZE + size) as u64).div_ceil(BLOCK_SIZE)
}

/// Head of one extended attribute within the attribute blob; the name and the value follow, unpadded.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct XattrHead {
    /// Bytes in the name.
    pub name_size: U32,
    /// Bytes in the value.
    pub value_size: U32,
}
