//! Attributes: owner, permissions, times, extended attributes, use of space.

use std::os::fd::AsFd as _;

use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{HostTarget, Referent, names, proc_path, text};
use crate::operation::{Object, Outcome, SetTime, Status, Timestamp, Usage, XattrMode};
use crate::pattern::Pattern;
use crate::target::Reply;

/// Room for the names or the value of extended attributes.
const XATTR_ROOM: usize = 1 << 17;

impl HostTarget {
    pub(super) fn stat(&self, object: &Object) -> Reply {
        let referent = self.referent(object)?;
        let all = fs::statx(referent, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let mode = u32::from(all.stx_mode);
        let time = |time: fs::StatxTimestamp| Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Ok(Outcome::Status(Status {
            ino: all.stx_ino,
            kind: names::kind(FileType::from_raw_mode(mode)),
            mode: mode & 0o7777,
            links: all.stx_nlink,
            uid: all.stx_uid,
            gid: all.stx_gid,
            device: (all.stx_rdev_major, all.stx_rdev_minor),
            size: all.stx_size,
            mtime: time(all.stx_mtime),
            ctime: time(all.stx_ctime),
        }))
    }

    pub(super) fn chmod(&self, object: &Object, mode: u32) -> Reply {
        let mode = Mode::from_raw_mode(mode);
        match self.referent(object)? {
            Referent::Open(file) => fs::fchmod(file, mode)?,
            Referent::Path(path) => fs::chmodat(CWD, proc_path(path.as_fd()), mode, AtFlags::empty())?,
        }
        Ok(Outcome::Done)
    }

    pub(super) fn chown(&self, object: &Object, uid: Option<u32>, gid: Option<u32>) -> Reply {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self.referent(object)? {
            Referent::Open(file) => fs::fchown(file, uid, gid)?,
            Referent::Path(path) => fs::chownat(path, "", uid, gid, AtFlags::EMPTY_PATH)?,
        }
        Ok(Outcome::Done)
    }

    pub(super) fn utimens(&self, object: &Object, atime: SetTime, mtime: SetTime) -> Reply {
        let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        // The system call does nothing then, not even look at the path.
        if atime == SetTime::Omit && mtime == SetTime::Omit {
            fs::futimens(&self.root, &times)?;
            return Ok(Outcome::Done);
        }
        match self.referent(object)? {
            Referent::Open(file) => fs::futimens(file, &times)?,
            Referent::Path(path) => fs::utimensat(path, "", &times, AtFlags::EMPTY_PATH)?,
        }
        Ok(Outcome::Done)
    }

    pub(super) fn set_xattr(&self, object: &Object, name: &str, value: Pattern, mode: XattrMode) -> Reply {
        let flags = match mode {
            XattrMode::Either => XattrFlags::empty(),
            XattrMode::Create => XattrFlags::CREATE,
            XattrMode::Replace => XattrFlags::REPLACE,
        };
        let value = value.bytes();
        // A path that cannot be resolved still has the name and the value checked first.
        match self.referent(object) {
            Ok(Referent::Open(file)) => fs::fsetxattr(file, name, &value, flags)?,
            Ok(Referent::Path(path)) => fs::setxattr(proc_path(path.as_fd()), name, &value, flags)?,
            Err(errno) => {
                return Err(checked_first(fs::setxattr(NOWHERE, name, &value, flags), errno, object));
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn get_xattr(&self, object: &Object, name: &str) -> Reply {
        let mut value = vec![0; XATTR_ROOM];
        let size = match self.referent(object) {
            Ok(Referent::Open(file)) => fs::fgetxattr(file, name, &mut value[..])?,
            Ok(Referent::Path(path)) => fs::getxattr(proc_path(path.as_fd()), name, &mut value[..])?,
            Err(errno) => {
                let checked = fs::getxattr(NOWHERE, name, &mut value[..]).map(|_| ());
                return Err(checked_first(checked, errno, object));
            }
        };
        value.truncate(size);
        Ok(Outcome::Bytes(value))
    }

    pub(super) fn list_xattr(&self, object: &Object) -> Reply {
        let mut list = vec![0; XATTR_ROOM];
        let size = match self.referent(object)? {
            Referent::Open(file) => fs::flistxattr(file, &mut list[..])?,
            Referent::Path(path) => fs::listxattr(proc_path(path.as_fd()), &mut list[..])?,
        };
        let names = list[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<_> = names.map(text).collect();
        names.sort_unstable();
        Ok(Outcome::Names(names))
    }

    pub(super) fn remove_xattr(&self, object: &Object, name: &str) -> Reply {
        match self.referent(object) {
            Ok(Referent::Open(file)) => fs::fremovexattr(file, name)?,
            Ok(Referent::Path(path)) => fs::removexattr(proc_path(path.as_fd()), name)?,
            Err(errno) => return Err(checked_first(fs::removexattr(NOWHERE, name), errno, object)),
        }
        Ok(Outcome::Done)
    }

    pub(super) fn statfs(&self) -> Reply {
        let all = fs::fstatfs(&self.root)?;
        let name_max = all.f_namelen.cast_unsigned();
        Ok(Outcome::Usage(Usage { blocks: all.f_blocks, blocks_free: all.f_bfree, name_max }))
    }
}

/// A path that leads nowhere.
const NOWHERE: &str = "/proc/self/fd/none";

/// The error of a call by path whose path is wrong, when `checked` is what the same call says about the rest of
/// its arguments (ENOENT if it found nothing to say).
fn checked_first(checked: rustix::io::Result<()>, errno: Errno, object: &Object) -> Errno {
    match (checked, object) {
        (Err(first), Object::Path(_)) if first != Errno::NOENT => first,
        _ => errno,
    }
}

fn timespec(time: SetTime) -> Timespec {
    match time {
        SetTime::Omit => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        SetTime::Now => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
        SetTime::To(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
    }
}
