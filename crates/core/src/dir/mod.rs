//! Directories: from a name to an inode number, and back in a stable order.
//!
//! A directory is a tree of blocks ordered by the hashes of the entries ([`lodefs_layout::names`]). An empty directory
//! has no block; a small one has one leaf. [`leaf`] works on the entries of one leaf, [`tree`] finds the leaf for a
//! hash and changes the shape of the tree, [`split`] says where a leaf that is full is divided, [`read`] lists the
//! directory, and [`position`] says how a listing goes on where it stopped.
//!
//! Leaves change in place, through the journal. Interior blocks, and leaves that are split, packed or dropped, are
//! replaced by fresh blocks up to the root, which the inode names: so the shape changes with the inode, in one record.

pub(crate) mod leaf;
pub(crate) mod position;
pub(crate) mod read;
pub(crate) mod split;
pub(crate) mod tree;

use lodefs_layout::directory::Node;

use self::position::Ties;
use crate::inode::cache::NumberMap;
use crate::types::{Ino, Kind};
use lodefs_sync::{Arc, Mutex};

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The leaf it is in.
    pub(crate) block: u64,
    /// Its place among the leaf's tags.
    pub(crate) tag_index: usize,
    /// Its place in the leaf, in bytes.
    pub(crate) position: usize,
    /// Its hash.
    pub(crate) hash: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
}

/// Interior blocks of one directory that were read and checked. They never change; they only cease to be used. And what
/// listings of the directory need to go on.
#[derive(Default)]
pub(crate) struct NodeCache {
    nodes: Mutex<NumberMap<Arc<Node>>>,
    pub(crate) ties: Ties,
}

impl NodeCache {
    pub(crate) fn get(&self, block: u64) -> Option<Arc<Node>> {
        self.nodes.lock().get(&block).map(Arc::clone)
    }

    pub(crate) fn insert(&self, block: u64, node: Arc<Node>) {
        self.nodes.lock().insert(block, node);
    }

    pub(crate) fn forget(&self, block: u64) {
        self.nodes.lock().remove(&block);
    }

    pub(crate) fn clear(&self) {
        self.nodes.lock().clear();
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.nodes.lock().len() * (size_of::<Node>() + 32) + self.ties.memory()
    }
}
