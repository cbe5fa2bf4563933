//! What can be asked of a file system, and what it can answer.
//!
//! Operations name files by path, or by a [`Slot`] of the target's table of open files. Both derive serde, so that
//! a failing sequence can be kept as a file and replayed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::TreePath;
use crate::pattern::Pattern;

/// Flags of an inode that the tests know, as in `FS_XFLAG_*` of `linux/fs.h`.
pub mod xflag {
    /// No change of any kind.
    pub const IMMUTABLE: u32 = 0x8;
    /// Data may only be added at the end.
    pub const APPEND: u32 = 0x10;
    /// Access times are not kept.
    pub const NOATIME: u32 = 0x40;
    /// Left out by dump(8).
    pub const NODUMP: u32 = 0x80;
    /// Direct access is asked for.
    pub const DAX: u32 = 0x8000;
    /// All of them; other bits are neither set nor compared.
    pub const ALL: u32 = IMMUTABLE | APPEND | NOATIME | NODUMP | DAX;
}

/// A place in the table of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u8);

impl Slot {
    /// Kept free by generated operations for [`snapshot`](crate::snapshot).
    pub const RESERVED: Self = Self(255);
    /// Slots that generated operations use: those below this number.
    pub const COUNT: u8 = 6;
}

/// A file named either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Object {
    /// By path. A symbolic link at the end stands for itself.
    Path(TreePath),
    /// By open file.
    Open(Slot),
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// `O_RDONLY`
    Read,
    /// `O_WRONLY`
    Write,
    /// `O_RDWR`
    ReadWrite,
}

impl Access {
    /// Whether it allows reading.
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether it allows writing.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// What may exist before a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Creation {
    /// The file must exist.
    Never,
    /// `O_CREAT` with this mode: it is made if it does not.
    IfMissing(u32),
    /// `O_CREAT | O_EXCL` with this mode: it must not exist.
    Exclusive(u32),
}

/// How a file is opened. Symbolic links are not followed (`O_NOFOLLOW`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHow {
    /// Reading, writing or both.
    pub access: Access,
    /// Whether it may be created.
    pub creation: Creation,
    /// `O_APPEND`: every write goes to the end.
    pub append: bool,
    /// `O_TRUNC`: an existing file is emptied.
    pub truncate: bool,
}

impl OpenHow {
    /// Plain opening of a file that exists.
    pub fn existing(access: Access) -> Self {
        Self { access, creation: Creation::Never, append: false, truncate: false }
    }
}

/// What mknod makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// An empty regular file.
    File,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What rename does with what is at the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// `RENAME_NOREPLACE`
    NoReplace,
    /// `RENAME_EXCHANGE`
    Exchange,
    /// `RENAME_WHITEOUT`
    Whiteout,
    /// `RENAME_NOREPLACE | RENAME_WHITEOUT`
    NoReplaceWhiteout,
}

impl RenameMode {
    /// Whether an existing target is refused.
    pub fn refuses_existing(self) -> bool {
        matches!(self, Self::NoReplace | Self::NoReplaceWhiteout)
    }

    /// Whether a character device 0:0 is left at the old name.
    pub fn leaves_whiteout(self) -> bool {
        matches!(self, Self::Whiteout | Self::NoReplaceWhiteout)
    }
}

/// What fallocate does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocateMode {
    /// 0: allocates, and extends the file.
    Extend,
    /// `KEEP_SIZE`: allocates.
    KeepSize,
    /// `PUNCH_HOLE | KEEP_SIZE`
    PunchHole,
    /// `ZERO_RANGE`: zeros, and extends the file.
    ZeroRange,
    /// `ZERO_RANGE | KEEP_SIZE`
    ZeroRangeKeepSize,
}

impl AllocateMode {
    /// Whether the file grows to the end of the range.
    pub fn extends(self) -> bool {
        matches!(self, Self::Extend | Self::ZeroRange)
    }

    /// Whether the range reads as zeros afterwards.
    pub fn zeroes(self) -> bool {
        matches!(self, Self::PunchHole | Self::ZeroRange | Self::ZeroRangeKeepSize)
    }

    /// Whether the range has blocks afterwards.
    pub fn allocates(self) -> bool {
        self != Self::PunchHole
    }
}

/// What a seek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whence {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// How an extended attribute is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Whether it exists or not.
    Either,
    /// `XATTR_CREATE`
    Create,
    /// `XATTR_REPLACE`
    Replace,
}

/// A time as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, below 10^9.
    pub nanoseconds: u32,
}

/// What utimensat does with one of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// `UTIME_OMIT`
    Omit,
    /// `UTIME_NOW`
    Now,
    /// Sets it.
    To(Timestamp),
}

