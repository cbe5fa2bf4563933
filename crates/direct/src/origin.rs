//! Which file does a mapping belong to, when no descriptor of it is open?
//!
//! An open file holds a file as direct, or as buffered, as it is. A mapping that can be switched must not, so it keeps a descriptor
//! that is not open for anything (`O_PATH`): it keeps the mount, and the file, and can be opened again.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// A file that can be opened.
pub(crate) struct Origin {
    path: OwnedFd,
    writable: bool,
}

impl Origin {
    /// That of an open file.
    pub(crate) fn of(file: impl AsFd, writable: bool) -> Result<Self, Errno> {
        let path = open(name_of(file.as_fd()), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, writable })
    }

    /// Opens it: the kernel checks once more whether this process may.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let access = if self.writable { OFlags::RDWR } else { OFlags::RDONLY };
        open(name_of(self.path.as_fd()), access | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }
}

fn name_of(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
