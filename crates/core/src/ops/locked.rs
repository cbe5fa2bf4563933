//! Inodes that one operation has locked for change.
//!
//! An operation locks all the inodes it will change, in ascending order of their numbers, so that two operations never
//! wait for each other. It changes copies of their slots; committing records what differs and only then makes the
//! copies the truth.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode::InodeSlot;
use rustix::io::Errno;
use smallvec::SmallVec;

use crate::changes;
use crate::dir::Entry;
use crate::dir::leaf::{self, Key};
use crate::dir::tree::Tree;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::glimpse::StateWriteGuard;
use crate::inode::{Inode, SetTimes};
use crate::lease::{DataRight, recall_data, recall_end};
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, Time};
use lodefs_sync::Ordering;

pub(crate) struct LockedInode<'i> {
    pub(super) inode: &'i Inode,
    pub(crate) state: StateWriteGuard<'i>,
    /// The slot as it will be.
    pub(super) slot: InodeSlot,
}

impl<'i> LockedInode<'i> {
    /// Locks one inode; STALE if it has been reclaimed. No program reads or writes the content by itself any more.
    pub(crate) fn lock(fs: &Fs, inode: &'i Inode) -> Result<Self> {
        let mut locked = Self::lock_beside_data(inode)?;
        recall_data(&mut locked.state, DataRight::Write, None);
        fs.settle_tail(&mut locked)?;
        Ok(locked)
    }

    /// The same for who changes neither content nor size, nor who may do what with it: programs may go on.
    pub(crate) fn lock_beside_data(inode: &'i Inode) -> Result<Self> {
        Ok(Self::new(inode, inode.write()?))
    }

    /// Takes over the lock of an inode.
    pub(super) fn new(inode: &'i Inode, state: StateWriteGuard<'i>) -> Self {
        let slot = state.slot;
        Self { inode, state, slot }
    }

    /// Records what will be different about it.
    pub(super) fn put(&mut self, tx: &mut Tx<'_>) {
        if self.slot != self.state.slot {
            tx.put_inode(self.inode.slot_offset, self.inode.ino, &self.state.slot, &mut self.slot);
        }
    }

    /// What was to change did not: the slot is what it was, and the extents, which were changed in memory, are read again.
    pub(super) fn forget_changes(&mut self) {
        self.slot = self.state.slot;
        self.state.extents = None;
    }

    /// The transaction was committed. Waits for programs that have met the end of a file which is longer now.
    pub(super) fn accept(&mut self) {
        let time = |slot: &InodeSlot| (slot.ctime_s, slot.times_ns[2]);
        if time(&self.slot) != time(&self.state.slot) {
            self.inode.times_seen.store(false, Ordering::Relaxed);
        }
        changes::note(&self.state.slot, &self.slot);
        if self.state.slot.xattr_block != self.slot.xattr_block {
            self.state.has_capability = None;
        }
        let before = self.state.slot.size.get();
        self.state.slot = self.slot;
        if self.slot.size.get() > before {
            recall_end(&mut self.state, before / BLOCK_SIZE);
        }
    }

    /// Commits a transaction that changes only this inode.
    pub(super) fn commit(&mut self, mut tx: Tx<'_>) -> Result<()> {
        self.put(&mut tx);
        tx.commit()?;
        self.accept();
        Ok(())
    }

    pub(crate) fn flags(&self) -> Flags {
        self.state.flags()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.state.kind()
    }

    /// The time for a change of this inode.
    pub(super) fn now(&self, fs: &Fs) -> Time {
        self.inode.now(fs)
    }

    /// Notes a change of the content.
    pub(super) fn touch_content(&mut self, now: Time) {
        self.slot.set_mtime(now);
        self.slot.set_ctime(now);
    }

    /// Adds `change` to the number of links.
    pub(super) fn add_links(&mut self, change: i32) -> Result<()> {
        let links = self.slot.links.get().checked_add_signed(change).ok_or(Errno::MLINK)?;
        ensure(links <= LINKS_MAX || change < 0, Errno::MLINK)?;
        self.slot.links = links.into();
        Ok(())
    }

    /// Looks for an entry of this directory, as the transaction will leave it.
    pub(super) fn find_entry(&self, fs: &Fs, tx: &Tx<'_>, key: Key<'_>) -> Result<Option<Entry>> {
        self.tree(fs).find(tx, self.slot.root.get(), key)
    }

    /// Adds an entry, whose name is not there, to this directory.
    pub(super) fn insert_entry(
        &mut self,
        fs: &Fs,
        tx: &mut Tx<'_>,
        key: Key<'_>,
        ino: Ino,
        kind: Kind,
    ) -> Result<()> {
        let tree = Tree { volume: &fs.volume, nodes: &self.state.nodes, owner: self.inode.ino };
        tree.insert(tx, &mut self.slot, key, ino, kind)
    }

    /// Removes an entry that was found in this directory.
    pub(super) fn remove_entry(&mut self, fs: &Fs, tx: &mut Tx<'_>, entry: &Entry) -> Result<()> {
        let tree = Tree { volume: &fs.volume, nodes: &self.state.nodes, owner: self.inode.ino };
        tree.remove(tx, &mut self.slot, entry)
    }

    /// Makes an entry that was found in this directory lead elsewhere.
    pub(super) fn redirect_entry(
        &self,
        fs: &Fs,
        tx: &mut Tx<'_>,
        key: Key<'_>,
        entry: &Entry,
        ino: Ino,
        kind: Kind,
    ) {
        leaf::redirect(tx, &fs.volume, self.inode.ino, entry, key.name, ino, kind);
    }

    fn tree<'s>(&'s self, fs: &'s Fs) -> Tree<'s> {
        Tree { volume: &fs.volume, nodes: &self.state.nodes, owner: self.inode.ino }
    }
}

/// Most links of an inode, as on XFS.
const LINKS_MAX: u32 = 0x7fff_ffff;

/// Several locked inodes.
pub(super) struct Locked<'i>(SmallVec<[LockedInode<'i>; 4]>);

impl<'i> Locked<'i> {
    /// Locks inodes; one that is named twice is locked once. STALE if one of them has been reclaimed.
    pub(super) fn lock(fs: &Fs, inodes: &[&'i Inode]) -> Result<Self> {
        let mut sorted: SmallVec<[&'i Inode; 4]> = SmallVec::from_slice(inodes);
        sorted.sort_unstable_by_key(|inode| inode.ino);
        sorted.dedup_by_key(|inode| inode.ino);
        sorted.into_iter().map(|inode| LockedInode::lock(fs, inode)).collect::<Result<_>>().map(Self)
    }

    /// One of them.
    ///
    /// # Panics
    /// If it was not locked.
    pub(super) fn get(&mut self, inode: &Inode) -> &mut LockedInode<'i> {
        let found = self.0.iter_mut().find(|locked| locked.inode.ino == inode.ino);
        found.expect("an operation changes only what it has locked")
    }

    /// The time for a change of all of them.
    pub(super) fn now(&self, fs: &Fs) -> Time {
        let seen = self.0.iter().any(|locked| locked.inode.times_seen.load(Ordering::Relaxed));
        if seen { fs.clock.fine() } else { fs.clock.tick() }
    }

    /// Commits, together with the changes of all of them.
    pub(super) fn commit(&mut self, mut tx: Tx<'_>) -> Result<()> {
        for locked in &mut self.0 {
            locked.put(&mut tx);
        }
        tx.commit()?;
        for locked in &mut self.0 {
            locked.accept();
        }
        Ok(())
    }
}
