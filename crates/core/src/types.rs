//! The vocabulary of the engine's interface: inode numbers, attributes, flags.

use std::fmt;

use rustix::io::Errno;

use crate::error::{Result, ensure};

/// Number of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(lodefs_layout::ROOT_INO);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Mask of the type within `st_mode`.
pub const S_IFMT: u32 = 0o170_000;
/// Mask of the permissions within `st_mode`, set-id and sticky bits included.
pub const S_PERM: u32 = 0o7777;
/// The set-user-id bit.
pub const S_ISUID: u32 = 0o4000;
/// The set-group-id bit.
pub const S_ISGID: u32 = 0o2000;
/// The group-execute bit, without which set-group-id means something else.
pub const S_IXGRP: u32 = 0o010;

/// Kind of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// Kind and bits of `S_IFMT`, side by side.
    const TABLE: [(Self, u32); 7] = [
        (Self::File, 0o100_000),
        (Self::Directory, 0o040_000),
        (Self::Symlink, 0o120_000),
        (Self::Fifo, 0o010_000),
        (Self::Socket, 0o140_000),
        (Self::CharDevice, 0o020_000),
        (Self::BlockDevice, 0o060_000),
    ];

    /// The kind that `st_mode` names, if it names one.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Self::TABLE.iter().find(|(_, bits)| *bits == mode & S_IFMT).map(|(kind, _)| *kind)
    }

    /// The bits of this kind within `st_mode`.
    pub fn mode_bits(self) -> u32 {
        Self::TABLE.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, bits)| *bits)
    }

    /// The kind as `d_type` of a directory entry.
    pub fn d_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }

    /// The kind that a directory entry's `d_type` names.
    pub fn from_d_type(d_type: u8) -> Option<Self> {
        Self::from_mode(u32::from(d_type) << 12)
    }
}

/// A point in time, as `struct timespec`: seconds may be negative or past 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    pub s: i64,
    /// Nanoseconds, less than 10^9.
    pub ns: u32,
}

/// Attributes of an inode, as `stat(2)` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Generation of the number: changes when the number is used again.
    pub generation: u32,
    /// Kind.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits.
    pub perm: u32,
    /// Number of links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes in use.
    pub sectors: u64,
    /// Device number of a device node.
    pub rdev: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Persistent flags.
    pub flags: Flags,
    /// Project identifier.
    pub project: u32,
}

bitflags::bitflags! {
    /// Persistent flags of an inode, with the values of `FS_XFLAG_*` in `linux/fs.h`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// No change of any kind.
        const IMMUTABLE = 0x0000_0008;
        /// Data may only be added at the end.
        const APPEND = 0x0000_0010;
        /// Synchronous updates (always so here; stored for programs that ask).
        const SYNC = 0x0000_0020;
        /// Access times are not kept.
        const NOATIME = 0x0000_0040;
        /// Left out by dump(8).
        const NODUMP = 0x0000_0080;
        /// New children take over the project identifier.
        const PROJINHERIT = 0x0000_0200;
        /// Direct access is asked for.
        const DAX = 0x0000_8000;
    }
}

/// A time to set: none, now, or a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Time),
}

/// Attributes to change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permissions, set-id and sticky bits (other bits are ignored).
    pub perm: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes: truncates or extends.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// The change comes through an open file, so that rules that are checked at open are not checked again.
    pub by_handle: bool,
    /// As whom the caller changes the size or the owner, or nothing: that decides which set-id bits stay.
    pub writer: Writer,
}

/// As whom a process changes content, size or owner of a file. The process decides which set-id bits the file keeps. File
/// capabilities go in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    /// The process has `CAP_FSETID`. A change of the content takes no set-id bits.
    #[default]
    Privileged,
    /// The process belongs to the file's group. The set-user-id bit goes, and the set-group-id bit if the group may
    /// execute the file.
    Member,
    /// Any other process. Both bits go.
    Stranger,
}

impl Writer {
    /// Whether a change of the content by this writer takes a bit from a mode.
    pub fn takes_from(self, mode: u32) -> bool {
        self.keeps_of(mode) != mode
    }

