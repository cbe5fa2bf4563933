//! What fsck can find: every kind of finding, with its texts, in one table.

use std::fmt;

use crate::alloc::Run;
use crate::types::Ino;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Left behind by a crash as designed: the next open puts it right by itself.
    Note,
    /// An inconsistency.
    Error,
}

/// When it is repaired: what stands on something else comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Superblock, state, journal.
    Ground,
    /// Where the inodes are.
    Map,
    /// An inode and everything that is its own.
    Inode,
    /// Blocks with two owners.
    Sharing,
    /// Directory entries by themselves.
    Entry,
    /// What the names lead to.
    Name,
    /// Inodes that no name leads to.
    Lost,
    /// Numbers that can be counted again.
    Count,
    /// What a clean close saved.
    Saved,
}

/// Whether the remedy is applied without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    /// It restores what is known; nothing is lost.
    Implied,
    /// It drops something, or takes something for true that cannot be proved.
    Asked,
}

struct Row {
    name: &'static str,
    stage: Stage,
    severity: Severity,
    consent: Consent,
    what: &'static str,
    remedy: &'static str,
}

macro_rules! codes {
    ($($variant:ident $name:literal $stage:ident $severity:ident $consent:ident $what:literal $remedy:literal)*) => {
        /// A kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $what] $variant,)*
        }

        impl Code {
            /// Every kind of finding.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        stage: Stage::$stage,
                        severity: Severity::$severity,
                        consent: Consent::$consent,
                        what: $what,
                        remedy: $remedy,
                    },)*
                }
            }
        }
    };
}

