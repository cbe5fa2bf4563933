//! Content of files.

use lodefs_core::{Fallocate, Flags, Kind as InodeKind, Result, SeekTarget, SetAttr};
use rustix::io::Errno;

use super::{EngineTarget, Handle};
use crate::model::SIZE_MAX;
use crate::operation::{AllocateMode, Object, Outcome, Slot, Whence};
use crate::pattern::Pattern;

impl EngineTarget {
    pub(super) fn read(&self, slot: Slot, offset: u64, size: u32) -> Result<Outcome> {
        let handle = self.handle(slot)?;
        check_offset(offset)?;
        if !handle.access.reads() {
            return Err(Errno::BADF.into());
        }
        check_offset(offset + u64::from(size))?;
        let mut bytes = vec![0; size as usize];
        let count = self.fs.read(&handle.inode, offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(Outcome::Bytes(bytes))
    }

    pub(super) fn write(&self, slot: Slot, offset: u64, data: Pattern) -> Result<Outcome> {
        let handle = self.handle(slot)?;
        check_offset(offset)?;
        if !handle.access.writes() {
            return Err(Errno::BADF.into());
        }
        check_offset(offset + u64::from(data.size))?;
        if data.size == 0 {
            return Ok(Outcome::Count(0));
        }
        let bytes = data.bytes();
        let count = if handle.append {
            self.fs.append(&handle.inode, &bytes, false)?.1
        } else {
            self.fs.write(&handle.inode, offset, &bytes, false)?
        };
        Ok(Outcome::Count(count as u64))
    }

    pub(super) fn truncate(&self, object: &Object, size: u64) -> Result<Outcome> {
        let by_handle = matches!(object, Object::Open(_));
        let change = SetAttr { size: Some(size), by_handle, ..SetAttr::default() };
        let inode = match object {
            Object::Path(path) => {
                check_offset(size)?;
                let inode = self.resolve(path)?;
                match inode.kind() {
                    InodeKind::File => {}
                    InodeKind::Directory => return Err(Errno::ISDIR.into()),
                    _ => return Err(Errno::INVAL.into()),
                }
                inode
            }
            Object::Open(slot) => {
                let handle = self.handle(*slot)?;
                check_offset(size)?;
                if handle.inode.kind() != InodeKind::File || !handle.access.writes() {
                    return Err(Errno::INVAL.into());
                }
                handle.inode.clone()
            }
        };
        self.fs.set_attr(&inode, &change)?;
        Ok(Outcome::Done)
    }

    pub(super) fn fallocate(
        &self,
        slot: Slot,
        mode: AllocateMode,
        offset: u64,
        size: u64,
    ) -> Result<Outcome> {
        let handle = self.handle(slot)?;
        check_offset(offset).and(check_offset(size))?;
        if size == 0 {
            return Err(Errno::INVAL.into());
        }
        if !handle.access.writes() {
            return Err(Errno::BADF.into());
        }
        let flags = self.attr(&handle.inode)?.flags;
        if flags.contains(Flags::IMMUTABLE) || (mode.zeroes() && flags.contains(Flags::APPEND)) {
            return Err(Errno::PERM.into());
        }
        let how = match mode {
            AllocateMode::Extend => Fallocate::Allocate { keep_size: false },
            AllocateMode::KeepSize => Fallocate::Allocate { keep_size: true },
            AllocateMode::PunchHole => Fallocate::PunchHole,
            AllocateMode::ZeroRange => Fallocate::ZeroRange { keep_size: false },
            AllocateMode::ZeroRangeKeepSize => Fallocate::ZeroRange { keep_size: true },
        };
        self.fs.fallocate(&handle.inode, how, offset, size)?;
        Ok(Outcome::Done)
    }

    pub(super) fn seek(&self, slot: Slot, offset: u64, whence: Whence) -> Result<Outcome> {
        let target = match whence {
            Whence::Data => SeekTarget::Data,
            Whence::Hole => SeekTarget::Hole,
        };
        Ok(Outcome::Position(self.fs.seek(&self.handle(slot)?.inode, offset, target)?))
    }

    pub(super) fn copy_range(&self, from: (Slot, u64), to: (Slot, u64), size: u64) -> Result<Outcome> {
        let ((from, from_offset), (to, to_offset)) = (from, to);
        let (source, target) = (self.handle(from)?, self.handle(to)?);
        let is_file = |handle: &Handle| handle.inode.kind() == InodeKind::File;
        if !is_file(source) || !is_file(target) {
            return Err(Errno::ISDIR.into());
        }
        if !source.access.reads() || !target.access.writes() || target.append {
            return Err(Errno::BADF.into());
        }
        if self.attr(&target.inode)?.flags.contains(Flags::IMMUTABLE) {
            return Err(Errno::PERM.into());
        }
        if [from_offset, to_offset].iter().any(|offset| offset.checked_add(size).is_none()) {
            return Err(Errno::OVERFLOW.into());
        }
        if to_offset == SIZE_MAX {
            return Err(Errno::FBIG.into());
        }
        check_offset(from_offset).and(check_offset(to_offset))?;
        let count = self.fs.copy_range(&source.inode, from_offset, &target.inode, to_offset, size)?;
        Ok(Outcome::Count(count))
    }
}

/// Refuses what is negative in a system call.
fn check_offset(offset: u64) -> Result<()> {
    if offset > SIZE_MAX { Err(Errno::INVAL.into()) } else { Ok(()) }
}
