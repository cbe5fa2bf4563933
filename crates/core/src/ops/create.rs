//! Making inodes and names: create, tmpfile, link.

use lodefs_layout::SYMLINK_MAX;
use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};
use rustix::io::Errno;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

use super::locked::{Locked, LockedInode};
use super::xattr::{self, ACL_ACCESS, ACL_DEFAULT};
use crate::acl::{self, Acl};
use crate::blob;
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::inode::{InodeState, Node, SetTimes, table};
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, NewInode, NewKind, S_ISGID, S_PERM, XattrMode, check_name};
use crate::xattr_set::XattrSet;

/// A number that was taken and goes back unless it is used.
struct TakenIno<'f> {
    fs: &'f Fs,
    ino: Ino,
    used: bool,
}

impl Drop for TakenIno<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.fs.table.give_back(self.fs, self.ino);
        }
    }
}

/// An inode about to be made.
struct Draft<'f> {
    taken: TakenIno<'f>,
    offset: u64,
    /// What is in its place now.
    old: InodeSlot,
    slot: InodeSlot,
}

impl Fs {
    /// Makes an inode of any kind and gives it a name. EXIST if the name is taken.
    pub fn create(&self, dir: &Node, name: &[u8], new: &NewInode<'_>) -> Result<Node> {
        check_name(name)?;
        let mut tx = Tx::begin(self)?;
        let mut parent = lock_parent(self, dir)?;
        let key = self.key(name);
        ensure(parent.find_entry(self, &tx, key)?.is_none(), Errno::EXIST)?;
        check_may_add(&parent)?;
        let mut draft = self.draft(&mut tx, &parent, new)?;
        let kind = new.kind.kind();
        draft.slot.links = U32::new(if kind == Kind::Directory { 2 } else { 1 });
        parent.insert_entry(self, &mut tx, key, draft.taken.ino, kind)?;
        if kind == Kind::Directory {
            parent.add_links(1)?;
        }
        let now = parent.now(self);
        parent.touch_content(now);
        parent.put(&mut tx);
        let node = finish(dir, tx, draft, || parent.accept())?;
        Ok(node)
    }

    /// Makes a regular file without a name, as `O_TMPFILE` does. It lives until the last reference goes, or until
    /// [`Fs::link`] gives it a name.
    pub fn tmpfile(&self, dir: &Node, new: &NewInode<'_>) -> Result<Node> {
        ensure(new.kind == NewKind::File, Errno::INVAL)?;
        let mut tx = Tx::begin(self)?;
        let parent = lock_parent(self, dir)?;
        check_may_add(&parent)?;
        let draft = self.draft(&mut tx, &parent, new)?;
        let node = finish(dir, tx, draft, || ())?;
        node.inode().state.write().awaits_name = true;
        Ok(node)
    }

    /// Gives an inode another name. PERM for directories.
    pub fn link(&self, node: &Node, dir: &Node, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let mut tx = Tx::begin(self)?;
        ensure(dir.inode().read()?.kind() == Kind::Directory, Errno::NOTDIR)?;
        ensure(node.inode().read()?.kind() != Kind::Directory, Errno::PERM)?;
        let mut locked = Locked::lock(self, &[dir.inode(), node.inode()])?;
        let key = self.key(name);
        let now = locked.now(self);
        let target = locked.get(node.inode());
        ensure(!target.flags().intersects(Flags::IMMUTABLE | Flags::APPEND), Errno::PERM)?;
        ensure(target.slot.links.get() > 0 || target.state.awaits_name, Errno::NOENT)?;
        target.add_links(1)?;
        target.slot.set_ctime(now);
        let kind = target.kind();
        let parent = locked.get(dir.inode());
        ensure(parent.slot.links.get() > 0, Errno::NOENT)?;
        ensure(parent.find_entry(self, &tx, key)?.is_none(), Errno::EXIST)?;
        check_may_add(parent)?;
        parent.insert_entry(self, &mut tx, key, node.ino(), kind)?;
        parent.touch_content(now);
        locked.commit(tx)
    }

    /// Puts a new inode with one link, to which the caller adds an entry, into the transaction. If the transaction is
    /// not committed, the number stays taken until the next open.
    pub(super) fn put_new(
        &self,
        tx: &mut Tx<'_>,
        parent: &LockedInode<'_>,
        new: &NewInode<'_>,
    ) -> Result<Ino> {
        let mut draft = self.draft(tx, parent, new)?;
        draft.slot.links = U32::new(1);
        tx.put_inode(draft.offset, draft.taken.ino, &draft.old, &mut draft.slot);
        draft.taken.used = true;
        Ok(draft.taken.ino)
    }

