//! Attributes: owner, permissions, times, flags, extended attributes, use of space.

use lodefs_core::{Attr, Flags, Kind as InodeKind, Node as Inode, Result, SetAttr, Time, Writer};
use rustix::io::Errno;

use super::{EngineTarget, kind, text};
use crate::operation::{Object, Outcome, SetTime, Status, Timestamp, Usage, XattrMode, xflag};
use crate::path::NAME_MAX;
use crate::pattern::Pattern;

const FIXED: Flags = Flags::IMMUTABLE.union(Flags::APPEND);
/// Longest name of an extended attribute, in bytes.
const XATTR_NAME_MAX: usize = 255;
/// Largest value of an extended attribute, in bytes.
const XATTR_SIZE_MAX: u32 = 1 << 16;

impl EngineTarget {
    pub(super) fn stat(&self, object: &Object) -> Result<Outcome> {
        Ok(Outcome::Status(status(&self.attr(&self.inode(object)?)?)))
    }

    fn change(&self, inode: &Inode, change: &SetAttr) -> Result<Outcome> {
        self.fs.set_attr(inode, change).map(|_| Outcome::Done)
    }

    pub(super) fn chmod(&self, object: &Object, mode: u32) -> Result<Outcome> {
        let inode = self.inode(object)?;
        if inode.kind() == InodeKind::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.change(&inode, &SetAttr { perm: Some(mode), ..SetAttr::default() })
    }

    pub(super) fn chown(&self, object: &Object, uid: Option<u32>, gid: Option<u32>) -> Result<Outcome> {
        // The kernel asks for this whoever calls.
        let change = SetAttr { uid, gid, writer: Writer::Member, ..SetAttr::default() };
        self.change(&self.inode(object)?, &change)
    }

    pub(super) fn utimens(&self, object: &Object, atime: SetTime, mtime: SetTime) -> Result<Outcome> {
        // With nothing to do, not even the path is looked at.
        if atime == SetTime::Omit && mtime == SetTime::Omit {
            return Ok(Outcome::Done);
        }
        let inode = self.inode(object)?;
        let touches = atime == SetTime::Now && mtime == SetTime::Now;
        if !touches && self.attr(&inode)?.flags.intersects(FIXED) {
            return Err(Errno::PERM.into());
        }
        let time = |time: SetTime| match time {
            SetTime::Omit => None,
            SetTime::Now => Some(lodefs_core::SetTime::Now),
            SetTime::To(time) => {
                Some(lodefs_core::SetTime::At(Time { s: time.seconds, ns: time.nanoseconds }))
            }
        };
        self.change(&inode, &SetAttr { atime: time(atime), mtime: time(mtime), ..SetAttr::default() })
    }

    /// The inode whose flags may be read and set: those of other kinds than files and directories have none.
    fn flagged(&self, object: &Object) -> Result<Inode> {
        let inode = self.inode(object)?;
        match inode.kind() {
            InodeKind::File | InodeKind::Directory => Ok(inode),
            _ => Err(Errno::NOTTY.into()),
        }
    }

    pub(super) fn get_xflags(&self, object: &Object) -> Result<Outcome> {
        let flags = self.attr(&self.flagged(object)?)?.flags;
        Ok(Outcome::Xflags(flags.bits() & xflag::ALL))
    }

    pub(super) fn set_xflags(&self, object: &Object, xflags: u32) -> Result<Outcome> {
        let inode = self.flagged(object)?;
        let others = self.attr(&inode)?.flags.bits() & !xflag::ALL;
        self.fs.set_flags(&inode, Flags::from_bits_retain(others | (xflags & xflag::ALL)), None)?;
        Ok(Outcome::Done)
    }

    /// The inode whose extended attribute `name` is asked for; what is wrong in itself is refused before a path is
    /// looked at.
    fn xattr_inode(&self, object: &Object, name: &str, size: u32) -> Result<Inode> {
        if let Object::Open(slot) = object {
            self.handle(*slot)?;
        }
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::RANGE.into());
        }
        if size > XATTR_SIZE_MAX {
            return Err(Errno::TOOBIG.into());
        }
        self.inode(object)
    }

    pub(super) fn set_xattr(
        &self,
        object: &Object,
        name: &str,
        value: Pattern,
        mode: XattrMode,
    ) -> Result<Outcome> {
        let inode = self.xattr_inode(object, name, value.size)?;
        let mode = match mode {
            XattrMode::Either => lodefs_core::XattrMode::Set,
            XattrMode::Create => lodefs_core::XattrMode::Create,
            XattrMode::Replace => lodefs_core::XattrMode::Replace,
        };
        self.fs.set_xattr(&inode, name.as_bytes(), &value.bytes(), mode).map(|()| Outcome::Done)
    }

    pub(super) fn get_xattr(&self, object: &Object, name: &str) -> Result<Outcome> {
        let inode = self.xattr_inode(object, name, 0)?;
        let has_users = matches!(inode.kind(), InodeKind::File | InodeKind::Directory);
        if name.starts_with("user.") && !has_users {
            return Err(Errno::NODATA.into());
        }
        Ok(Outcome::Bytes(self.fs.get_xattr(&inode, name.as_bytes())?))
    }

    pub(super) fn list_xattr(&self, object: &Object) -> Result<Outcome> {
        let list = self.fs.list_xattr(&self.inode(object)?)?;
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<_> = names.map(text).collect();
        names.sort_unstable();
        Ok(Outcome::Names(names))
    }

    pub(super) fn remove_xattr(&self, object: &Object, name: &str) -> Result<Outcome> {
        let inode = self.xattr_inode(object, name, 0)?;
        self.fs.remove_xattr(&inode, name.as_bytes()).map(|()| Outcome::Done)
    }

    pub(super) fn statfs(&self) -> Outcome {
        let space = self.fs.space();
        let name_max = NAME_MAX as u64;
        Outcome::Usage(Usage { blocks: space.blocks, blocks_free: space.blocks_free, name_max })
    }
}

/// Attributes, in the words of the tests.
pub(crate) fn status(attr: &Attr) -> Status {
    let time = |time: Time| Timestamp { seconds: time.s, nanoseconds: time.ns };
    Status {
        ino: attr.ino.0,
        kind: kind(attr.kind),
        mode: attr.perm,
        links: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        device: decode_device(attr.rdev),
        size: attr.size,
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
    }
}

/// A device number as the kernel passes it to file systems.
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn decode_device(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}
