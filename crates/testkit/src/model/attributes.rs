//! Permissions, owners, times, flags and extended attributes.

use rustix::io::Errno;

use super::inode::Ino;
use super::{Model, Timestamp};
use crate::operation::{Kind, Object, Outcome, SetTime, XattrMode, xflag};
use crate::pattern::Pattern;
use crate::target::Reply;

const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: u32 = 1 << 16;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

impl Model {
    pub(super) fn stat(&self, object: &Object) -> Reply {
        self.resolve_object(object)?;
        self.status(object).map(Outcome::Status).ok_or(Errno::NOENT)
    }

    /// The inode that `object` names, if its attributes may change.
    fn resolve_changeable(&self, object: &Object) -> Result<Ino, Errno> {
        let ino = self.resolve_object(object)?;
        if self.inode(ino).is_fixed() { Err(Errno::PERM) } else { Ok(ino) }
    }

    pub(super) fn chmod(&mut self, object: &Object, mode: u32) -> Reply {
        let ino = self.resolve_changeable(object)?;
        if self.inode(ino).kind() == Kind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        self.inode_mut(ino).mode = mode & 0o7777;
        self.touch_inode(ino);
        Ok(Outcome::Done)
    }

    pub(super) fn chown(&mut self, object: &Object, uid: Option<u32>, gid: Option<u32>) -> Reply {
        let ino = match (uid, gid) {
            (None, None) => self.resolve_object(object)?,
            _ => self.resolve_changeable(object)?,
        };
        let inode = self.inode_mut(ino);
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        // Whoever does it: a program must not go on running as its new owner.
        if !inode.is_directory() {
            inode.mode &= !S_ISUID;
            if inode.mode & S_IXGRP != 0 {
                inode.mode &= !S_ISGID;
            }
        }
        self.touch_inode(ino);
        Ok(Outcome::Done)
    }

    pub(super) fn utimens(&mut self, object: &Object, atime: SetTime, mtime: SetTime) -> Reply {
        // With nothing to do, not even the path is looked at.
        if atime == SetTime::Omit && mtime == SetTime::Omit {
            return Ok(Outcome::Done);
        }
        let ino = self.resolve_object(object)?;
        let touches = atime == SetTime::Now && mtime == SetTime::Now;
        let forbidding = if touches { xflag::IMMUTABLE } else { xflag::IMMUTABLE | xflag::APPEND };
        if self.inode(ino).has(forbidding) {
            return Err(Errno::PERM);
        }
        let mtime: Option<Timestamp> = match mtime {
            SetTime::Omit => None,
            SetTime::Now => Some(self.now()),
            SetTime::To(time) => Some(time),
        };
        self.touch_inode(ino);
        let inode = self.inode_mut(ino);
        inode.mtime = mtime.unwrap_or(inode.mtime);
        Ok(Outcome::Done)
    }

    /// The inode whose flags may be read and set: those of other kinds than files and directories have none.
    fn resolve_flagged(&self, object: &Object) -> Result<Ino, Errno> {
        let ino = self.resolve_object(object)?;
        match self.inode(ino).kind() {
            Kind::File | Kind::Directory => Ok(ino),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn get_xflags(&self, object: &Object) -> Reply {
        let ino = self.resolve_flagged(object)?;
        Ok(Outcome::Xflags(self.inode(ino).xflags))
    }

    pub(super) fn set_xflags(&mut self, object: &Object, xflags: u32) -> Reply {
        let ino = self.resolve_flagged(object)?;
        self.inode_mut(ino).xflags = xflags & xflag::ALL;
        self.touch_inode(ino);
        Ok(Outcome::Done)
    }

    pub(super) fn set_xattr(
        &mut self,
        object: &Object,
        name: &str,
        value: Pattern,
        mode: XattrMode,
    ) -> Reply {
        self.check_arguments(object, name, value.size)?;
        let ino = self.resolve_changeable(object)?;
        self.check_space(ino, name, Errno::PERM)?;
        let exists = self.inode(ino).xattrs.contains_key(name);
        match mode {
            XattrMode::Create if exists => return Err(Errno::EXIST),
            XattrMode::Replace if !exists => return Err(Errno::NODATA),
            _ => {}
        }
        self.inode_mut(ino).xattrs.insert(name.to_owned(), value.bytes());
        self.touch_inode(ino);
        Ok(Outcome::Done)
    }

    /// The names of the extended attributes of a file; none if there is no such file.
    pub fn xattrs(&self, object: &Object) -> Vec<String> {
        self.resolve_object(object).map_or(Vec::new(), |ino| self.inode(ino).xattrs.keys().cloned().collect())
    }

    pub(super) fn get_xattr(&self, object: &Object, name: &str) -> Reply {
        self.check_arguments(object, name, 0)?;
        let ino = self.resolve_object(object)?;
        self.check_space(ino, name, Errno::NODATA)?;
        let value = self.inode(ino).xattrs.get(name).ok_or(Errno::NODATA)?;
        Ok(Outcome::Bytes(value.clone()))
    }

    pub(super) fn list_xattr(&self, object: &Object) -> Reply {
        self.resolve_object(object)?;
        Ok(Outcome::Names(self.xattrs(object)))
    }

    pub(super) fn remove_xattr(&mut self, object: &Object, name: &str) -> Reply {
        self.check_arguments(object, name, 0)?;
        let ino = self.resolve_changeable(object)?;
        self.check_space(ino, name, Errno::PERM)?;
        self.inode_mut(ino).xattrs.remove(name).ok_or(Errno::NODATA)?;
        self.touch_inode(ino);
        Ok(Outcome::Done)
    }

    /// Checks the name space that `name` begins with. Only files and directories have attributes of users.
    fn check_space(&self, ino: Ino, name: &str, no_users: Errno) -> Result<(), Errno> {
        let (space, rest) = name.split_once('.').ok_or(Errno::OPNOTSUPP)?;
        match (space, self.inode(ino).kind()) {
            ("user", Kind::File | Kind::Directory) | ("trusted" | "security", _) => {}
            ("user", _) => return Err(no_users),
            _ => return Err(Errno::OPNOTSUPP),
        }
        if rest.is_empty() { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// Checks what is wrong in itself; a path is only looked at after that.
    fn check_arguments(&self, object: &Object, name: &str, size: u32) -> Result<(), Errno> {
        if let Object::Open(slot) = object {
            self.handle(*slot)?;
        }
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::RANGE);
        }
        if size > XATTR_SIZE_MAX { Err(Errno::TOOBIG) } else { Ok(()) }
    }
}
