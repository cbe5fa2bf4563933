//! The inodes that the kernel holds.
//!
//! The kernel counts how often it was told of an inode (*lookups*) and gives the counts back with FORGET. As long
//! as a count is above zero the engine must keep the inode, linked or not: the table holds its [`Node`].
//!
//! Invariants:
//! - A node is counted *before* the reply that names it is sent; the kernel may forget it at once.
//! - The root is there from the beginning to the end, uncounted: the kernel never forgets it.
//! - A node is released outside of the lock, because releasing the last reference to an unlinked inode frees its
//!   blocks.
//!
//! [`Node`]: lodefs_core::Node

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

/// A power of two well above the number of server threads, so that two seldom meet.
const SHARDS: usize = 64;

/// Number of the root directory.
const ROOT: u64 = 1;

struct Held<N> {
    node: N,
    lookups: u64,
}

/// Maps inode numbers to the nodes that the kernel holds.
pub(crate) struct NodeTable<N> {
    root: N,
    shards: [Mutex<HashMap<u64, Held<N>>>; SHARDS],
}

impl<N: Clone> NodeTable<N> {
    pub(crate) fn new(root: N) -> Self {
        Self { root, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, ino: u64) -> &Mutex<HashMap<u64, Held<N>>> {
        &self.shards[ino as usize % SHARDS]
    }

    /// The node that the kernel means by `ino`, if it holds it.
    pub(crate) fn get(&self, ino: u64) -> Option<N> {
        if ino == ROOT {
            return Some(self.root.clone());
        }
        self.shard(ino).lock().get(&ino).map(|held| held.node.clone())
    }

    /// Counts that the kernel is about to be told of `node`, whose number is `ino`.
    pub(crate) fn remember(&self, ino: u64, node: N) {
        if ino == ROOT {
            return;
        }
        match self.shard(ino).lock().entry(ino) {
            Entry::Occupied(mut held) => held.get_mut().lookups += 1,
            Entry::Vacant(free) => {
                free.insert(Held { node, lookups: 1 });
            }
        }
    }

    /// The kernel gives back `lookups` of the times that it was told of `ino`.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        let released = {
            let mut shard = self.shard(ino).lock();
            match shard.entry(ino) {
                Entry::Occupied(mut held) if held.get().lookups > lookups => {
                    held.get_mut().lookups -= lookups;
                    None
                }
                Entry::Occupied(held) => Some(held.remove()),
                Entry::Vacant(_) => None,
            }
        };
        drop(released);
    }

    /// Releases everything but the root: the kernel is gone and does not send what it still owes.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let released = std::mem::take(&mut *shard.lock());
            drop(released);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn table() -> (NodeTable<Arc<()>>, Arc<()>) {
        (NodeTable::new(Arc::new(())), Arc::new(()))
    }

    #[test]
    fn a_node_stays_until_the_last_lookup_is_given_back() {
        let (table, node) = table();
        for _ in 0..3 {
            table.remember(77, node.clone());
        }
        assert_eq!(Arc::strong_count(&node), 2, "one reference, however often it is looked up");
        table.forget(77, 2);
        assert!(table.get(77).is_some());
        table.forget(77, 1);
        assert!(table.get(77).is_none());
        assert_eq!(Arc::strong_count(&node), 1);
    }

    #[test]
    fn numbers_that_share_a_shard_are_different_inodes() {
        let (table, node) = table();
        table.remember(5, node.clone());
        assert!(table.get(5 + SHARDS as u64).is_none());
    }

    #[test]
    fn the_root_cannot_be_forgotten() {
        let (table, node) = table();
        table.remember(ROOT, node);
        table.forget(ROOT, u64::MAX);
        assert!(table.get(ROOT).is_some());
    }

    #[test]
    fn more_forgets_than_lookups_release_once() {
        let (table, node) = table();
        table.remember(9, node.clone());
        table.forget(9, 100);
        table.forget(9, 1);
        assert_eq!(Arc::strong_count(&node), 1);
    }

    #[test]
    fn clear_releases_everything() {
        let (table, node) = table();
        for ino in 2..1000 {
            table.remember(ino, node.clone());
        }
        table.clear();
        assert_eq!(Arc::strong_count(&node), 1);
    }
}
