//! Open files and their content.

use rustix::io::Errno;

use super::content::Content;
use super::inode::{Body, Ino};
use super::{ALLOCATION_MAX, Handle, Model, SIZE_MAX};
use crate::operation::{AllocateMode, Creation, Object, OpenHow, Outcome, Slot, Whence, xflag};
use crate::path::TreePath;
use crate::pattern::Pattern;
use crate::target::Reply;

impl Model {
    /// The content of a regular file; EISDIR for a directory, EINVAL for everything else.
    pub(super) fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.inode(ino).body {
            Body::File(content) => Ok(content),
            Body::Directory { .. } => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// Changes the content of a regular file, and its times.
    fn change_content(&mut self, ino: Ino, change: impl FnOnce(&mut Content)) {
        if let Body::File(content) = &mut self.inode_mut(ino).body {
            change(content);
        }
        self.touch_content(ino);
    }

    pub(super) fn open(&mut self, slot: Slot, path: &TreePath, how: OpenHow) -> Reply {
        self.close(slot).ok();
        let existing = match path.split() {
            None => Some(Ino::ROOT),
            Some((_, name)) => {
                let (directory, _) = self.resolve_parent(path)?;
                self.lookup(directory, name)?
            }
        };
        let ino = match (existing, how.creation) {
            (None, Creation::Never) => return Err(Errno::NOENT),
            (None, Creation::IfMissing(mode) | Creation::Exclusive(mode)) => self.create(path, mode)?,
            (Some(_), Creation::Exclusive(_)) => return Err(Errno::EXIST),
            (Some(ino), _) => {
                self.may_open(ino, how)?;
                if how.truncate {
                    self.change_content(ino, |content| content.resize(0));
                }
                ino
            }
        };
        self.handles.insert(slot, Handle { ino, access: how.access, append: how.append });
        Ok(Outcome::Done)
    }

    fn may_open(&self, ino: Ino, how: OpenHow) -> Result<(), Errno> {
        let inode = self.inode(ino);
        let writes = how.access.writes() || how.truncate;
        match inode.body {
            Body::Directory { .. } if writes || how.creation != Creation::Never => return Err(Errno::ISDIR),
            Body::File(_) | Body::Directory { .. } => {}
            Body::Symlink(_) => return Err(Errno::LOOP),
            Body::Fifo | Body::Socket | Body::CharDevice { .. } => return Err(Errno::NXIO),
        }
        let overwrites = how.truncate || (how.access.writes() && !how.append);
        if (inode.has(xflag::IMMUTABLE) && writes) || (inode.has(xflag::APPEND) && overwrites) {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, slot: Slot) -> Reply {
        let handle = self.handles.remove(&slot).ok_or(Errno::BADF)?;
        self.reclaim(handle.ino);
        Ok(Outcome::Done)
    }

    pub(super) fn read(&self, slot: Slot, offset: u64, size: u32) -> Reply {
        let size = u64::from(size);
        let handle = self.handle(slot)?;
        check_offset(offset)?;
        if !handle.access.reads() {
            return Err(Errno::BADF);
        }
        check_range(offset, size)?;
        Ok(Outcome::Bytes(self.content(handle.ino)?.read(offset, size)))
    }

    pub(super) fn write(&mut self, slot: Slot, offset: u64, data: Pattern) -> Reply {
        let handle = self.handle(slot)?;
        check_offset(offset)?;
        if !handle.access.writes() {
            return Err(Errno::BADF);
        }
        check_range(offset, u64::from(data.size))?;
        if data.size == 0 {
            return Ok(Outcome::Count(0));
        }
        let offset = if handle.append { self.content(handle.ino)?.size() } else { offset };
        if offset >= SIZE_MAX {
            return Err(Errno::FBIG);
        }
        let mut bytes = data.bytes();
        bytes.truncate((SIZE_MAX - offset).min(bytes.len() as u64) as usize);
        self.change_content(handle.ino, |content| content.write(offset, &bytes));
        Ok(Outcome::Count(bytes.len() as u64))
    }

    pub(super) fn truncate(&mut self, object: &Object, size: u64) -> Reply {
        let ino = match object {
            Object::Path(path) => {
                check_offset(size)?;
                let ino = self.resolve(path)?;
                self.content(ino)?;
                if self.inode(ino).is_fixed() {
                    return Err(Errno::PERM);
                }
                ino
            }
            // That the file is immutable was checked when it was opened.
            Object::Open(slot) => {
                let handle = self.handle(*slot)?;
                check_offset(size)?;
                if self.content(handle.ino).is_err() || !handle.access.writes() {
                    return Err(Errno::INVAL);
                }
                if self.inode(handle.ino).has(xflag::APPEND) {
                    return Err(Errno::PERM);
                }
                handle.ino
            }
        };
        // By path, the times only move if the size does.
        if matches!(object, Object::Open(_)) || self.content(ino)?.size() != size {
            self.change_content(ino, |content| content.resize(size));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn fallocate(&mut self, slot: Slot, mode: AllocateMode, offset: u64, size: u64) -> Reply {
        let handle = self.handle(slot)?;
        if offset > SIZE_MAX || size == 0 || size > SIZE_MAX {
            return Err(Errno::INVAL);
        }
        if !handle.access.writes() {
            return Err(Errno::BADF);
        }
        let inode = self.inode(handle.ino);
        if inode.has(xflag::IMMUTABLE) || (inode.has(xflag::APPEND) && mode.zeroes()) {
            return Err(Errno::PERM);
        }
        let end = offset + size;
        if end > SIZE_MAX {
            return Err(Errno::FBIG);
        }
        if mode.allocates() && size > ALLOCATION_MAX {
            return Err(Errno::NOSPC);
        }
        self.change_content(handle.ino, |content| {
            if mode.zeroes() {
                content.zero(offset, end);
            }
            if mode.extends() && end > content.size() {
                content.resize(end);
            }
        });
        Ok(Outcome::Done)
    }

    /// One right answer of several. [`Model::judge`] accepts the others.
    pub(super) fn seek(&self, slot: Slot, offset: u64, whence: Whence) -> Reply {
        let content = self.content(self.handle(slot)?.ino)?;
        if offset >= content.size() {
            return Err(Errno::NXIO);
        }
        let position = match whence {
            Whence::Data => content.next(offset, true).ok_or(Errno::NXIO)?,
            Whence::Hole => content.next(offset, false).unwrap_or(content.size()),
        };
        Ok(Outcome::Position(position))
    }

    pub(super) fn copy_range(&mut self, from: (Slot, u64), to: (Slot, u64), size: u64) -> Reply {
        let ((from, from_offset), (to, to_offset)) = (from, to);
        let (source, target) = (self.handle(from)?, self.handle(to)?);
        let source_size = match (self.content(source.ino), self.content(target.ino)) {
            (Ok(content), Ok(_)) => content.size(),
            _ => return Err(Errno::ISDIR),
        };
        if !source.access.reads() || !target.access.writes() || target.append {
            return Err(Errno::BADF);
        }
        if self.inode(target.ino).has(xflag::IMMUTABLE) {
            return Err(Errno::PERM);
        }
        let wraps = |offset: u64| offset.checked_add(size).is_none();
        if wraps(from_offset) || wraps(to_offset) {
            return Err(Errno::OVERFLOW);
        }
        let mut size = size.min(source_size.saturating_sub(from_offset));
        if to_offset == SIZE_MAX {
            return Err(Errno::FBIG);
        }
        check_offset(from_offset).and(check_offset(to_offset))?;
        size = size.min(SIZE_MAX - to_offset);
        let overlaps = to_offset < from_offset + size && from_offset < to_offset + size;
        if source.ino == target.ino && overlaps {
            return Err(Errno::INVAL);
        }
        if size > 0 {
            let bytes = self.content(source.ino)?.read(from_offset, size);
            self.change_content(target.ino, |content| content.write(to_offset, &bytes));
        }
        Ok(Outcome::Count(size))
    }
}

/// Refuses what is negative in a system call.
fn check_offset(offset: u64) -> Result<(), Errno> {
    if offset > SIZE_MAX { Err(Errno::INVAL) } else { Ok(()) }
}

fn check_range(offset: u64, size: u64) -> Result<(), Errno> {
    check_offset(offset + size)
}
