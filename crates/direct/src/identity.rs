//! Is a descriptor still the file that it was?
//!
//! Programs close descriptors in ways that nobody sees, and open others by the same number. A file that was opened with
//! [`TELLS_WHEN_CLOSED`] tells the server, which takes everything back before close returns. So who has something of a file, and asks
//! here afterwards, may rely on the descriptor as long as he has it.

use std::os::fd::AsFd;

use lodefs_proto::ticket::TELLS_WHEN_CLOSED;
use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, statx};
use rustix::io::Errno;

/// Which file it is, among those of this machine: its device, and the number of its inode.
pub(crate) type FileKey = ((u32, u32), u64);

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    mode: OFlags,
}

impl Identity {
    /// Without asking the server, who would have to take back from this program what it is about to rely on.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(&file, c"", flags, StatxFlags::INO)?;
        let mode = fcntl_getfl(file)?;
        Ok(Self { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino, mode })
    }

    /// Whether this is such a file, opened in the same way.
    pub(crate) fn is_of(&self, file: impl AsFd) -> bool {
        Self::of(file).is_ok_and(|found| found == *self)
    }

    /// Which file it is.
    pub(crate) fn file(&self) -> FileKey {
        (self.device, self.inode)
    }

    /// The number of its inode, by which its server knows it too.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether the server is told when a descriptor of it is closed.
    pub(crate) fn tells_when_closed(&self) -> bool {
        self.mode.bits() & TELLS_WHEN_CLOSED != 0
    }
}
