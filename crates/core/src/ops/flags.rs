//! Persistent flags: `FS_IOC_FSSETXATTR` and its older relative.

use rustix::io::Errno;
use zerocopy::little_endian::U32;

use super::locked::LockedInode;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{Node, SetTimes};
use crate::tx::Tx;
use crate::types::{Flags, Kind, Writer};

impl Fs {
    /// Sets all flags, and the project identifier if given. Regular files and directories only, else INVAL. Whether the
    /// caller may is for the caller to know.
    pub fn set_flags(&self, node: &Node, flags: Flags, project: Option<u32>) -> Result<()> {
        self.set_flags_as(node, flags, project, Writer::Privileged)
    }

    /// The same for a caller that may lack the right to keep set-id bits: then both go, as on XFS.
    pub fn set_flags_as(
        &self,
        node: &Node,
        flags: Flags,
        project: Option<u32>,
        writer: Writer,
    ) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(self, node.inode())?;
        ensure(has_flags(locked.kind()), Errno::INVAL)?;
        ensure(Flags::all().contains(flags), Errno::OPNOTSUPP)?;
        let mut kept = flags;
        if locked.kind() == Kind::File {
            // Only a directory can pass it on; asking is harmless.
            kept.remove(Flags::PROJINHERIT);
        }
        check_immutable(locked.flags(), kept)?;
        if writer != Writer::Privileged {
            locked.slot.mode = U32::new(Writer::Stranger.keeps_of(locked.slot.mode.get()));
        }
        if let Some(project) = project {
            locked.slot.project = U32::new(project);
        }
        self.commit_flags(tx, &mut locked, kept)
    }

    pub(crate) fn commit_flags(&self, tx: Tx<'_>, locked: &mut LockedInode<'_>, flags: Flags) -> Result<()> {
        locked.slot.xflags = U32::new(flags.bits());
        let now = locked.now(self);
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }
}

/// Whether inodes of this kind have flags.
pub(crate) fn has_flags(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Directory)
}

/// As on XFS, an immutable file keeps its DAX flag, unless it ceases to be immutable at the same time.
pub(crate) fn check_immutable(before: Flags, after: Flags) -> Result<()> {
    let stays = before & after & Flags::IMMUTABLE;
    ensure(stays.is_empty() || !(before ^ after).contains(Flags::DAX), Errno::PERM)
}
