//! Locks of an open file that others may have descriptors and mappings of: they last until the last of these is gone.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The byte of a medium by which those who read it by themselves are known: behind all content.
const READERS: i64 = i64::MAX - 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// To be one of those who read.
    Reader,
    /// That there is nobody who reads.
    NoReader,
    /// Nothing any more.
    None,
}

/// Sets a lock of an open file, without waiting; AGAIN if others have what excludes it.
pub(crate) fn set(file: impl AsFd, lock: Lock) -> Result<(), Errno> {
    let kind = match lock {
        Lock::Reader => libc::F_RDLCK,
        Lock::NoReader => libc::F_WRLCK,
        Lock::None => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: READERS,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the command reads such a structure, which lives until the call returns.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        // POSIX allows either.
        Some(Errno::ACCESS) | None => Err(Errno::AGAIN),
        Some(errno) => Err(errno),
    }
}
