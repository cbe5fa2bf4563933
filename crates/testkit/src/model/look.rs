//! What a crash test has to know of the model besides its answers: files by identity, whether a name leads to them or
//! not, and what the clock stands for.

use std::collections::BTreeMap;

use super::content::Content;
use super::inode::{Body, Ino};
use super::{EPOCH_SECONDS, Model};
use crate::operation::{Object, Status, Timestamp};
use crate::path::TreePath;

impl Model {
    /// The number of the last operation, by which the times that it set can be told.
    pub(crate) fn clock(&self) -> usize {
        usize::try_from(self.clock).unwrap_or_default()
    }

    /// The operation that set a time to the present; `None` if the time was given to it.
    pub(crate) fn operation_of(time: Timestamp) -> Option<usize> {
        usize::try_from(time.seconds - EPOCH_SECONDS).ok()
    }

    /// The file that `object` names.
    pub(crate) fn ino_of(&self, object: &Object) -> Option<u64> {
        self.resolve_object(object).ok().map(|ino| ino.0)
    }

    /// The attributes of `ino`.
    pub(crate) fn status_of(&self, ino: u64) -> Option<Status> {
        let ino = Ino(ino);
        self.inodes.get(&ino).map(|inode| inode.status(ino, self.links(ino)))
    }

    /// Every path there is, and what it leads to.
    pub(crate) fn names(&self) -> BTreeMap<TreePath, u64> {
        let ino = |path: &TreePath| self.resolve(path).map(|ino| ino.0).ok();
        self.paths().into_iter().filter_map(|path| ino(&path).map(|ino| (path, ino))).collect()
    }

    /// The content of regular file `ino`, as long as a name or an open file leads to it.
    pub(crate) fn content_of(&self, ino: u64) -> Option<&Content> {
        match &self.inodes.get(&Ino(ino))?.body {
            Body::File(content) => Some(content),
            _ => None,
        }
    }

    /// The target of symbolic link `ino`.
    pub(crate) fn target_of(&self, ino: u64) -> Option<&str> {
        match &self.inodes.get(&Ino(ino))?.body {
            Body::Symlink(target) => Some(target),
            _ => None,
        }
    }

    /// The extended attributes and the flags of `ino`.
    pub(crate) fn extras_of(&self, ino: u64) -> Option<(&BTreeMap<String, Vec<u8>>, u32)> {
        self.inodes.get(&Ino(ino)).map(|inode| (&inode.xattrs, inode.xflags))
    }
}
