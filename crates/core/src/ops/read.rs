//! Reading: data, holes, links, directories.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::FIRST_HASH;
use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};
use rustix::io::Errno;

use crate::blob;
use crate::dir;
use crate::dir::tree::Tree;
use crate::error::{Error, Result, ensure};
use crate::extents::ExtentMap;
use crate::fs::Fs;
use crate::inode::glimpse::Glimpse;
use crate::inode::{Inode, InodeState, Node, SetTimes};
use crate::lease::{DataRight, has_writer, recall_data};
use crate::ops::locked::LockedInode;
use crate::tx::{Tx, offset_of};
use crate::types::{DirEntry, Flags, Ino, Kind, SeekTarget, Time};
use lodefs_sync::RwLockReadGuard;

/// Positions of the first entries of a directory. For the next ones see `dir::position`.
const AFTER_DOT: u64 = 1;
const AFTER_DOT_DOT: u64 = 2;
const _: () = assert!(AFTER_DOT_DOT < FIRST_HASH);

/// With "relatime", an access time that is newer than the last change is stored again only after this.
const ATIME_PERIOD_S: i64 = 24 * 60 * 60;

impl Fs {
    /// Reads into `into` from byte `offset` on; fewer bytes than asked for only at the end of the file.
    pub fn read(&self, node: &Node, offset: u64, into: &mut [u8]) -> Result<usize> {
        if let Some(read) = self.read_by_glimpse(node.inode(), offset, into) {
            return Ok(read);
        }
        let state = self.lock_content(node.inode())?;
        let size = state.slot.size.get();
        let wanted = (into.len() as u64).min(size.saturating_sub(offset));
        if into.is_empty() {
            return Ok(0);
        }
        let into = &mut into[..wanted as usize];
        self.read_mapped(loaded(&state), offset, into)?;
        let touched = self.atime_to_store(&state);
        if touched.is_none() {
            self.offer_glimpse(node.inode(), &state, offset);
        }
        drop(state);
        if let Some(now) = touched {
            self.touch_atime(node.inode(), now)?;
        }
        Ok(into.len())
    }

    /// The short way, without the lock: all in the extent that was glimpsed, and no access time to store.
    fn read_by_glimpse(&self, inode: &Inode, offset: u64, into: &mut [u8]) -> Option<usize> {
        let end = offset.checked_add(into.len() as u64)?;
        inode.state.with_glimpse(|words| {
            let glimpse = Glimpse::of_words(words);
            let within = glimpse.start <= offset && offset < glimpse.end && end <= glimpse.end;
            let is_quiet =
                || glimpse.quiet_until_s == i64::MAX || self.clock.tick().s < glimpse.quiet_until_s;
            if !within || !is_quiet() {
                return None;
            }
            // What was glimpsed while it changed may be anything; it is found out afterwards.
            let at = glimpse.at.wrapping_add(offset - glimpse.start);
            self.volume.medium.read(at, into).ok()?;
            Some(into.len())
        })
    }

    /// Lets the next reads find the extent at `offset` without the lock.
    fn offer_glimpse(&self, inode: &Inode, state: &RwLockReadGuard<'_, InodeState>, offset: u64) {
        let block = offset / BLOCK_SIZE;
        let Some(quiet_until_s) = self.atime_quiet_until(state) else { return };
        let Some(extent) = loaded(state).extent_at(block) else { return };
        let glimpse = Glimpse {
            start: extent.logical * BLOCK_SIZE,
            end: extent.logical_end().saturating_mul(BLOCK_SIZE).min(state.slot.size.get()),
            at: offset_of(extent.physical),
            quiet_until_s,
        };
        inode.state.offer(state, glimpse.to_words());
    }

