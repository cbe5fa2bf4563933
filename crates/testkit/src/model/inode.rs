//! The inodes of the model.

use std::collections::BTreeMap;

use super::content::Content;
use crate::operation::{Kind, Status, Timestamp, xflag};

/// Number of an inode of the model; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ino(pub(super) u64);

impl Ino {
    pub(super) const ROOT: Self = Self(1);
}

/// What an inode is, with what only this kind has.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Directory { entries: BTreeMap<String, Ino>, parent: Ino },
    Symlink(String),
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) body: Body,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Directory entries that lead here. Those of directories are counted in [`super::Model::links`].
    pub(super) links: u32,
    /// Made by `O_TMPFILE` and never named: it may get a first name.
    pub(super) nameless: bool,
    pub(super) xflags: u32,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
}

impl Inode {
    pub(super) fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory { .. } => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
            Body::CharDevice { .. } => Kind::CharDevice,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == Kind::Directory
    }

    pub(super) fn has(&self, xflags: u32) -> bool {
        self.xflags & xflags != 0
    }

    /// Immutable or append-only: neither names nor attributes may change.
    pub(super) fn is_fixed(&self) -> bool {
        self.has(xflag::IMMUTABLE | xflag::APPEND)
    }

    /// The attributes; the number of links is the caller's to fill in.
    pub(super) fn status(&self, ino: Ino, links: u32) -> Status {
        let device = match self.body {
            Body::CharDevice { major, minor } => (major, minor),
            _ => (0, 0),
        };
        let size = match &self.body {
            Body::File(content) => content.size(),
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        Status {
            ino: ino.0,
            kind: self.kind(),
            mode: self.mode,
            links,
            uid: self.uid,
            gid: self.gid,
            device,
            size,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }
}
