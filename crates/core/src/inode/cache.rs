//! The inodes in memory, and the references to them.
//!
//! A [`Node`] keeps its inode in memory and, if the last link goes, on the volume. References are added only under the
//! lock of the shard, or from a reference that exists; so when the last one finds under that lock that it is the last,
//! nobody else can be about to use the inode, and it may be taken out and reclaimed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rustix::io::Errno;

use super::{Inode, InodeState, table};
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::ops::tail::apply_after_crash;
use crate::types::{Ino, Kind};
use lodefs_sync::{Arc, Mutex, Ordering};

// Tests of schedules have few inodes, and must meet at a shard and fill it.
const SHARDS: usize = if cfg!(lodefs_shuttle) { 2 } else { 64 };
/// Inodes kept in memory without being in use, in each shard.
const UNUSED_MAX_PER_SHARD: usize = if cfg!(lodefs_shuttle) { 2 } else { 1024 };

/// Inode numbers are spread well enough by one multiplication.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// A map keyed by numbers.
pub(crate) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

pub(crate) struct InodeCache {
    shards: [Shard; SHARDS],
}

impl Default for InodeCache {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()) }
    }
}

/// On a cache line of its own, so that shards do not disturb each other.
#[repr(align(64))]
struct Shard(Mutex<NumberMap<Arc<Inode>>>);

impl Default for Shard {
    fn default() -> Self {
        Self(Mutex::new(NumberMap::default()))
    }
}

impl InodeCache {
    fn shard(&self, ino: Ino) -> &Mutex<NumberMap<Arc<Inode>>> {
        &self.shards[ino.0 as usize % SHARDS].0
    }

    /// Adds a new inode, which was just committed, with one reference. (Whoever guessed its number may have been
    /// quicker to read it.)
    pub(crate) fn insert(&self, ino: Ino, slot_offset: u64, state: InodeState) -> Arc<Inode> {
        let inode = Arc::new(Inode::new(ino, slot_offset, state, 1));
        let mut shard = self.shard(ino).lock();
        if let Some(present) = shard.get(&ino.0) {
            present.references.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(present);
        }
        make_room(&mut shard);
        shard.insert(ino.0, Arc::clone(&inode));
        inode
    }

    /// Takes out an inode that is dead.
    pub(crate) fn remove(&self, inode: &Inode) {
        let mut shard = self.shard(inode.ino).lock();
        if shard.get(&inode.ino.0).is_some_and(|present| std::ptr::eq(Arc::as_ptr(present), inode)) {
            shard.remove(&inode.ino.0);
        }
    }

    /// Whether an inode without links is still referred to.
    pub(crate) fn has_unlinked(&self) -> bool {
        // Inodes are locked before shards, never the other way round.
        let all: Vec<Arc<Inode>> = self
            .shards
            .iter()
            .flat_map(|shard| shard.0.lock().values().cloned().collect::<Vec<_>>())
            .collect();
        all.iter().any(|inode| inode.read().is_ok_and(|state| state.slot.links.get() == 0))
    }

    /// Number of inodes in memory, and the heap bytes they take, roughly.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let mut count = 0;
        let mut bytes = 0;
        for shard in &self.shards {
            let shard = shard.0.lock();
            count += shard.len();
            bytes += shard.capacity() * (size_of::<(u64, Arc<Inode>)>() + 1);
            for inode in shard.values() {
                bytes += size_of::<Inode>() + 16;
                if let Some(state) = inode.state.try_read() {
                    bytes += state.extents.as_ref().map_or(0, crate::extents::ExtentMap::memory);
                    bytes += state.nodes.memory();
                }
            }
        }
        (count, bytes)
    }
}

/// Drops inodes that nobody uses when there are too many in memory.
fn make_room(shard: &mut NumberMap<Arc<Inode>>) {
    if shard.len() < UNUSED_MAX_PER_SHARD || shard.len() < shard.capacity() {
        return;
    }
    let mut keep = UNUSED_MAX_PER_SHARD / 2;
    shard.retain(|_, inode| {
        // One without links is about to be reclaimed by whoever dropped the last reference, and must be found.
        let linked = || inode.state.try_read().is_some_and(|state| state.slot.links.get() > 0);
        let in_use = inode.references.load(Ordering::Acquire) > 0 || !linked();
        if !in_use && keep > 0 {
            keep -= 1;
            return true;
        }
        in_use
    });
}

/// A counted reference to an inode.
///
/// As long as there is one, the inode exists, even if its last link is removed; the last one to go then reclaims it.
pub struct Node {
    fs: Arc<Fs>,
    inode: Arc<Inode>,
}

impl Node {
    /// Takes over a reference that was already counted.
    pub(crate) fn adopt(fs: Arc<Fs>, inode: Arc<Inode>) -> Self {
        Self { fs, inode }
    }

    pub(crate) fn inode(&self) -> &Inode {
        &self.inode
    }

    /// The inode's number.
    pub fn ino(&self) -> Ino {
        self.inode.ino
    }

    /// The inode's kind.
    pub fn kind(&self) -> Kind {
        self.inode.kind
    }

    /// The file system it belongs to.
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        self.inode.references.fetch_add(1, Ordering::Relaxed);
        Self { fs: Arc::clone(&self.fs), inode: Arc::clone(&self.inode) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.inode.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.fs.last_reference_dropped(&self.inode);
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.inode.ino).finish()
    }
}

impl Fs {
    /// A reference to inode `ino`, from memory or from the volume. STALE if it does not exist (any more).
    pub(crate) fn node(self: &Arc<Self>, ino: Ino) -> Result<Node> {
        let mut shard = self.cache.shard(ino).lock();
        if let Some(inode) = shard.get(&ino.0) {
            inode.references.fetch_add(1, Ordering::Relaxed);
            return Ok(Node::adopt(Arc::clone(self), Arc::clone(inode)));
        }
        let (slot_offset, slot) = table::read_slot(&self.volume, ino)?;
        ensure(!slot.is_free() && slot.links.get() > 0, Errno::STALE)?;
        let mut state = InodeState::new(slot);
        if !self.tails.allow(&self.volume, &state.slot) && !self.words.hold(state.slot.tail.get()) {
            return Err(Error::corrupt_inode(ino, "its size is in a word that nobody has left"));
        }
        if self.check_writable().is_err() {
            apply_after_crash(&self.volume, ino, &mut state)?;
        }
        let inode = Arc::new(Inode::new(ino, slot_offset, state, 1));
        make_room(&mut shard);
        shard.insert(ino.0, Arc::clone(&inode));
        drop(shard);
        Ok(Node::adopt(Arc::clone(self), inode))
    }

    /// Reclaims the inode if it has no links, and nobody has found it again in the meantime.
    fn last_reference_dropped(&self, inode: &Arc<Inode>) {
        {
            let state = inode.state.read();
            if state.slot.links.get() > 0 || state.dead {
                return;
            }
        }
        let mut shard = self.cache.shard(inode.ino).lock();
        let ours = shard.get(&inode.ino.0).is_some_and(|cached| Arc::ptr_eq(cached, inode));
        if !ours || inode.references.load(Ordering::Acquire) > 0 {
            return;
        }
        shard.remove(&inode.ino.0);
        drop(shard);
        if let Err(error) = self.reclaim(inode) {
            self.note_orphan(inode.ino, &error);
        }
    }
}