    fn read_mapped(&self, map: &ExtentMap, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let (block, within) = (at / BLOCK_SIZE, at % BLOCK_SIZE);
            let rest = &mut into[done..];
            let part = match map.find(block) {
                Ok(extent) => {
                    let part = rest.len().min((extent.blocks * BLOCK_SIZE - within) as usize);
                    self.volume.medium.read(offset_of(extent.physical) + within, &mut rest[..part])?;
                    part
                }
                Err(hole) => {
                    let part = (rest.len() as u64).min(hole.saturating_mul(BLOCK_SIZE).saturating_sub(within))
                        as usize;
                    rest[..part].fill(0);
                    part
                }
            };
            done += part;
        }
        Ok(())
    }

    /// Locks a regular file for reading, with its extents in memory.
    pub(crate) fn lock_with_extents<'i>(&self, inode: &'i Inode) -> Result<RwLockReadGuard<'i, InodeState>> {
        loop {
            let state = inode.read()?;
            match state.kind() {
                Kind::File if state.extents.is_some() => return Ok(state),
                Kind::File => {}
                Kind::Directory => return Err(Errno::ISDIR.into()),
                _ => return Err(Errno::INVAL.into()),
            }
            drop(state);
            LockedInode::lock_beside_data(inode)?.state.extents(&self.volume, inode.ino)?;
        }
    }

    /// The same, and no program changes the content by itself.
    fn lock_content<'i>(&self, inode: &'i Inode) -> Result<RwLockReadGuard<'i, InodeState>> {
        loop {
            let state = self.lock_with_extents(inode)?;
            if !has_writer(&state) {
                return Ok(state);
            }
            drop(state);
            let mut locked = LockedInode::lock_beside_data(inode)?;
            recall_data(&mut locked.state, DataRight::Read, None);
            self.settle_tail(&mut locked)?;
        }
    }

    /// Notes that a program is about to read: as with any other read, the access time may have to be stored.
    pub(crate) fn note_read(&self, locked: &mut LockedInode<'_>) -> Result<()> {
        let Some(now) = self.atime_to_store(&locked.state) else { return Ok(()) };
        let tx = Tx::begin(self)?;
        locked.slot.set_atime(now);
        locked.commit(tx)
    }

    /// The time to store as the last access, if it is time to do so ("relatime").
    fn atime_to_store(&self, state: &InodeState) -> Option<Time> {
        let quiet_until_s = self.atime_quiet_until(state);
        if quiet_until_s == Some(i64::MAX) {
            return None;
        }
        let now = self.clock.tick();
        if quiet_until_s.is_some_and(|until| now.s < until) {
            return None;
        }
        (now != atime_of(&state.slot)).then_some(now)
    }

    /// The second from which on a read has to store an access time, if nothing changes; `None`: the next one does.
    fn atime_quiet_until(&self, state: &InodeState) -> Option<i64> {
        let keeps = if state.kind() == Kind::Directory { self.keeps_dir_atime } else { self.keeps_atime };
        if !keeps || state.flags().contains(Flags::NOATIME) || self.check_writable().is_err() {
            return Some(i64::MAX);
        }
        let slot = &state.slot;
        let time = |s: i64, which: usize| Time { s, ns: slot.times_ns[which].get() };
        let changed = time(slot.mtime_s.get(), 1).max(time(slot.ctime_s.get(), 2));
        let atime = atime_of(slot);
        (atime > changed).then(|| atime.s.saturating_add(ATIME_PERIOD_S))
    }

    fn touch_atime(&self, inode: &Inode, now: Time) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock_beside_data(inode)?;
        locked.slot.set_atime(now);
        locked.commit(tx)
    }

    /// The next byte from `offset` on that is data, or that is in a hole. NXIO if there is none, or if `offset` is not
    /// within the file.
    pub fn seek(&self, node: &Node, offset: u64, target: SeekTarget) -> Result<u64> {
        let state = self.lock_content(node.inode())?;
        let size = state.slot.size.get();
        ensure(offset < size, Errno::NXIO)?;
        let map = loaded(&state);
        let mut block = offset / BLOCK_SIZE;
        loop {
            let (is_data, blocks) = match map.find(block) {
                Ok(extent) => (true, extent.blocks),
                Err(hole) => (false, hole),
            };
            let found = (block * BLOCK_SIZE).max(offset);
            if found >= size {
                break;
            }
            if is_data == (target == SeekTarget::Data) {
                return Ok(found);
            }
            match block.checked_add(blocks).filter(|next| *next <= size / BLOCK_SIZE) {
                Some(next) => block = next,
                None => break,
            }
        }
        if target == SeekTarget::Hole { Ok(size) } else { Err(Errno::NXIO.into()) }
    }

    /// The target of a symbolic link. INVAL if it is none.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>> {
        let state = node.inode().read()?;
        ensure(state.kind() == Kind::Symlink, Errno::INVAL)?;
        let size = state.slot.size.get() as usize;
        if size <= INLINE_SIZE {
            return Ok(state.slot.inline[..size].to_vec());
        }
        blob::read(&self.volume, node.ino(), state.slot.root.get(), size)
    }

    /// Visits the entries of a directory from position `from` on (0 is the start), `.` and `..` included, in an order
    /// that does not depend on what is added or removed meanwhile. The visitor returns `false` when it has enough; the
    /// entry it was shown then does not count as read.
    pub fn read_dir(&self, dir: &Node, from: u64, visit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<()> {
        let state = dir.inode().read()?;
        ensure(state.kind() == Kind::Directory, Errno::NOTDIR)?;
        let dots: [(&[u8], u64, Ino); 2] =
            [(b".", AFTER_DOT, dir.ino()), (b"..", AFTER_DOT_DOT, Ino(state.slot.parent.get()))];
        for (name, next, ino) in dots {
            let entry = DirEntry { next, ino, kind: Kind::Directory, name: name.to_vec() };
            if from < next && !visit(&entry) {
                return Ok(());
            }
        }
        let tree = Tree { volume: &self.volume, nodes: &state.nodes, owner: dir.ino() };
        dir::read::read(&tree, state.slot.root.get(), state.slot.size.get(), from, visit)?;
        let touched = self.atime_to_store(&state);
        drop(state);
        match touched {
            Some(now) => self.touch_atime(dir.inode(), now),
            None => Ok(()),
        }
    }

    /// Makes what was written to this file, and all that has to be known to find it, durable as far as the domain can.
    pub fn fsync(&self, node: &Node, _data_only: bool) -> Result<()> {
        self.flush_mapped(node, |_| true)?;
        self.sync()
    }
}

fn atime_of(slot: &InodeSlot) -> Time {
    Time { s: slot.atime_s.get(), ns: slot.times_ns[0].get() }
}

/// The extents of a state from [`Fs::lock_with_extents`].
pub(super) fn loaded(state: &InodeState) -> &ExtentMap {
    state.extents.as_ref().expect("the state was locked with its extents")
}

impl From<crate::xattr_set::XattrError> for Error {
    fn from(error: crate::xattr_set::XattrError) -> Self {
        Self::Refused(error.errno())
    }
}