    /// What is left of a mode after a change of the content.
    pub(crate) fn keeps_of(self, mode: u32) -> u32 {
        match self {
            Self::Privileged => mode,
            Self::Member if mode & S_IXGRP == 0 => mode & !S_ISUID,
            Self::Member | Self::Stranger => mode & !(S_ISUID | S_ISGID),
        }
    }
}

impl From<bool> for Writer {
    /// Whether the writer takes set-id bits from the file.
    fn from(takes: bool) -> Self {
        if takes { Self::Stranger } else { Self::Privileged }
    }
}

/// What a new inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewKind<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with this device number.
    CharDevice(u32),
    /// A block device with this device number.
    BlockDevice(u32),
}

impl NewKind<'_> {
    /// The kind of inode this makes.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File => Kind::File,
            Self::Directory => Kind::Directory,
            Self::Symlink(_) => Kind::Symlink,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::CharDevice(_) => Kind::CharDevice,
            Self::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

/// An inode to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInode<'a> {
    /// What it is.
    pub kind: NewKind<'a>,
    /// Permissions asked for, before `umask`.
    pub perm: u32,
    /// Permissions to take away, unless the parent has a default ACL (then that decides).
    pub umask: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the parent is a set-group-id directory (then the parent's).
    pub gid: u32,
}

/// How rename treats an existing target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    #[default]
    Replace,
    /// `RENAME_NOREPLACE`: refuses with EEXIST.
    NoReplace,
    /// `RENAME_EXCHANGE`: both change places; both must exist.
    Exchange,
    /// `RENAME_WHITEOUT`: leaves a character device 0:0 at the old name.
    Whiteout,
    /// `RENAME_NOREPLACE | RENAME_WHITEOUT`.
    NoReplaceWhiteout,
}

/// What fallocate does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Makes sure that it has blocks; existing data stays, the size may grow.
    Allocate {
        /// The size does not change.
        keep_size: bool,
    },
    /// Frees its blocks; it reads as zeros. The size does not change.
    PunchHole,
    /// It has blocks and reads as zeros.
    ZeroRange {
        /// The size does not change.
        keep_size: bool,
    },
}

/// What a seek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    /// The next byte that may differ from zero.
    Data,
    /// The next byte of a hole, of which the end of the file is one.
    Hole,
}

/// How an extended attribute is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Whether it exists or not.
    #[default]
    Set,
    /// `XATTR_CREATE`: EEXIST if it exists.
    Create,
    /// `XATTR_REPLACE`: ENODATA if it does not.
    Replace,
}

/// What a file is being opened for, so that immutable and append-only files can refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenIntent {
    /// For writing.
    pub write: bool,
    /// Every write goes to the end.
    pub append: bool,
    /// It is to be emptied.
    pub truncate: bool,
}

/// One entry of a directory, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Where reading goes on behind this entry (`d_off`).
    pub next: u64,
    /// The inode.
    pub ino: Ino,
    /// Its kind.
    pub kind: Kind,
    /// The name.
    pub name: Vec<u8>,
}

/// Space and inodes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceUse {
    /// Bytes in a block.
    pub block_size: u64,
    /// Blocks that can hold inodes, directories and data.
    pub blocks: u64,
    /// Of those, free.
    pub blocks_free: u64,
    /// Of those, free for use: without the reserve that keeps deletion possible.
    pub blocks_available: u64,
    /// Inodes that can exist.
    pub inodes: u64,
    /// Of those, free.
    pub inodes_free: u64,
    /// Free blocks that lie in whole, aligned 2 MiB chunks.
    pub blocks_free_huge: u64,
}

/// Refuses what cannot be the name of a directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    ensure(!name.is_empty(), Errno::NOENT)?;
    ensure(name.len() <= lodefs_layout::NAME_MAX, Errno::NAMETOOLONG)?;
    ensure(name != b"." && name != b"..", Errno::INVAL)?;
    ensure(!name.iter().any(|byte| matches!(byte, b'/' | 0)), Errno::INVAL)
}