codes! {
    SuperblockDamaged "superblock-damaged" Ground Error Implied
        "one copy of the superblock is damaged" "it is written again from the other copy"
    SuperblockDiffers "superblock-differs" Ground Error Implied
        "the copies of the superblock differ" "the second is written again from the first"
    SuperblockLost "superblock-lost" Ground Error Asked
        "both copies of the superblock are damaged, but the identity of the volume is still readable"
        "both are written again as mkfs writes them for this size"
    IdentityLost "identity-lost" Ground Error Asked
        "both copies of the superblock are lost with the identity of the volume, but the volume's state is still there"
        "both are written as mkfs writes them for this size, with a new UUID; names are sorted anew, and the label is lost"
    StateDamaged "state-damaged" Ground Note Implied
        "one of the two state slots is torn or damaged" "it is written again"
    StateCount "state-count" Ground Error Asked
        "a state slot holds a count that nothing reaches by counting" "the other slot is used, or a new state is written"
    StateLost "state-lost" Ground Error Asked
        "both state slots are damaged" "a new state is written; records in the journal are not replayed"
    JournalRecordInvalid "journal-record-invalid" Ground Error Asked
        "a journal record is intact but makes no sense" "the record is left out"
    JournalRecordsLost "journal-records-lost" Ground Error Asked
        "a journal record is damaged and hides later ones" "the records behind it are left out"

    MapEntryDamaged "map-entry-damaged" Map Error Asked
        "an entry of the inode map is damaged"
        "its inodes are looked for on the volume; if they are not found, they count as given back"
    MapEntryRange "map-entry-range" Map Error Asked
        "an entry of the inode map points outside of the volume"
        "its inodes are looked for on the volume; if they are not found, they count as given back"
    MapEntryTaken "map-entry-taken" Map Error Asked
        "an entry of the inode map points to blocks of another entry"
        "its inodes are looked for on the volume; if they are not found, they count as given back"
    MapEntryWrong "map-entry-wrong" Map Error Asked
        "an entry of the inode map points to blocks that hold none of its inodes"
        "its inodes are looked for on the volume; if they are not found, they count as given back"
    MapGap "map-gap" Map Error Asked
        "entries of the inode map are missing before others"
        "their inodes are looked for on the volume; what is not found counts as given back"

    InodeChecksum "inode-checksum" Inode Error Asked
        "an inode has a wrong checksum" "it is kept if all of its content makes sense, or else cleared"
    InodeType "inode-type" Inode Error Asked
        "an inode has an unknown type" "it is cleared"
    InodeFreeSlot "inode-free-slot" Inode Error Asked
        "a free inode is not empty" "it is emptied"
    InodeValue "inode-value" Inode Error Asked
        "an inode holds an impossible value" "the value is replaced by the nearest possible one"
    RootMissing "root-missing" Inode Error Asked
        "the root directory does not exist" "an empty one is made; what it held goes to lost+found"
    SymlinkTarget "symlink-target" Inode Error Asked
        "the target of a symbolic link is damaged" "the link is cleared"
    XattrBlob "xattr-blob" Inode Error Asked
        "the extended attributes of an inode are damaged" "they are dropped"
    XattrContent "xattr-content" Inode Error Asked
        "the extended attributes of an inode make no sense" "they are dropped"
    XattrName "xattr-name" Inode Error Asked
        "an extended attribute has a name that its inode cannot have" "the attribute is dropped"
    XattrAcl "xattr-acl" Inode Error Asked
        "an access control list is not valid" "the list is dropped; the permissions stay"
    ExtentChain "extent-chain" Inode Error Asked
        "the chain of a file's extent blocks is damaged" "it is cut before the damage; the rest becomes a hole"
    ExtentChecksum "extent-checksum" Inode Error Asked
        "an extent of a file has a wrong checksum" "it is dropped and becomes a hole"
    ExtentRange "extent-range" Inode Error Asked
        "an extent of a file lies outside of the volume or of any file" "it is dropped and becomes a hole"
    ExtentOverlap "extent-overlap" Inode Error Asked
        "two extents of a file hold the same part of it" "the second is dropped"
    ExtentCount "extent-count" Inode Error Implied
        "the number of extents of a file is wrong" "they are counted again"
    BlockCount "block-count" Inode Error Implied
        "the number of blocks of an inode is wrong" "they are counted again"
    DirBlock "dir-block" Inode Error Asked
        "a block of a directory is damaged"
        "the directory is built again from all entries that can be read; lost inodes go to lost+found"

    BlocksShared "blocks-shared" Sharing Error Asked
        "blocks belong to two owners"
        "the second owner gets a copy, or a hole if the first is metadata or there is no room"

    DirOrder "dir-order" Entry Error Implied
        "the hashes in a directory block are out of order" "the directory is built again"
    EntryPlace "entry-place" Entry Error Asked
        "a tag of a directory leaf leads to no entry" "the tag is cleared"
    EntryChecksum "entry-checksum" Entry Error Asked
        "a directory entry has a wrong checksum" "the entry is dropped; its inode goes to lost+found"
    EntryTag "entry-tag" Entry Error Implied
        "the tag of a directory entry does not match its hash" "the directory is built again"
    EntryHash "entry-hash" Entry Error Implied
        "a directory entry has the hash of another name" "the directory is built again"
    EntryMisplaced "entry-misplaced" Entry Error Implied
        "a directory entry is in the wrong leaf for its hash" "the directory is built again"
    EntryName "entry-name" Entry Error Asked
        "a directory entry has a name that cannot be" "the entry is dropped; its inode goes to lost+found"
    EntryDuplicate "entry-duplicate" Entry Error Asked
        "a name is in its directory twice" "the second entry is dropped; its inode goes to lost+found"
    EntryOverlap "entry-overlap" Entry Error Asked
        "two directory entries occupy the same bytes" "the second tag is cleared"

    EntryDangling "entry-dangling" Name Error Asked
        "a directory entry leads to no inode" "the entry is dropped"
    EntryType "entry-type" Name Error Implied
        "a directory entry has the wrong type" "it gets the type of its inode"
    DirTwoParents "dir-two-parents" Name Error Asked
        "a second name leads to a directory" "that name is dropped"
    DirCycle "dir-cycle" Name Error Asked
        "a directory lies below itself" "the name that closes the circle is dropped; the directory goes to lost+found"
    DirParent "dir-parent" Name Error Implied
        "a directory names the wrong parent" "it gets the right one"

    DirUnreachable "dir-unreachable" Lost Error Implied
        "no name leads to a directory" "it goes to lost+found"
    InodeUnreachable "inode-unreachable" Lost Error Implied
        "no name leads to an inode" "it goes to lost+found"

    LinkCount "link-count" Count Error Implied
        "the number of links of an inode is wrong" "they are counted again"
    DirSize "dir-size" Count Error Implied
        "the number of entries of a directory is wrong" "they are counted again"
    Orphan "orphan" Count Note Implied
        "an inode without links waits to be reclaimed" "it is reclaimed"
    OrphanKept "orphan-kept" Count Error Implied
        "an inode without links was left on a volume that was closed" "it is reclaimed"

    TailLeft "tail-left" Count Error Implied
        "the size of a file is said to be in a word that nobody has left"
        "it keeps the size that it has by itself, and what is behind it is freed"

    BitmapDamaged "bitmap-damaged" Saved Error Implied
        "the saved bitmap of blocks is damaged" "it is saved again"
    BitmapFreeInUse "bitmap-free-in-use" Saved Error Implied
        "blocks in use are free in the saved bitmap" "it is saved again"
    BitmapUsedFree "bitmap-used-free" Saved Error Implied
        "free blocks are in use in the saved bitmap" "it is saved again"
    CounterWrong "counter-wrong" Saved Error Implied
        "a saved counter is wrong" "it is counted again"
}

