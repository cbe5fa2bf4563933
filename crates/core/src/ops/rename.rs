//! Rename, in all its modes.

use rustix::io::Errno;
use smallvec::SmallVec;

use super::locked::{Locked, LockedInode};
use super::remove::{check_may_remove, drop_link};
use crate::dir::leaf::Key;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{Inode, Node, SetTimes};
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, NewInode, NewKind, RenameMode, Time, check_name};

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
        let from = Place { dir: old_dir, key: self.key(old_name) };
        let to = Place { dir: new_dir, key: self.key(new_name) };
        loop {
            let source = self.lookup(old_dir, old_name)?;
            let target = self.resolve(new_dir, new_name)?;
            match (mode, &target) {
                (RenameMode::NoReplace | RenameMode::NoReplaceWhiteout, Some(_)) => {
                    return Err(Errno::EXIST.into());
                }
                (RenameMode::Exchange, None) => return Err(Errno::NOENT.into()),
                (_, Some(target)) if target.ino() == source.ino() => return Ok(()),
                _ => {}
            }
            let resolved = Resolved { source, target };
            if self.rename_if_still(from, to, &resolved, mode, whiteout_owner)? {
                return Ok(());
            }
        }
    }

    /// Renames if both names still lead where they led when they were looked up.
    fn rename_if_still(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        resolved: &Resolved,
        mode: RenameMode,
        whiteout_owner: (u32, u32),
    ) -> Result<bool> {
        let crossing = from.dir.ino() != to.dir.ino();
        let is_dir = |node: &Node| Ok::<_, crate::Error>(node.inode().read()?.kind() == Kind::Directory);
        let moves_dir = crossing
            && (is_dir(&resolved.source)?
                || mode == RenameMode::Exchange && resolved.target.as_ref().map_or(Ok(false), is_dir)?);
        let _standstill = moves_dir.then(|| self.moving_directories.lock());
        if moves_dir {
            ensure(!self.is_within(to.dir, resolved.source.ino())?, Errno::INVAL)?;
            if let Some(target) = &resolved.target {
                let refusal = if mode == RenameMode::Exchange { Errno::INVAL } else { Errno::NOTEMPTY };
                ensure(!self.is_within(from.dir, target.ino())?, refusal)?;
            }
        }
        let mut tx = Tx::begin(self)?;
        let mut inodes: SmallVec<[&Inode; 4]> = SmallVec::new();
        inodes.extend([from.dir.inode(), to.dir.inode(), resolved.source.inode()]);
        inodes.extend(resolved.target.as_ref().map(Node::inode));
        let mut locked = Locked::lock(&inodes)?;
        let still_there = leads_to(self, &tx, &mut locked, from, Some(resolved.source.ino()))?
            && leads_to(self, &tx, &mut locked, to, resolved.target.as_ref().map(Node::ino))?;
        if !still_there {
            return Ok(false);
        }
        check_rename(&mut locked, from, to, resolved, mode)?;
        match (&resolved.target, mode) {
            (Some(target), RenameMode::Exchange) => {
                self.exchange(&mut tx, &mut locked, from, to, &resolved.source, target)?;
            }
            _ => self.move_entry(&mut tx, &mut locked, from, to, resolved, mode, whiteout_owner)?,
        }
        let now = self.now();
        for dir in [from.dir, to.dir] {
            locked.get(dir.inode()).touch_content(now);
        }
        set_ctimes(&mut locked, resolved, now);
        locked.commit(tx)?;
        Ok(true)
    }

    /// Whether `dir` is `ancestor` or lies below it. Directories must not be moving.
    fn is_within(&self, dir: &Node, ancestor: Ino) -> Result<bool> {
        let mut node = dir.clone();
        loop {
            if node.ino() == ancestor {
                return Ok(true);
            }
            let parent = Ino(node.inode().read()?.slot.parent.get());
            if node.ino() == Ino::ROOT || parent == node.ino() {
                return Ok(false);
            }
            node = node.fs().node(parent)?;
        }
    }

    fn move_entry(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut Locked<'_>,
        from: Place<'_>,
        to: Place<'_>,
        resolved: &Resolved,
        mode: RenameMode,
        whiteout_owner: (u32, u32),
    ) -> Result<()> {
        let source = &resolved.source;
        let kind = locked.get(source.inode()).kind();
        let new_parent = locked.get(to.dir.inode());
        match &resolved.target {
            Some(target) => {
                let entry = new_parent.find_entry(self, tx, to.key)?.ok_or(Errno::NOENT)?;
                new_parent.redirect_entry(self, tx, to.key, &entry, source.ino(), kind);
                let replaced = locked.get(target.inode());
                drop_link(replaced)?;
                if replaced.kind() == Kind::Directory {
                    locked.get(to.dir.inode()).add_links(-1)?;
                }
            }
            None => new_parent.insert_entry(self, tx, to.key, source.ino(), kind)?,
        }
        // Looked up again: adding the new name may have moved the old one to another leaf.
        let whiteout = matches!(mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout);
        let taken = if whiteout {
            Some(self.put_whiteout(tx, locked.get(from.dir.inode()), whiteout_owner)?)
        } else {
            None
        };
        let old_parent = locked.get(from.dir.inode());
        let entry = old_parent.find_entry(self, tx, from.key)?.ok_or(Errno::NOENT)?;
        match taken {
            Some(ino) => old_parent.redirect_entry(self, tx, from.key, &entry, ino, Kind::CharDevice),
            None => old_parent.remove_entry(self, tx, from.key, &entry)?,
        }
        if kind == Kind::Directory {
            adopt(locked, from.dir, to.dir, source)?;
        }
        Ok(())
    }

    /// Makes the character device 0:0 that says "there is nothing here" to an overlay.
    fn put_whiteout(&self, tx: &mut Tx<'_>, parent: &LockedInode<'_>, owner: (u32, u32)) -> Result<Ino> {
        let new = NewInode { kind: NewKind::CharDevice(0), perm: 0, umask: 0, uid: owner.0, gid: owner.1 };
        self.put_new(tx, parent, &new)
    }

    fn exchange(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut Locked<'_>,
        from: Place<'_>,
        to: Place<'_>,
        source: &Node,
        target: &Node,
    ) -> Result<()> {
        for (place, arriving) in [(from, target), (to, source)] {
            let kind = locked.get(arriving.inode()).kind();
            let parent = locked.get(place.dir.inode());
            let entry = parent.find_entry(self, tx, place.key)?.ok_or(Errno::NOENT)?;
            parent.redirect_entry(self, tx, place.key, &entry, arriving.ino(), kind);
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

fn check_rename(
    locked: &mut Locked<'_>,
    from: Place<'_>,
    to: Place<'_>,
    resolved: &Resolved,
    mode: RenameMode,
) -> Result<()> {
    const FIXED: Flags = Flags::IMMUTABLE.union(Flags::APPEND);
    let source = locked.get(resolved.source.inode());
    let source_kind = source.kind();
    let source_fixed = source.flags().intersects(FIXED);
    check_may_remove(locked.get(from.dir.inode()))?;
    ensure(!source_fixed, Errno::PERM)?;
    let new_parent = locked.get(to.dir.inode());
    ensure(new_parent.slot.links.get() > 0, Errno::NOENT)?;
    match &resolved.target {
        None => ensure(!new_parent.flags().contains(Flags::IMMUTABLE), Errno::PERM)?,
        Some(target) => {
            check_may_remove(new_parent)?;
            let target = locked.get(target.inode());
            ensure(!target.flags().intersects(FIXED), Errno::PERM)?;
            if mode != RenameMode::Exchange {
                match (source_kind == Kind::Directory, target.kind() == Kind::Directory) {
                    (true, false) => return Err(Errno::NOTDIR.into()),
                    (false, true) => return Err(Errno::ISDIR.into()),
                    (true, true) => ensure(target.slot.size.get() == 0, Errno::NOTEMPTY)?,
                    (false, false) => {}
                }
            }
        }
    }
    Ok(())
}

/// A directory has moved from one parent to another.
fn adopt(locked: &mut Locked<'_>, old_dir: &Node, new_dir: &Node, child: &Node) -> Result<()> {
    locked.get(child.inode()).slot.parent = new_dir.ino().0.into();
    locked.get(old_dir.inode()).add_links(-1)?;
    locked.get(new_dir.inode()).add_links(1)
}

fn set_ctimes(locked: &mut Locked<'_>, resolved: &Resolved, now: Time) {
    locked.get(resolved.source.inode()).slot.set_ctime(now);
    if let Some(target) = &resolved.target {
        locked.get(target.inode()).slot.set_ctime(now);
    }
}
