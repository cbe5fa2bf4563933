//! Rename, in all its modes.

use rustix::io::Errno;
use smallvec::SmallVec;

use super::ancestry::{Forest, is_within, key_of};
use super::locked::{Locked, LockedInode};
use super::remove::{check_may_remove, drop_link};
use crate::dir::leaf::Key;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{Inode, Node, SetTimes};
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, NewInode, NewKind, RenameMode, check_name};
use lodefs_sync::MutexGuard;

/// A rename that knows what it is about.
struct Rename<'a> {
    fs: &'a Fs,
    from: Place<'a>,
    to: Place<'a>,
    mode: RenameMode,
    whiteout_owner: (u32, u32),
}

/// One side of a rename.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: &'a Node,
    key: Key<'a>,
}

/// What the two names led to when they were looked up.
struct Resolved {
    source: Node,
    target: Option<Node>,
}

impl Fs {
    /// Moves a name. `whiteout_owner` (user, group) owns what [`RenameMode::Whiteout`] leaves behind.
    pub fn rename(
        &self,
        old_dir: &Node,
        old_name: &[u8],
        new_dir: &Node,
        new_name: &[u8],
        mode: RenameMode,
        whiteout_owner: (u32, u32),
    ) -> Result<()> {
        check_name(old_name)?;
        check_name(new_name)?;
        let rename = Rename {
            fs: self,
            from: Place { dir: old_dir, key: self.key(old_name) },
            to: Place { dir: new_dir, key: self.key(new_name) },
            mode,
            whiteout_owner,
        };
        loop {
            let source = self.lookup(old_dir, old_name)?;
            let target = self.resolve(new_dir, new_name)?;
            let known = match (mode, &target) {
                (RenameMode::NoReplace | RenameMode::NoReplaceWhiteout, Some(_)) => {
                    Some(Err(Errno::EXIST.into()))
                }
                (RenameMode::Exchange, None) => Some(Err(Errno::NOENT.into())),
                (_, Some(target)) if target.ino() == source.ino() => Some(Ok(())),
                _ => None,
            };
            let resolved = Resolved { source, target };
            if let Some(answer) = known {
                // One name was looked up after the other: only if both led there at the same time is it the answer.
                if rename.is_still(&resolved)? {
                    return answer;
                }
            } else if rename.commit_if_still(&resolved)? {
                return Ok(());
            }
        }
    }
}

