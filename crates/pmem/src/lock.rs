//! The lock that keeps others off a medium.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use lodefs_sync::{AtomicBool, Ordering};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::MediumError;
use crate::ofd::{self, Lock};
use crate::open::Access;

/// A file that others cannot use meanwhile.
///
/// Dropping it unlocks it rather than leaving that to the closing of the file: a process that another thread is just
/// starting has the file open too, until it executes its program.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    /// Others have descriptors of it: it stays locked until the last of them is closed, and the last mapping gone.
    is_shared: AtomicBool,
}

impl LockedFile {
    /// Locks the file at `path`, without waiting: for all others, or for those that write.
    pub(crate) fn lock(path: &Path, file: File, access: Access) -> Result<Self, MediumError> {
        let operation = match access {
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
        };
        let locked = flock(&file, operation).and_then(|()| match access {
            Access::ReadOnly => Ok(()),
            // Who reads by himself may be left over from a server that is gone: what he is shown must not change meanwhile.
            Access::ReadWrite => ofd::set(&file, Lock::NoReader).and_then(|()| ofd::set(&file, Lock::None)),
        });
        match locked {
            Ok(()) => Ok(Self::nameless(file)),
            Err(Errno::WOULDBLOCK) => Err(MediumError::InUse { path: path.to_path_buf() }),
            Err(errno) => Err(MediumError::Io {
                name: path.display().to_string(),
                action: "lock it",
                source: errno.into(),
            }),
        }
    }

    /// A file that nobody else can find, and that needs no lock.
    pub(crate) fn nameless(file: File) -> Self {
        Self { file, is_shared: AtomicBool::new(false) }
    }

    /// A descriptor for somebody else: of the same open file, or of one that can only be read. As long as there is one, or a mapping, nobody
    /// can lock the file to write.
    pub(crate) fn share(&self, writable: bool) -> io::Result<OwnedFd> {
        if !writable {
            let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let shared = rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            ofd::set(&shared, Lock::Reader)?;
            return Ok(shared);
        }
        let shared = self.file.as_fd().try_clone_to_owned()?;
        self.is_shared.store(true, Ordering::Relaxed);
        Ok(shared)
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if !self.is_shared.load(Ordering::Relaxed) {
            // If it cannot be unlocked, closing it does.
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}
