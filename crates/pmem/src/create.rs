//! Creating the file that a volume lies in.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{
    AtFlags, FallocateFlags, IFlags, Mode, OFlags, Statx, StatxAttributes, StatxFlags, fallocate, fstatvfs,
    ftruncate, ioctl_getflags, ioctl_setflags, statx,
};
use rustix::io::Errno;

use crate::error::MediumError;
use crate::lock::LockedFile;
use crate::open::{Access, open_error};

/// Whether the host sets room aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All of it now: the volume cannot run into a full host later. On hosts that cannot, like `Sparse`.
    Full,
    /// As it is used. If the host is full by then, a store to the volume is lost, and the medium refuses all that follows
    /// ([`MediumError::HostFull`]).
    Sparse,
}

/// `FS_DAX_FL`: that a file is to be mapped directly, where its file system knows of it (ext4, XFS, mounted with `dax=inode`).
const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);
/// The owner may read and write it.
const OWNER: u32 = 0o600;

/// Makes a file of `size` bytes, all zero, readable by its owner only; or gives an empty file that size. A file with
/// content is refused. If it fails, a file that it made is removed. Where a file can be mapped directly if it is marked for that, it is.
pub fn create_file(path: &Path, size: u64, reserve: Reserve) -> Result<(), MediumError> {
    let (file, is_new) = open_or_make(path).map_err(|errno| open_error(path, errno))?;
    // If that fails, what has this name now may be somebody else's.
    let file = if is_new { mark_direct(path, file).map_err(|errno| open_error(path, errno))? } else { file };
    let filled = lock_empty(path, file).and_then(|file| {
        let sized = give_size(&file, size, reserve);
        if sized.is_err() {
            // Room that was set aside before the failure goes back; the failure itself is what is reported.
            let _ = ftruncate(&*file, 0);
        }
        sized.map_err(|errno| size_error(path, size, errno))
    });
    if filled.is_err() && is_new {
        let _ = fs::remove_file(path);
    }
    filled
}

/// A pipe must not block; it is refused later.
const OPEN: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

fn open_or_make(path: &Path) -> Result<(File, bool), Errno> {
    match rustix::fs::open(path, OPEN | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok((file.into(), true)),
        Err(Errno::EXIST) => rustix::fs::open(path, OPEN, Mode::empty()).map(|file| (file.into(), false)),
        Err(errno) => Err(errno),
    }
}

/// Has a new file mapped directly, if that helps. The host looks at the mark when it reads the inode in anew, which it does after the
/// last close.
fn mark_direct(path: &Path, file: File) -> Result<File, Errno> {
    let before = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let can_be_opened_again = u32::from(before.stx_mode) & OWNER == OWNER;
    // What it has inherited has its effect already, or none.
    let is_unmarked = ioctl_getflags(&file).is_ok_and(|flags| !flags.contains(DAX));
    if is_direct(&before) || !can_be_opened_again || !is_unmarked || set_mark(&file, true).is_err() {
        return Ok(file);
    }
    drop(file);
    let file = File::from(rustix::fs::open(path, OPEN | OFlags::NOFOLLOW, Mode::empty())?);
    let after = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let place = |of: &Statx| (of.stx_dev_major, of.stx_dev_minor, of.stx_ino);
    if place(&before) != place(&after) {
        return Err(Errno::BUSY);
    }
    if !is_direct(&after) {
        set_mark(&file, false)?;
    }
    Ok(file)
}

fn set_mark(file: &File, on: bool) -> Result<(), Errno> {
    let mut flags = ioctl_getflags(file)?;
    flags.set(DAX, on);
    ioctl_setflags(file, flags)
}

fn is_direct(found: &Statx) -> bool {
    found.stx_attributes.contains(StatxAttributes::DAX)
}

/// Takes the lock that a [`Medium`](crate::Medium) takes, so that nobody starts to use the file meanwhile.
fn lock_empty(path: &Path, file: File) -> Result<LockedFile, MediumError> {
    let path = || path.to_path_buf();
    let metadata = file.metadata().map_err(|source| io_error(&path(), "look at it", source))?;
    if !metadata.is_file() {
        return Err(MediumError::NotAMedium { path: path(), found: "something other than a regular file" });
    }
    if metadata.len() > 0 {
        return Err(MediumError::NotEmpty { path: path() });
    }
    LockedFile::lock(&path(), file, Access::ReadWrite)
}

fn give_size(file: &File, size: u64, reserve: Reserve) -> Result<(), Errno> {
    if reserve == Reserve::Full && size > 0 {
        // Or else what others have on the host would run out of space until the attempt is given up.
        let host = fstatvfs(file)?;
        let is_limited = host.f_blocks > 0;
        if is_limited && host.f_bfree.saturating_mul(host.f_frsize) < size {
            return Err(Errno::NOSPC);
        }
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            done => return done,
        }
    }
    ftruncate(file, size)
}

fn size_error(path: &Path, size: u64, errno: Errno) -> MediumError {
    match errno {
        Errno::FBIG => MediumError::TooLarge { path: path.to_path_buf(), size },
        Errno::NOSPC | Errno::DQUOT => {
            MediumError::NoSpace { path: path.to_path_buf(), size, source: errno.into() }
        }
        _ => io_error(path, "give it its size", errno.into()),
    }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> MediumError {
    MediumError::Io { name: path.display().to_string(), action, source }
}
