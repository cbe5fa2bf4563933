//! Reading: data, holes, links, directories.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::FIRST_HASH;
use lodefs_layout::inode::INLINE_SIZE;
use rustix::io::Errno;

use crate::blob;
use crate::dir;
use crate::dir::tree::Tree;
use crate::error::{Error, Result, ensure};
use crate::extents::ExtentMap;
use crate::fs::Fs;
use crate::inode::{Inode, InodeState, Node, SetTimes};
use crate::ops::locked::LockedInode;
use crate::sync::RwLockReadGuard;
use crate::tx::{Tx, offset_of};
use crate::types::{DirEntry, Flags, Ino, Kind, SeekTarget, Time};

/// Positions of the first entries of a directory. The next ones are hashes.
const AFTER_DOT: u64 = 1;
const AFTER_DOT_DOT: u64 = 2;
const _: () = assert!(AFTER_DOT_DOT < FIRST_HASH);

/// With "relatime", an access time that is newer than the last change is stored again only after this.
const ATIME_PERIOD_S: i64 = 24 * 60 * 60;

impl Fs {
    /// Reads into `into` from byte `offset` on; fewer bytes than asked for only at the end of the file.
    pub fn read(&self, node: &Node, offset: u64, into: &mut [u8]) -> Result<usize> {
        let state = self.lock_with_extents(node.inode())?;
        let size = state.slot.size.get();
        let wanted = (into.len() as u64).min(size.saturating_sub(offset));
        let into = &mut into[..wanted as usize];
        if into.is_empty() {
            return Ok(0);
        }
        self.read_mapped(loaded(&state), offset, into)?;
        let touched = self.atime_to_store(&state);
        drop(state);
        if let Some(now) = touched {
            self.touch_atime(node.inode(), now)?;
        }
        Ok(into.len())
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
    pub(super) fn lock_with_extents<'i>(&self, inode: &'i Inode) -> Result<RwLockReadGuard<'i, InodeState>> {
        loop {
            let state = inode.read()?;
            match state.kind() {
                Kind::File if state.extents.is_some() => return Ok(state),
                Kind::File => {}
                Kind::Directory => return Err(Errno::ISDIR.into()),
                _ => return Err(Errno::INVAL.into()),
            }
            drop(state);
            LockedInode::lock(inode)?.state.extents(&self.volume, inode.ino)?;
        }
    }

    /// The time to store as the last access, if it is time to do so ("relatime").
    fn atime_to_store(&self, state: &InodeState) -> Option<Time> {
        if !self.keeps_atime || state.flags().contains(Flags::NOATIME) || self.check_writable().is_err() {
            return None;
        }
        let slot = &state.slot;
        let time = |s: i64, which: usize| Time { s, ns: slot.times_ns[which].get() };
        let atime = time(slot.atime_s.get(), 0);
        let changed = time(slot.mtime_s.get(), 1).max(time(slot.ctime_s.get(), 2));
        if atime > changed && self.clock.tick().s.saturating_sub(atime.s) < ATIME_PERIOD_S {
            return None;
        }
        let now = self.clock.tick();
        (now != atime).then_some(now)
    }

    fn touch_atime(&self, inode: &Inode, now: Time) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(inode)?;
        locked.slot.set_atime(now);
        locked.commit(tx)
    }

    /// The next byte from `offset` on that is data, or that is in a hole. NXIO if there is none, or if `offset` is not
    /// within the file.
    pub fn seek(&self, node: &Node, offset: u64, target: SeekTarget) -> Result<u64> {
        let state = self.lock_with_extents(node.inode())?;
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
        dir::read::read(&tree, state.slot.root.get(), from, visit)?;
        let touched = self.atime_to_store(&state);
        drop(state);
        match touched {
            Some(now) => self.touch_atime(dir.inode(), now),
            None => Ok(()),
        }
    }

    /// Makes what was written to this file, and all that has to be known to find it, durable as far as the domain can.
    pub fn fsync(&self, _node: &Node, _data_only: bool) -> Result<()> {
        self.sync()
    }
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