/// One thing asked of a file system.
///
/// Offsets and sizes are passed to the system call as they are: those from 2^63 on become negative there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named after the arguments of the system calls")]
pub enum Operation {
    /// Opens a file or directory into `slot`; what is open there is closed first, even if the opening fails.
    /// FIFOs, sockets and devices are never opened: the answer is ENXIO.
    Open { slot: Slot, path: TreePath, how: OpenHow },
    /// Opens a nameless file for reading and writing (`O_TMPFILE`) into `slot`, which is closed first.
    Tmpfile { slot: Slot, directory: TreePath, mode: u32 },
    /// Closes `slot`.
    Close { slot: Slot },
    /// Makes a node.
    Mknod { path: TreePath, mode: u32, node: Node },
    /// Makes a directory.
    Mkdir { path: TreePath, mode: u32 },
    /// Makes a symbolic link.
    Symlink { path: TreePath, target: String },
    /// Makes another name of a file, which may be open and nameless (`AT_EMPTY_PATH`).
    Link { source: Object, path: TreePath },
    /// Removes a name that is not a directory's.
    Unlink { path: TreePath },
    /// Removes a directory.
    Rmdir { path: TreePath },
    /// Renames.
    Rename { from: TreePath, to: TreePath, mode: RenameMode },
    /// Reads at an offset.
    Read { slot: Slot, offset: u64, size: u32 },
    /// Writes at an offset, or at the end if opened so.
    Write { slot: Slot, offset: u64, data: Pattern },
    /// Sets the size.
    Truncate { object: Object, size: u64 },
    /// Allocates, zeroes or punches.
    Fallocate { slot: Slot, mode: AllocateMode, offset: u64, size: u64 },
    /// Looks for data or a hole.
    Seek { slot: Slot, offset: u64, whence: Whence },
    /// Copies within or between open files (`copy_file_range`).
    CopyRange { from: Slot, from_offset: u64, to: Slot, to_offset: u64, size: u64 },
    /// Sets an extended attribute.
    SetXattr { object: Object, name: String, value: Pattern, mode: XattrMode },
    /// Reads an extended attribute.
    GetXattr { object: Object, name: String },
    /// Names the extended attributes.
    ListXattr { object: Object },
    /// Removes an extended attribute.
    RemoveXattr { object: Object, name: String },
    /// Sets the permissions.
    Chmod { object: Object, mode: u32 },
    /// Sets owner and group.
    Chown { object: Object, uid: Option<u32>, gid: Option<u32> },
    /// Sets the times.
    Utimens { object: Object, atime: SetTime, mtime: SetTime },
    /// Reads a symbolic link.
    Readlink { path: TreePath },
    /// Reads the attributes.
    Stat { object: Object },
    /// Reads a directory.
    Readdir { path: TreePath },
    /// Reads the flags (`FS_IOC_FSGETXATTR`).
    GetXflags { object: Object },
    /// Sets the flags (`FS_IOC_FSSETXATTR`), leaving those that [`xflag::ALL`] does not contain.
    SetXflags { object: Object, xflags: u32 },
    /// Makes a file durable.
    Fsync { slot: Slot },
    /// Makes everything durable.
    Syncfs,
    /// Reads the use of space.
    Statfs,
}

impl Operation {
    /// The files that it names and the directories that it changes.
    pub fn objects(&self) -> Vec<Object> {
        let entry = |path: &TreePath| {
            let parent = path.split().map(|(parent, _)| parent);
            [Some(path.clone()), parent].into_iter().flatten().map(Object::Path)
        };
        match self {
            Self::Open { path, .. }
            | Self::Mknod { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Symlink { path, .. }
            | Self::Unlink { path }
            | Self::Rmdir { path }
            | Self::Readlink { path }
            | Self::Readdir { path } => entry(path).collect(),
            Self::Tmpfile { directory, .. } => vec![Object::Path(directory.clone())],
            Self::Link { source, path } => entry(path).chain([source.clone()]).collect(),
            Self::Rename { from, to, .. } => entry(from).chain(entry(to)).collect(),
            Self::Close { slot }
            | Self::Read { slot, .. }
            | Self::Write { slot, .. }
            | Self::Fallocate { slot, .. }
            | Self::Seek { slot, .. }
            | Self::Fsync { slot } => vec![Object::Open(*slot)],
            Self::CopyRange { from, to, .. } => vec![Object::Open(*from), Object::Open(*to)],
            Self::Truncate { object, .. }
            | Self::SetXattr { object, .. }
            | Self::GetXattr { object, .. }
            | Self::ListXattr { object }
            | Self::RemoveXattr { object, .. }
            | Self::Chmod { object, .. }
            | Self::Chown { object, .. }
            | Self::Utimens { object, .. }
            | Self::Stat { object }
            | Self::GetXflags { object }
            | Self::SetXflags { object, .. } => vec![object.clone()],
            Self::Syncfs | Self::Statfs => Vec::new(),
        }
    }
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// Attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Inode number; tells whether two names lead to one file, and is not comparable between targets.
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits.
    pub mode: u32,
    /// Number of links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size in bytes. Means nothing for a directory.
    pub size: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

/// Use of space of the whole file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Longest name, in bytes.
    pub name_max: u64,
}

/// What an operation gave.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing but success.
    Done,
    /// Bytes that were written or copied.
    Count(u64),
    /// Position that was found.
    Position(u64),
    /// Content that was read.
    Bytes(Vec<u8>),
    /// Names of extended attributes, sorted.
    Names(Vec<String>),
    /// Target of a symbolic link.
    Target(String),
    /// Entries of a directory, without `.` and `..`.
    Entries(BTreeMap<String, Kind>),
    /// Attributes.
    Status(Status),
    /// Flags, of those in [`xflag::ALL`].
    Xflags(u32),
    /// Use of space.
    Usage(Usage),
}

impl fmt::Debug for Outcome {
    /// Like the derived one, but content is cut short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "Done"),
            Self::Count(count) => write!(f, "Count({count})"),
            Self::Position(position) => write!(f, "Position({position})"),
            Self::Bytes(bytes) => {
                let shown = &bytes[..bytes.len().min(16)];
                let hash = xxhash_rust::xxh3::xxh3_64(bytes);
                write!(f, "Bytes({} bytes {shown:02x?}.. hash {hash:016x})", bytes.len())
            }
            Self::Names(names) => write!(f, "Names({names:?})"),
            Self::Target(target) => write!(f, "Target({target:?})"),
            Self::Entries(entries) => write!(f, "Entries({entries:?})"),
            Self::Status(status) => write!(f, "{status:?}"),
            Self::Xflags(xflags) => write!(f, "Xflags({xflags:#x})"),
            Self::Usage(usage) => write!(f, "{usage:?}"),
        }
    }
}
