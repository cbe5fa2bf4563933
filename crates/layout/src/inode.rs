//! Inode slots: one file, directory, link or node each, in 256 bytes with a checksum.
//!
//! A slot is only ever changed through the journal; a crash leaves the old or the new one.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Seed;
use crate::extent::InlineExtent;

/// Bytes in a slot.
pub const SLOT_SIZE: usize = 256;
/// Bytes of a slot that hold extents or a short symbolic link.
pub const INLINE_SIZE: usize = 96;
/// Extents that fit in a slot.
pub const INLINE_EXTENTS: usize = INLINE_SIZE / size_of::<InlineExtent>();

/// Set in the word that [`InodeSlot::tail`] leads to once the program is not to change it any more. The size is in the other bits.
pub const TAIL_REVOKED: u64 = 1 << 63;

/// A stored inode. All zero: the slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InodeSlot {
    /// Checksum of everything behind this field, by the inode's number.
    pub crc: U32,
    /// Type and permissions, as in `st_mode`. Zero: the slot is free.
    pub mode: U32,
    /// The inode's own number.
    pub ino: U64,
    /// Counts uses of this number, so that a stale file handle is recognised.
    pub generation: U32,
    /// Directory entries that lead here (for a directory: 2 and one for each subdirectory). Zero: to be reclaimed.
    pub links: U32,
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Size in bytes (of a directory: number of entries).
    pub size: U64,
    /// Blocks in use: data, extent blocks, directory blocks, blobs.
    pub blocks: U64,
    /// Time of last access, seconds since 1970.
    pub atime_s: I64,
    /// Time of last change of content, seconds.
    pub mtime_s: I64,
    /// Time of last change of the inode, seconds.
    pub ctime_s: I64,
    /// Time of creation, seconds.
    pub btime_s: I64,
    /// Nanoseconds of the four times, in the same order.
    pub times_ns: [U32; 4],
    /// Persistent flags (`FS_XFLAG_*`).
    pub xflags: U32,
    /// Project identifier.
    pub project: U32,
    /// Device number of a device node.
    pub rdev: U64,
    /// Of a directory: its parent directory.
    pub parent: U64,
    /// Number of extents, those in extent blocks included.
    pub extents: U32,
    /// Unused, zero.
    pub reserved: U32,
    /// First extent block of a file, root block of a directory, blob of a long symbolic link; zero if none.
    pub root: U64,
    /// First block of the attribute blob, or zero.
    pub xattr_block: U64,
    /// Bytes of content in the attribute blob.
    pub xattr_size: U32,
    /// Unused, zero.
    pub reserved2: U32,
    /// Where on the volume a word of eight bytes has the size of a file to which an attached program appends by itself
    /// ([`TAIL_REVOKED`]), which is then `size` or more; zero if none does.
    pub tail: U64,
    /// Extents of a file, or the target of a short symbolic link.
    pub inline: [u8; INLINE_SIZE],
}

const _: () = assert!(size_of::<InodeSlot>() == SLOT_SIZE);
const _: () = assert!(INLINE_EXTENTS == 4);

impl InodeSlot {
    /// A free slot.
    pub fn free() -> Self {
        Self::new_zeroed()
    }

    /// Whether the slot is free. The generation survives in a free slot, everything else is zero.
    pub fn is_free(&self) -> bool {
        self.mode.get() == 0
    }

    /// Fills in the checksum.
    #[must_use]
    pub fn sealed(mut self, ino: u64, seed: Seed) -> Self {
        self.crc = U32::new(self.checksum(ino, seed));
        self
    }

    /// Whether the checksum and the number are those of inode `ino`.
    pub fn is_valid(&self, ino: u64, seed: Seed) -> bool {
        self.ino.get() == ino && self.crc.get() == self.checksum(ino, seed)
    }

    fn checksum(&self, ino: u64, seed: Seed) -> u32 {
        seed.crc(ino, &self.as_bytes()[4..])
    }

    /// The extents kept in the slot itself.
    pub fn inline_extents(&self) -> [InlineExtent; INLINE_EXTENTS] {
        zerocopy::transmute!(self.inline)
    }

    /// Puts extents into the slot itself.
    pub fn set_inline_extents(&mut self, extents: [InlineExtent; INLINE_EXTENTS]) {
        self.inline = zerocopy::transmute!(extents);
    }
}
