//! Caches of content that somebody keeps outside of the engine.
//!
//! The kernel keeps pages of a direct file for whoever maps it privately, executes it, or splices it. As long as it does, no program may
//! change the content by itself. So what programs may store to is taken back when such pages are read, and before it is lent
//! again, the pages are dropped.

use super::recall::recall_stores;
use super::{Bounds, DataRight, recall_data};
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::{InodeState, Node};
use crate::ops::locked::LockedInode;
use lodefs_layout::BLOCK_SIZE;

/// What somebody keeps of a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cached {
    /// Reads so far by him who keeps it.
    reads: u64,
    /// How many of them he has kept nothing of.
    dropped: u64,
}

impl Cached {
    /// Whether there may be something.
    pub(crate) fn is_there(self) -> bool {
        self.reads > self.dropped
    }
}

impl Fs {
    /// Reads as [`Fs::read`] does, for somebody who keeps what he reads. Until [`Fs::drop_cached`], no program is lent what it could change
    /// it with.
    pub fn read_to_cache(&self, node: &Node, offset: u64, into: &mut [u8]) -> Result<usize> {
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        locked.state.cached.reads += 1;
        let end = offset.saturating_add(into.len() as u64);
        recall_stores(&mut locked.state, Bounds { from: offset / BLOCK_SIZE, to: end.div_ceil(BLOCK_SIZE) });
        recall_data(&mut locked.state, DataRight::Read, None);
        drop(locked);
        self.read(node, offset, into)
    }

    /// Has `forget` drop all that is kept of a file's content. It is called without any lock, and may wait for reads that are under way.
    pub fn drop_cached(&self, node: &Node, forget: impl FnOnce()) -> Result<()> {
        let seen = with_cached(node, |cached| cached.reads)?;
        forget();
        // Of what was read meanwhile, something may be kept.
        with_cached(node, |cached| cached.dropped = cached.dropped.max(seen))
    }
}

fn with_cached<T>(node: &Node, with: impl FnOnce(&mut Cached) -> T) -> Result<T> {
    let mut state = node.inode().write()?;
    state.keep_glimpse();
    let InodeState { cached, .. } = &mut *state;
    Ok(with(cached))
}
