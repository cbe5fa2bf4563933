//! The kernel's words and the engine's: attributes, times, modes and flags.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, RenameFlags, TimeOrNow};
use lodefs_broker::Rights;
use lodefs_core::{
    Attr, Fallocate, Kind, NewKind, OpenIntent, RenameMode, Result, SeekTarget, SetTime, Time, XattrMode,
};
use lodefs_proto::ticket::TELLS_WHEN_CLOSED;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Preferred size of reads and writes that `stat(2)` shows.
const IO_SIZE: u32 = 4096;

// Flags of open(2), fallocate(2), lseek(2) and setxattr(2) as they stand in requests. They are the kernel's, not
// those of a C library.
const O_APPEND: i32 = 0o2000;
pub(crate) const FALLOC_KEEP_SIZE: i32 = 0x01;
const FALLOC_PUNCH_HOLE: i32 = 0x02;
const FALLOC_ZERO_RANGE: i32 = 0x10;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.sectors,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.perm as u16,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: IO_SIZE,
        flags: 0,
    }
}

/// Attributes of nothing: an inode number of zero tells the kernel that a name does not exist, and that it may
/// remember so.
pub(crate) fn no_inode() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// What `mknod(2)` with this mode and device number makes.
pub(crate) fn new_kind(mode: u32, rdev: u32) -> Result<NewKind<'static>> {
    match Kind::from_mode(mode) {
        // A mode without a type is a regular file.
        None if mode & lodefs_core::S_IFMT == 0 => Ok(NewKind::File),
        Some(Kind::File) => Ok(NewKind::File),
        Some(Kind::Fifo) => Ok(NewKind::Fifo),
        Some(Kind::Socket) => Ok(NewKind::Socket),
        Some(Kind::CharDevice) => Ok(NewKind::CharDevice(rdev)),
        Some(Kind::BlockDevice) => Ok(NewKind::BlockDevice(rdev)),
        Some(Kind::Directory | Kind::Symlink) | None => Err(Errno::INVAL.into()),
    }
}

fn system_time(time: Time) -> SystemTime {
    let whole = if time.s >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.s.unsigned_abs()))
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(time.s.unsigned_abs()))
    };
    // Both fit: a SystemTime counts in the same type as Time.
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(time.ns.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time to set, as the kernel sent it.
///
/// The library turns the kernel's (seconds, nanoseconds) into a `SystemTime` by *subtracting* the nanoseconds when
/// the seconds are negative. This undoes it: -2 s and 300 ms arrives as 2.3 s before 1970 and is -2 s and 300 ms
/// (1.7 s before 1970) again.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else { return SetTime::Now };
    SetTime::At(match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Time { s: seconds(after), ns: after.subsec_nanos() },
        Err(error) => {
            let before = error.duration();
            Time { s: seconds(before).wrapping_neg(), ns: before.subsec_nanos() }
        }
    })
}

/// Whole seconds; 2^63, which only the earliest time has, becomes its own negative.
fn seconds(duration: Duration) -> i64 {
    duration.as_secs().cast_signed()
}

pub(crate) fn open_intent(flags: OpenFlags) -> OpenIntent {
    OpenIntent {
        write: flags.acc_mode() != OpenAccMode::O_RDONLY,
        append: flags.0 & O_APPEND != 0,
        truncate: false,
    }
}

/// Whether a file was opened with `O_DIRECT`.
pub(crate) fn bypasses_cache(flags: OpenFlags) -> bool {
    flags.0.cast_unsigned() & OFlags::DIRECT.bits() != 0
}

/// Whether somebody wants to be told when a descriptor of it is closed.
pub(crate) fn tells_when_closed(flags: OpenFlags) -> bool {
    flags.0.cast_unsigned() & TELLS_WHEN_CLOSED != 0
}

/// What may be done by a file that was opened so.
pub(crate) fn rights(flags: OpenFlags) -> Rights {
    let mode = flags.acc_mode();
    Rights { read: mode != OpenAccMode::O_WRONLY, write: mode != OpenAccMode::O_RDONLY }
}

pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    const NO_REPLACE: RenameFlags = RenameFlags::RENAME_NOREPLACE;
    const WHITEOUT: RenameFlags = RenameFlags::RENAME_WHITEOUT;
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == NO_REPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else if flags == WHITEOUT {
        Ok(RenameMode::Whiteout)
    } else if flags == NO_REPLACE | WHITEOUT {
        Ok(RenameMode::NoReplaceWhiteout)
    } else {
        Err(Errno::INVAL.into())
    }
}

