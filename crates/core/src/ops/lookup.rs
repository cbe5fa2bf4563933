//! From a name to an inode.

use rustix::io::Errno;

use crate::dir::Entry;
use crate::dir::leaf::Key;
use crate::dir::tree::Tree;
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::inode::{Inode, InodeState, Node};
use crate::types::{Ino, Kind, check_name};

impl Fs {
    /// The inode that `name` leads to in `dir`; `.` and `..` are understood. NOENT if there is none.
    pub fn lookup(&self, dir: &Node, name: &[u8]) -> Result<Node> {
        let state = dir.inode().read()?;
        ensure(state.kind() == Kind::Directory, Errno::NOTDIR)?;
        if name == b"." {
            return Ok(dir.clone());
        }
        if name == b".." {
            return dir.fs().node(Ino(state.slot.parent.get()));
        }
        check_name(name)?;
        let entry = self.find(dir.inode(), &state, self.key(name))?.ok_or(Errno::NOENT)?;
        // Under the lock of the directory, so that the inode cannot be unlinked and gone in between.
        match dir.fs().node(entry.ino) {
            Err(Error::Refused(Errno::STALE)) => Err(Error::Corrupt {
                object: format!("directory {}", dir.ino()),
                fault: "an entry leads to no inode",
            }),
            other => other,
        }
    }

    /// A name with its hashes.
    pub(super) fn key<'n>(&self, name: &'n [u8]) -> Key<'n> {
        Key::new(&self.volume, name)
    }

    /// Looks for an entry of a directory whose state is locked.
    pub(super) fn find(&self, dir: &Inode, state: &InodeState, key: Key<'_>) -> Result<Option<Entry>> {
        let tree = Tree { volume: &self.volume, nodes: &state.nodes, owner: dir.ino };
        tree.find(&self.volume, state.slot.root.get(), key)
    }

    /// The entry `name` of `dir` as it is now, and the inode it leads to.
    pub(super) fn resolve(&self, dir: &Node, name: &[u8]) -> Result<Option<Node>> {
        match self.lookup(dir, name) {
            Ok(node) => Ok(Some(node)),
            Err(Error::Refused(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