impl Code {
    /// The stable short name, for programs: lower case, with hyphens.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What is wrong, in a few words.
    pub fn what(self) -> &'static str {
        self.row().what
    }

    /// What repairing does about it.
    pub fn remedy(self) -> &'static str {
        self.row().remedy
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        self.row().severity
    }

    /// Whether repairing asks first, because something is lost or cannot be proved.
    pub fn asks(self) -> bool {
        self.row().consent == Consent::Asked
    }

    pub(super) fn stage(self) -> Stage {
        self.row().stage
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Object {
    /// The copy of the superblock in this block.
    Superblock {
        /// The block.
        block: u64,
    },
    /// One of the two state slots.
    StateSlot(u64),
    /// The state as a whole.
    State,
    /// A lane of the journal.
    JournalLane(u64),
    /// The journal record with this sequence number.
    JournalRecord(u64),
    /// Entries of the inode map.
    MapEntries {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// An inode.
    Inode(Ino),
    /// A block of a directory.
    DirectoryBlock {
        /// The directory.
        directory: Ino,
        /// The block.
        block: u64,
    },
    /// An entry of a directory.
    Entry {
        /// The directory.
        directory: Ino,
        /// The leaf.
        block: u64,
        /// Its tag in the leaf, counted from zero.
        tag: usize,
        /// Its name; empty if it could not be read.
        name: Vec<u8>,
    },
    /// Adjacent blocks.
    Blocks {
        /// The first.
        start: u64,
        /// How many.
        count: u64,
    },
    /// The saved bitmap.
    SavedBitmap,
    /// The saved counter of this name.
    Counter(&'static str),
}

impl From<Run> for Object {
    fn from(run: Run) -> Self {
        Self::Blocks { start: run.start, count: run.blocks }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock { block } => write!(f, "superblock in block {block}"),
            Self::StateSlot(slot) => write!(f, "state slot {slot}"),
            Self::State => f.write_str("state of the volume"),
            Self::JournalLane(lane) => write!(f, "journal lane {lane}"),
            Self::JournalRecord(seq) => write!(f, "journal record {seq}"),
            Self::MapEntries { first, count: 1 } => write!(f, "inode map entry {first}"),
            Self::MapEntries { first, count } => {
                write!(f, "inode map entries {first} to {}", first + count - 1)
            }
            Self::Inode(ino) => write!(f, "inode {ino}"),
            Self::DirectoryBlock { directory, block } => write!(f, "block {block} of directory {directory}"),
            Self::Entry { directory, block, tag, name } if name.is_empty() => {
                write!(f, "entry {tag} in block {block} of directory {directory}")
            }
            Self::Entry { directory, name, .. } => {
                write!(f, "entry \"{}\" of directory {directory}", name.escape_ascii())
            }
            Self::Blocks { start, count: 1 } => write!(f, "block {start}"),
            Self::Blocks { start, count } => write!(f, "blocks {start} to {}", start + count - 1),
            Self::SavedBitmap => f.write_str("saved bitmap"),
            Self::Counter(name) => write!(f, "saved counter of {name}"),
        }
    }
}

/// What became of a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was found; nothing was tried.
    #[default]
    Found,
    /// It was repaired.
    Repaired,
    /// It was to be left as it is.
    Declined,
    /// It could not be repaired, for this reason.
    Failed(String),
}

/// Something that fsck found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// What it is about.
    pub object: Object,
    /// More about it; may be empty.
    pub detail: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Where exactly, for the repair.
    pub(super) place: Place,
}

impl Finding {
    pub(super) fn new(code: Code, object: Object, detail: impl Into<String>) -> Self {
        Self { code, object, detail: detail.into(), outcome: Outcome::Found, place: Place::Object }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// What tells it from other findings.
    pub(super) fn key(&self) -> Key {
        (self.code, self.object.clone(), self.place.clone())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.code.what())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// What tells a finding from others.
pub(super) type Key = (Code, Object, Place);

/// What the repair must know besides the object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The object says it all.
    Object,
    /// An inode whose checksum is wrong: whether everything it says makes sense.
    Plausible(bool),
    /// A value of an inode.
    Value(Value),
    /// An extent within the inode.
    InlineExtent(usize),
    /// An extent in an extent block: the block and the slot in it.
    ExtentSlot(u64, usize),
    /// The chain of extent blocks is to end with this block (zero: before the first).
    ChainEnd(u64),
    /// An attribute, by its name.
    Attribute(Vec<u8>),
    /// Blocks of a file, which lie at `logical` in it.
    Shared { logical: u64, run: Run, with_metadata: bool },
    /// The inode that a directory entry leads to, or should.
    Target(Ino),
    /// The right number.
    Number(u64),
}

/// A value of an inode that can be impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// Bits of the mode that mean nothing.
    Mode,
    /// Nanoseconds.
    Times,
    /// The size of a file.
    Size,
    /// Fields that inodes of this type do not use.
    Unused,
    /// The size of attributes that do not exist.
    XattrSize,
    /// Flags that do not exist: nobody could change the others.
    Flags,
    /// An owner or a group that nobody can be: nobody could remove it.
    Owner,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_texts_are_there() {
        let mut names = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(names.insert(code.name()), "{code} is there twice");
            assert!(code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!(!code.what().is_empty() && !code.remedy().is_empty());
        }
    }
}