pub(crate) fn fallocate_mode(mode: i32) -> Result<Fallocate> {
    const PUNCH_KEEP: i32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
    const ZERO_KEEP: i32 = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE;
    match mode {
        0 => Ok(Fallocate::Allocate { keep_size: false }),
        FALLOC_KEEP_SIZE => Ok(Fallocate::Allocate { keep_size: true }),
        PUNCH_KEEP => Ok(Fallocate::PunchHole),
        FALLOC_ZERO_RANGE => Ok(Fallocate::ZeroRange { keep_size: false }),
        ZERO_KEEP => Ok(Fallocate::ZeroRange { keep_size: true }),
        _ => Err(Errno::OPNOTSUPP.into()),
    }
}

pub(crate) fn seek_target(whence: i32) -> Result<SeekTarget> {
    match whence {
        SEEK_DATA => Ok(SeekTarget::Data),
        SEEK_HOLE => Ok(SeekTarget::Hole),
        _ => Err(Errno::INVAL.into()),
    }
}

pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Set),
        XATTR_CREATE => Ok(XattrMode::Create),
        XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::INVAL.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: [Time; 8] = [
        Time { s: 0, ns: 0 },
        Time { s: 0, ns: 999_999_999 },
        Time { s: -1, ns: 0 },
        Time { s: -2, ns: 300_000_000 },
        Time { s: 1 << 33, ns: 1 },
        Time { s: i64::MAX, ns: 999_999_999 },
        Time { s: i64::MIN, ns: 0 },
        Time { s: i64::MIN, ns: 1 },
    ];

    /// What the library makes of the kernel's numbers, where that is defined.
    fn as_received(time: Time) -> Option<SystemTime> {
        let duration = Duration::new(time.s.unsigned_abs(), time.ns);
        if time.s >= 0 {
            SystemTime::UNIX_EPOCH.checked_add(duration)
        } else {
            SystemTime::UNIX_EPOCH.checked_sub(duration)
        }
    }

    #[test]
    fn times_survive_the_way_in() {
        for time in TIMES {
            let Some(received) = as_received(time) else { continue };
            assert_eq!(set_time(TimeOrNow::SpecificTime(received)), SetTime::At(time));
        }
        assert_eq!(set_time(TimeOrNow::Now), SetTime::Now);
    }

    #[test]
    fn times_survive_the_way_out() {
        for time in TIMES {
            let shown = system_time(time);
            let floor = match shown.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => (i128::from(after.as_secs()), after.subsec_nanos()),
                Err(error) => {
                    let before = error.duration();
                    match before.subsec_nanos() {
                        0 => (-i128::from(before.as_secs()), 0),
                        ns => (-i128::from(before.as_secs()) - 1, 1_000_000_000 - ns),
                    }
                }
            };
            assert_eq!(floor, (i128::from(time.s), time.ns));
        }
    }

    #[test]
    fn open_flags_say_what_a_file_is_opened_for() {
        let intent = |flags| open_intent(OpenFlags(flags));
        assert_eq!(intent(0), OpenIntent::default());
        assert_eq!(intent(0o1), OpenIntent { write: true, ..Default::default() });
        assert_eq!(intent(0o2002), OpenIntent { write: true, append: true, truncate: false });
    }

    #[test]
    fn only_meaningful_combinations_are_accepted() {
        assert_eq!(fallocate_mode(3).unwrap(), Fallocate::PunchHole);
        for mode in [FALLOC_PUNCH_HOLE, 0x08, 0x20, 0x40, 0x12, 1 << 30] {
            assert_eq!(fallocate_mode(mode).unwrap_err().errno(), Errno::OPNOTSUPP);
        }
        assert_eq!(
            rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_WHITEOUT).unwrap(),
            RenameMode::NoReplaceWhiteout
        );
        for flags in
            [RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT, RenameFlags::from_bits_retain(8)]
        {
            assert_eq!(rename_mode(flags).unwrap_err().errno(), Errno::INVAL);
        }
        assert_eq!(xattr_mode(3).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(seek_target(0).unwrap_err().errno(), Errno::INVAL);
    }

    #[test]
    fn mknod_makes_no_directories_or_symlinks() {
        assert_eq!(new_kind(0o644, 0).unwrap(), NewKind::File);
        assert_eq!(new_kind(0o020_600, 0x0103).unwrap(), NewKind::CharDevice(0x0103));
        for mode in [0o040_755, 0o120_777, 0o150_000] {
            assert_eq!(new_kind(mode, 0).unwrap_err().errno(), Errno::INVAL);
        }
    }
}
