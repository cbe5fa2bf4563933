//! Content of files.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::{self, Errno};

use super::{HostTarget, Referent, proc_path};
use crate::operation::{AllocateMode, Object, Outcome, Slot, Whence};
use crate::pattern::Pattern;
use crate::target::Reply;

impl HostTarget {
    pub(super) fn read(&self, slot: Slot, offset: u64, size: u32) -> Reply {
        let mut bytes = vec![0; size as usize];
        let count = io::pread(self.handle(slot)?, &mut bytes[..], offset)?;
        bytes.truncate(count);
        Ok(Outcome::Bytes(bytes))
    }

    pub(super) fn write(&self, slot: Slot, offset: u64, data: Pattern) -> Reply {
        let count = io::pwrite(self.handle(slot)?, &data.bytes(), offset)?;
        Ok(Outcome::Count(count as u64))
    }

    pub(super) fn truncate(&self, object: &Object, size: u64) -> Reply {
        // The system call looks at the size first.
        if matches!(object, Object::Path(_)) && size > crate::model::SIZE_MAX {
            return Err(Errno::INVAL);
        }
        match self.referent(object)? {
            Referent::Open(file) => fs::ftruncate(file, size)?,
            Referent::Path(reference) => {
                let path = CString::new(proc_path(reference.as_fd())).map_err(|_| Errno::INVAL)?;
                // SAFETY: the path is a string that ends with a zero byte and lives during the call.
                if unsafe { libc::truncate(path.as_ptr(), size.cast_signed()) } != 0 {
                    let error = std::io::Error::last_os_error();
                    return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn fallocate(&self, slot: Slot, mode: AllocateMode, offset: u64, size: u64) -> Reply {
        let flags = match mode {
            AllocateMode::Extend => FallocateFlags::empty(),
            AllocateMode::KeepSize => FallocateFlags::KEEP_SIZE,
            AllocateMode::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            AllocateMode::ZeroRange => FallocateFlags::ZERO_RANGE,
            AllocateMode::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        fs::fallocate(self.handle(slot)?, flags, offset, size)?;
        Ok(Outcome::Done)
    }

    pub(super) fn seek(&self, slot: Slot, offset: u64, whence: Whence) -> Reply {
        let from = match whence {
            Whence::Data => SeekFrom::Data(offset),
            Whence::Hole => SeekFrom::Hole(offset),
        };
        Ok(Outcome::Position(fs::seek(self.handle(slot)?, from)?))
    }

    pub(super) fn copy_range(&self, from: (Slot, u64), to: (Slot, u64), size: u64) -> Reply {
        let ((from, mut from_offset), (to, mut to_offset)) = (from, to);
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        let count =
            fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), size as usize)?;
        Ok(Outcome::Count(count as u64))
    }
}
