//! Which file does a mapping belong to, when no descriptor of it is open?
//!
//! An open file holds a file as direct, or as buffered, as it is. A mapping that can be switched must not, so it keeps a descriptor
//! that is not open for anything (`O_PATH`): it keeps the mount, and the file, and can be opened again.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use lodefs_mmap::Named;
use lodefs_mmap::maps::FileId;
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open, readlink};
use rustix::io::Errno;

/// A file that can be opened.
pub(crate) struct Origin {
    path: OwnedFd,
    writable: bool,
    file: FileId,
}

impl Origin {
    /// That of an open file.
    pub(crate) fn of(file: impl AsFd, writable: bool) -> Result<Self, Errno> {
        let path = open(name_of(file.as_fd()), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, writable, file: file_of(file)? })
    }

    /// Which file it is.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Whether there is room to fill all holes of the file, as far as the kernel knows now.
    pub(crate) fn has_room_for_holes(&self) -> bool {
        let (Ok(stat), Ok(space)) = (fstat(&self.path), fstatfs(&self.path)) else { return false };
        let stored = stat.st_blocks.cast_unsigned().saturating_mul(512);
        let free = space.f_bavail.saturating_mul(space.f_bsize.cast_unsigned());
        stat.st_size.cast_unsigned().saturating_sub(stored) <= free
    }

    /// Opens it: the kernel checks once more whether this process may.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let access = if self.writable { OFlags::RDWR } else { OFlags::RDONLY };
        open(name_of(self.path.as_fd()), access | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }
}

/// The name in the tree of names: with ` (deleted)` behind it if it has none any more.
impl Named for Origin {
    fn name(&self) -> Option<PathBuf> {
        let name = readlink(name_of(self.path.as_fd()), Vec::new()).ok()?;
        Some(OsString::from_vec(name.into_bytes()).into())
    }
}

/// Which file this is.
pub(crate) fn file_of(file: impl AsFd) -> Result<FileId, Errno> {
    let stat = fstat(file)?;
    Ok(FileId::Host { device: stat.st_dev, inode: stat.st_ino })
}

fn name_of(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
