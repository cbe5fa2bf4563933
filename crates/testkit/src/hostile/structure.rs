//! What kinds of structures there are on a volume, and where one of them is.

/// A kind of structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy of the superblock.
    Superblock,
    /// A state slot.
    State,
    /// A journal record.
    Record,
    /// An entry of the inode map.
    MapEntry,
    /// The slot of an inode, in use or free.
    Inode,
    /// The head of an extent block.
    ExtentHead,
    /// A slot of an extent block that is in use.
    ExtentSlot,
    /// An interior node of a directory.
    Node,
    /// The head of a leaf of a directory.
    LeafHead,
    /// The tags of a leaf. They have no checksum.
    Tags,
    /// An entry of a directory, with its name.
    Entry,
    /// Extended attributes.
    Xattrs,
    /// The target of a long symbolic link.
    Target,
    /// A block of the saved bitmap.
    Bitmap,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Superblock,
        Self::State,
        Self::Record,
        Self::MapEntry,
        Self::Inode,
        Self::ExtentHead,
        Self::ExtentSlot,
        Self::Node,
        Self::LeafHead,
        Self::Tags,
        Self::Entry,
        Self::Xattrs,
        Self::Target,
        Self::Bitmap,
    ];
}

/// A structure on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// What it is.
    pub kind: Kind,
    /// Where it starts, in bytes.
    pub at: u64,
    /// How many bytes it has.
    pub size: usize,
    /// The owner that its checksum is salted with.
    pub salt: u64,
    /// The inode to which it belongs; zero if to none.
    pub ino: u64,
}

impl Structure {
    /// Where it ends, in bytes.
    pub fn end(&self) -> u64 {
        self.at + self.size as u64
    }

    /// Whether a change of `size` bytes from `at` on changes it.
    pub fn meets(&self, at: u64, size: usize) -> bool {
        at < self.end() && self.at < at + size as u64
    }
}
