//! Removing names: unlink and rmdir.

use rustix::io::Errno;

use super::locked::{Locked, LockedInode};
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{Node, SetTimes};
use crate::tx::Tx;
use crate::types::{Flags, Kind, check_name};
use lodefs_sync::Ordering;

/// What kind of inode the name must lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removal {
    Unlink,
    Rmdir,
}

impl Fs {
    /// Removes a name that does not lead to a directory. The inode is reclaimed when its last name and the last
    /// reference to it are gone.
    pub fn unlink(&self, dir: &Node, name: &[u8]) -> Result<()> {
        self.remove(dir, name, Removal::Unlink)
    }

    /// Removes an empty directory. NOTEMPTY if it is not.
    pub fn rmdir(&self, dir: &Node, name: &[u8]) -> Result<()> {
        self.remove(dir, name, Removal::Rmdir)
    }

    fn remove(&self, dir: &Node, name: &[u8], removal: Removal) -> Result<()> {
        check_name(name)?;
        loop {
            let child = self.lookup(dir, name)?;
            if self.remove_if_still(dir, name, &child, removal)? {
                return Ok(());
            }
        }
    }

    /// Removes the name if it still leads to `child`.
    fn remove_if_still(&self, dir: &Node, name: &[u8], child: &Node, removal: Removal) -> Result<bool> {
        let mut tx = Tx::begin(self)?;
        let mut locked = Locked::lock(self, &[dir.inode(), child.inode()])?;
        let key = self.key(name);
        let now = locked.now(self);
        let parent = locked.get(dir.inode());
        let Some(entry) = parent.find_entry(self, &tx, key)?.filter(|entry| entry.ino == child.ino()) else {
            return Ok(false);
        };
        check_may_remove(parent)?;
        parent.remove_entry(self, &mut tx, &entry)?;
        parent.touch_content(now);
        if removal == Removal::Rmdir {
            parent.add_links(-1)?;
        }
        let target = locked.get(child.inode());
        check_target(target, removal)?;
        drop_link(target)?;
        target.slot.set_ctime(now);
        // If nobody else refers to it, it can go in the same transaction. References come from looking up its name, which
        // the lock on the directory prevents; whoever finds it by its number alone will see that it is dead.
        let last = target.slot.links.get() == 0 && child.inode().references.load(Ordering::Acquire) == 1;
        if last {
            self.put_free(&mut tx, target)?;
        }
        locked.commit(tx)?;
        if last {
            self.finish_reclaim(locked.get(child.inode()));
        }
        Ok(true)
    }
}

/// Whether names may be removed from this directory.
pub(super) fn check_may_remove(parent: &LockedInode<'_>) -> Result<()> {
    ensure(!parent.flags().intersects(Flags::IMMUTABLE | Flags::APPEND), Errno::PERM)
}

fn check_target(target: &LockedInode<'_>, removal: Removal) -> Result<()> {
    ensure(!target.flags().intersects(Flags::IMMUTABLE | Flags::APPEND), Errno::PERM)?;
    match (removal, target.kind()) {
        (Removal::Unlink, Kind::Directory) => Err(Errno::ISDIR.into()),
        (Removal::Rmdir, Kind::Directory) => ensure(target.slot.size.get() == 0, Errno::NOTEMPTY),
        (Removal::Rmdir, _) => Err(Errno::NOTDIR.into()),
        (Removal::Unlink, _) => Ok(()),
    }
}

/// One name less; a directory has only one.
pub(super) fn drop_link(target: &mut LockedInode<'_>) -> Result<()> {
    if target.kind() == Kind::Directory {
        target.slot.links = 0.into();
        return Ok(());
    }
    target
        .add_links(-1)
        .map_err(|_| crate::error::Error::corrupt_inode(target.inode.ino, "it has a name but no links"))
}
