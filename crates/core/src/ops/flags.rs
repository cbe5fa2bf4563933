//! Persistent flags: `FS_IOC_FSSETXATTR` and its older relative.

use rustix::io::Errno;
use zerocopy::little_endian::U32;

use super::locked::LockedInode;
use crate::access::{Hold, Switch};
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
        ensure(has_flags(locked.kind()), Errno::INVAL)?;
        ensure(Flags::all().contains(flags), Errno::OPNOTSUPP)?;
        let mut kept = flags;
        if locked.kind() == Kind::File {
            // Only a directory can pass it on; asking is harmless.
            kept.remove(Flags::PROJINHERIT);
        }
        check_immutable(locked.flags(), kept)?;
        if let Some(project) = project {
            locked.slot.project = U32::new(project);
        }
        self.commit_flags(tx, &mut locked, kept)
    }

    /// Sets or clears the DAX flag alone. With [`Switch::Now`], BUSY if others hold the file in the way that it would no
    /// longer be reached; then nothing has changed. INVAL unless it is a regular file or a directory.
    ///
    /// `asker` is a hold through which the caller asks: it does not count, and is taken away if the file switches.
    pub fn set_dax(&self, node: &Node, on: bool, switch: Switch, asker: &mut Option<Hold>) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(node.inode())?;
        ensure(has_flags(locked.kind()), Errno::INVAL)?;
        let mut flags = locked.flags();
        flags.set(Flags::DAX, on);
        check_immutable(locked.flags(), flags)?;
        let (effect, _) = self.dax_rules.wanted(flags);
        let asker_id: Vec<u64> = asker.iter().map(Hold::id).collect();
        let stays = self.holders.is_held_otherwise(node.ino(), effect, &asker_id);
        ensure(switch == Switch::Pending || !stays, Errno::BUSY)?;
        if flags != locked.flags() {
            self.commit_flags(tx, &mut locked, flags)?;
        }
        if !stays && asker.as_ref().is_some_and(|asker| asker.effect() != effect) {
            // Nobody can come to hold the file before the inode is unlocked.
            drop(asker.take());
        }
        Ok(())
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