impl Rename<'_> {
    /// Whether both names lead, at one moment, where they led when they were looked up.
    fn is_still(&self, resolved: &Resolved) -> Result<bool> {
        let tx = Tx::begin(self.fs)?;
        let mut locked = Locked::lock(self.fs, &[self.from.dir.inode(), self.to.dir.inode()])?;
        self.leads_there(&tx, &mut locked, resolved)
    }

    fn leads_there(&self, tx: &Tx<'_>, locked: &mut Locked<'_>, resolved: &Resolved) -> Result<bool> {
        let Resolved { source, target } = resolved;
        Ok(leads_to(self.fs, tx, locked, self.from, Some(source.ino()))?
            && leads_to(self.fs, tx, locked, self.to, target.as_ref().map(Node::ino))?)
    }

    /// Renames if both names still lead where they led when they were looked up.
    fn commit_if_still(&self, resolved: &Resolved) -> Result<bool> {
        let (from, to) = (self.from, self.to);
        let _standstill = self.check_ancestry(resolved)?;
        let mut tx = Tx::begin(self.fs)?;
        let mut inodes: SmallVec<[&Inode; 4]> = SmallVec::new();
        inodes.extend([from.dir.inode(), to.dir.inode(), resolved.source.inode()]);
        inodes.extend(resolved.target.as_ref().map(Node::inode));
        let mut locked = Locked::lock(self.fs, &inodes)?;
        if !self.leads_there(&tx, &mut locked, resolved)? {
            return Ok(false);
        }
        self.check(&mut locked, resolved)?;
        match (&resolved.target, self.mode) {
            (Some(target), RenameMode::Exchange) => {
                self.exchange(&mut tx, &mut locked, &resolved.source, target)?;
            }
            _ => self.move_entry(&mut tx, &mut locked, resolved)?,
        }
        let now = locked.now(self.fs);
        for dir in [from.dir, to.dir] {
            locked.get(dir.inode()).touch_content(now);
        }
        for node in std::iter::once(&resolved.source).chain(&resolved.target) {
            locked.get(node.inode()).slot.set_ctime(now);
        }
        locked.commit(tx)?;
        Ok(true)
    }

    /// If a directory is to get another parent, or to be replaced from below: keeps all directories in place, and
    /// refuses to put one below itself, or to replace one that the source is in.
    fn check_ancestry(&self, resolved: &Resolved) -> Result<Option<MutexGuard<'_, Forest>>> {
        let Resolved { source, target } = resolved;
        let is_dir = |node: &Node| node.kind() == Kind::Directory;
        let crossing = self.from.dir.ino() != self.to.dir.ino();
        if !crossing || !(is_dir(source) || target.as_ref().is_some_and(is_dir)) {
            return Ok(None);
        }
        let mut forest = self.fs.moving_directories.lock();
        ensure(!is_within(&mut forest, self.to.dir, source)?, Errno::INVAL)?;
        if let Some(target) = target {
            let exchanges = self.mode == RenameMode::Exchange;
            let refusal = if exchanges { Errno::INVAL } else { Errno::NOTEMPTY };
            ensure(!is_within(&mut forest, self.from.dir, target)?, refusal)?;
        }
        // Whatever becomes of it: the next question finds the parents anew.
        for node in std::iter::once(source).chain(target).filter(|node| is_dir(node)) {
            forest.moved(key_of(node)?);
        }
        Ok(Some(forest))
    }

    fn check(&self, locked: &mut Locked<'_>, resolved: &Resolved) -> Result<()> {
        const FIXED: Flags = Flags::IMMUTABLE.union(Flags::APPEND);
        let source = locked.get(resolved.source.inode());
        let source_is_dir = source.kind() == Kind::Directory;
        ensure(!source.flags().intersects(FIXED), Errno::PERM)?;
        check_may_remove(locked.get(self.from.dir.inode()))?;
        let new_parent = locked.get(self.to.dir.inode());
        ensure(new_parent.slot.links.get() > 0, Errno::NOENT)?;
        let Some(target) = &resolved.target else {
            return ensure(!new_parent.flags().contains(Flags::IMMUTABLE), Errno::PERM);
        };
        check_may_remove(new_parent)?;
        let target = locked.get(target.inode());
        ensure(!target.flags().intersects(FIXED), Errno::PERM)?;
        if self.mode == RenameMode::Exchange {
            return Ok(());
        }
        match (source_is_dir, target.kind() == Kind::Directory) {
            (true, false) => Err(Errno::NOTDIR.into()),
            (false, true) => Err(Errno::ISDIR.into()),
            (true, true) => ensure(target.slot.size.get() == 0, Errno::NOTEMPTY),
            (false, false) => Ok(()),
        }
    }

    fn move_entry(&self, tx: &mut Tx<'_>, locked: &mut Locked<'_>, resolved: &Resolved) -> Result<()> {
        let (fs, from, to, source) = (self.fs, self.from, self.to, &resolved.source);
        let kind = locked.get(source.inode()).kind();
        let new_parent = locked.get(to.dir.inode());
        match &resolved.target {
            Some(target) => {
                let entry = new_parent.find_entry(fs, tx, to.key)?.ok_or(Errno::NOENT)?;
                new_parent.redirect_entry(fs, tx, to.key, &entry, source.ino(), kind);
                let replaced = locked.get(target.inode());
                drop_link(replaced)?;
                if replaced.kind() == Kind::Directory {
                    locked.get(to.dir.inode()).add_links(-1)?;
                }
            }
            None => new_parent.insert_entry(fs, tx, to.key, source.ino(), kind)?,
        }
        // Looked up again: adding the new name may have moved the old one to another leaf.
        let old_parent = locked.get(from.dir.inode());
        let entry = old_parent.find_entry(fs, tx, from.key)?.ok_or(Errno::NOENT)?;
        if matches!(self.mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout) {
            let whiteout = self.put_whiteout(tx, old_parent)?;
            old_parent.redirect_entry(fs, tx, from.key, &entry, whiteout, Kind::CharDevice);
        } else {
            old_parent.remove_entry(fs, tx, &entry)?;
        }
        if kind == Kind::Directory {
            adopt(locked, from.dir, to.dir, source)?;
        }
        Ok(())
    }

    /// Makes the character device 0:0 that says "there is nothing here" to an overlay.
    fn put_whiteout(&self, tx: &mut Tx<'_>, parent: &LockedInode<'_>) -> Result<Ino> {
        let (uid, gid) = self.whiteout_owner;
        let new = NewInode { kind: NewKind::CharDevice(0), perm: 0, umask: 0, uid, gid };
        self.fs.put_new(tx, parent, &new)
    }

    fn exchange(&self, tx: &mut Tx<'_>, locked: &mut Locked<'_>, source: &Node, target: &Node) -> Result<()> {
        let (from, to) = (self.from, self.to);
        for (place, arriving) in [(from, target), (to, source)] {
            let kind = locked.get(arriving.inode()).kind();
            let parent = locked.get(place.dir.inode());
            let entry = parent.find_entry(self.fs, tx, place.key)?.ok_or(Errno::NOENT)?;
            parent.redirect_entry(self.fs, tx, place.key, &entry, arriving.ino(), kind);
        }
        for (node, old_dir, new_dir) in [(source, from.dir, to.dir), (target, to.dir, from.dir)] {
            if locked.get(node.inode()).kind() == Kind::Directory {
                adopt(locked, old_dir, new_dir, node)?;
            }
        }
        Ok(())
    }
}

/// Whether a name leads to `expected` (or nowhere).
fn leads_to(
    fs: &Fs,
    tx: &Tx<'_>,
    locked: &mut Locked<'_>,
    place: Place<'_>,
    expected: Option<Ino>,
) -> Result<bool> {
    let entry = locked.get(place.dir.inode()).find_entry(fs, tx, place.key)?;
    Ok(entry.map(|entry| entry.ino) == expected)
}

/// A directory has moved from one parent to another.
fn adopt(locked: &mut Locked<'_>, old_dir: &Node, new_dir: &Node, child: &Node) -> Result<()> {
    locked.get(child.inode()).slot.parent = new_dir.ino().0.into();
    locked.get(old_dir.inode()).add_links(-1)?;
    locked.get(new_dir.inode()).add_links(1)
}
