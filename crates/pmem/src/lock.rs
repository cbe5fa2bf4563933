//! The lock that keeps others off a medium.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::MediumError;
use crate::open::Access;

/// A file that others cannot use meanwhile.
///
/// Dropping it unlocks it rather than leaving that to the closing of the file: a process that another thread is just
/// starting has the file open too, until it executes its program.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    /// Locks the file at `path`, without waiting: for all others, or for those that write.
    pub(crate) fn lock(path: &Path, file: File, access: Access) -> Result<Self, MediumError> {
        let operation = match access {
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => Ok(Self(file)),
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
        Self(file)
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If it cannot be unlocked, closing it does.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
