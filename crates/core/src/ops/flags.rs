//! Persistent flags: `FS_IOC_FSSETXATTR` and its older relative.

use rustix::io::Errno;
use zerocopy::little_endian::U32;

use super::locked::LockedInode;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{Node, SetTimes};
use crate::tx::Tx;
use crate::types::{Flags, Kind};

impl Fs {
    /// Sets all flags, and the project identifier if given. Regular files and directories only, else INVAL. Whether the
    /// caller may is for the caller to know.
    pub fn set_flags(&self, node: &Node, flags: Flags, project: Option<u32>) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(node.inode())?;
        ensure(matches!(locked.kind(), Kind::File | Kind::Directory), Errno::INVAL)?;
        ensure(Flags::all().contains(flags), Errno::OPNOTSUPP)?;
        let mut kept = flags;
        if locked.kind() == Kind::File {
            // Only a directory can pass it on; asking is harmless.
            kept.remove(Flags::PROJINHERIT);
        }
        let project = project.unwrap_or_else(|| locked.slot.project.get());
        locked.slot.xflags = U32::new(kept.bits());
        locked.slot.project = U32::new(project);
        let now = locked.now(self);
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }
}