    /// Takes a number and fills in a slot with no links, as a child of `parent`.
    fn draft(&self, tx: &mut Tx<'_>, parent: &LockedInode<'_>, new: &NewInode<'_>) -> Result<Draft<'_>> {
        let ino = self.table.take(self)?;
        let taken = TakenIno { fs: self, ino, used: false };
        let offset = table::slot_offset(&self.volume, ino)?;
        let old: InodeSlot = self.volume.get(offset)?;
        let mut draft = Draft { taken, offset, old, slot: InodeSlot::new_zeroed() };
        let kind = new.kind.kind();
        let slot = &mut draft.slot;
        slot.ino = U64::new(ino.0);
        // In a new chunk, numbers may be used again that were in one before: sequence numbers are never lower than theirs.
        let last = if old.ino.get() == 0 { self.journal.last_seq() as u32 } else { old.generation.get() };
        slot.generation = U32::new(last.wrapping_add(1));
        slot.uid = U32::new(new.uid);
        slot.gid = U32::new(new.gid);
        let mut perm = new.perm & S_PERM;
        if parent.slot.mode.get() & S_ISGID != 0 {
            slot.gid = parent.slot.gid;
            if kind == Kind::Directory {
                perm |= S_ISGID;
            }
        }
        let now = self.clock.tick();
        slot.set_atime(now);
        slot.set_mtime(now);
        slot.set_ctime(now);
        slot.set_btime(now);
        inherit_flags(slot, parent, kind);
        if kind == Kind::Directory {
            slot.parent = U64::new(parent.inode.ino.0);
        }
        match new.kind {
            NewKind::CharDevice(rdev) | NewKind::BlockDevice(rdev) => slot.rdev = U64::new(rdev.into()),
            NewKind::Symlink(target) => self.put_target(tx, slot, ino, target)?,
            _ => {}
        }
        slot.mode = U32::new(kind.mode_bits());
        let perm = self.inherit_acl(tx, parent, slot, kind, perm, new.umask)?;
        slot.mode = U32::new(kind.mode_bits() | perm);
        Ok(draft)
    }

    fn put_target(&self, tx: &mut Tx<'_>, slot: &mut InodeSlot, ino: Ino, target: &[u8]) -> Result<()> {
        ensure(!target.is_empty(), Errno::NOENT)?;
        ensure(target.len() <= SYMLINK_MAX && !target.contains(&0), Errno::NAMETOOLONG)?;
        slot.size = U64::new(target.len() as u64);
        if target.len() <= INLINE_SIZE {
            slot.inline[..target.len()].copy_from_slice(target);
            return Ok(());
        }
        let run = blob::write(tx, &self.volume, ino, target)?;
        slot.root = U64::new(run.start);
        slot.blocks = U64::new(slot.blocks.get() + run.blocks);
        Ok(())
    }

    /// Gives a new inode the ACLs that its parent's default ACL says, and returns its permissions.
    fn inherit_acl(
        &self,
        tx: &mut Tx<'_>,
        parent: &LockedInode<'_>,
        slot: &mut InodeSlot,
        kind: Kind,
        perm: u32,
        umask: u32,
    ) -> Result<u32> {
        let without_acl = perm & !umask;
        if parent.slot.xattr_block.get() == 0 || kind == Kind::Symlink {
            return Ok(if kind == Kind::Symlink { perm } else { without_acl });
        }
        let of_parent = xattr::load(&self.volume, &parent.slot)?;
        let default = of_parent.get(ACL_DEFAULT).map(|value| parse_acl(parent, value)).transpose()?.flatten();
        let inherited = acl::inherit(default.as_ref(), perm, umask, kind == Kind::Directory);
        let mut attributes = XattrSet::default();
        for (name, acl) in [(ACL_ACCESS, inherited.access), (ACL_DEFAULT, inherited.default)] {
            if let Some(acl) = acl {
                attributes.set(name, &acl.to_bytes(), XattrMode::Set)?;
            }
        }
        xattr::store(tx, &self.volume, slot, &attributes)?;
        Ok(inherited.mode)
    }
}

fn parse_acl(owner: &LockedInode<'_>, value: &[u8]) -> Result<Option<Acl>> {
    Acl::parse(value).map_err(|_| Error::corrupt_inode(owner.inode.ino, "its default ACL makes no sense"))
}

fn lock_parent<'d>(fs: &Fs, dir: &'d Node) -> Result<LockedInode<'d>> {
    let parent = LockedInode::lock(fs, dir.inode())?;
    ensure(parent.kind() == Kind::Directory, Errno::NOTDIR)?;
    ensure(parent.slot.links.get() > 0, Errno::NOENT)?;
    Ok(parent)
}

fn check_may_add(parent: &LockedInode<'_>) -> Result<()> {
    ensure(!parent.flags().contains(Flags::IMMUTABLE), Errno::PERM)
}

/// Flags that children take over (SPEC D2 for DAX; as on XFS for projects).
fn inherit_flags(slot: &mut InodeSlot, parent: &LockedInode<'_>, kind: Kind) {
    let of_parent = parent.flags();
    let mut flags = Flags::empty();
    if matches!(kind, Kind::File | Kind::Directory) {
        flags |= of_parent & (Flags::DAX | Flags::NODUMP | Flags::NOATIME | Flags::SYNC);
    }
    if of_parent.contains(Flags::PROJINHERIT) {
        slot.project = parent.slot.project;
        if kind == Kind::Directory {
            flags |= Flags::PROJINHERIT;
        }
    }
    slot.xflags = U32::new(flags.bits());
}

/// Commits a new inode and brings it into memory before its parent's lock is released by the caller.
fn finish(dir: &Node, mut tx: Tx<'_>, mut draft: Draft<'_>, accept: impl FnOnce()) -> Result<Node> {
    let ino = draft.taken.ino;
    tx.put_inode(draft.offset, ino, &draft.old, &mut draft.slot);
    tx.commit()?;
    accept();
    draft.taken.used = true;
    let fs = dir.fs();
    let inode = fs.cache.insert(ino, draft.offset, InodeState::new(draft.slot));
    Ok(Node::adopt(lodefs_sync::Arc::clone(fs), inode))
}
