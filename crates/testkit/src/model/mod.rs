//! The reference model: what a file system must answer, written to be obviously right rather than fast.
//!
//! The semantics are those of XFS under Linux for a privileged caller, down to which of several errors is given:
//! the order of the checks in each function *is* the specification. The model never runs out of space, except
//! for allocations that no volume could satisfy. [`Model::judge`] says whether the answer of a real file
//! system is as good as the model's where more than one answer is right.
//!
//! Invariants: every entry leads to an inode that exists; an inode without links exists as long as it is open;
//! times come from a clock that moves with every operation, so any update of a time is visible.

mod attributes;
pub(crate) mod content;
mod files;
mod inode;
mod judge;
mod look;
mod namespace;

use std::collections::BTreeMap;

use rustix::io::Errno;

use self::inode::{Body, Ino, Inode};
pub use self::judge::Leniency;
pub(crate) use self::namespace::SYMLINK_MAX;
use crate::operation::{Access, Object, Operation, Outcome, Slot, Status, Timestamp};
use crate::path::{NAME_MAX, TreePath};
use crate::target::{Reply, Target};

/// Largest size of a file, in bytes.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The last pages that a file can have begin here.
pub(crate) const LAST_PAGES: u64 = (1 << 63) - 8192;

/// Allocations of more than this are refused with ENOSPC: no volume of a test is as large.
pub const ALLOCATION_MAX: u64 = 1 << 44;

/// Where the model's clock starts: later than no time that a test sets by accident, and far from the present.
pub(crate) const EPOCH_SECONDS: i64 = 1 << 32;

/// An open file.
#[derive(Clone, Copy, Debug)]
struct Handle {
    ino: Ino,
    access: Access,
    append: bool,
}

/// The model of a file system.
#[derive(Clone, Debug)]
pub struct Model {
    inodes: BTreeMap<Ino, Inode>,
    handles: BTreeMap<Slot, Handle>,
    next_ino: u64,
    clock: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty file system: the root is owned by user and group 0 and has mode 0755.
    pub fn new() -> Self {
        let mut model =
            Self { inodes: BTreeMap::new(), handles: BTreeMap::new(), next_ino: Ino::ROOT.0, clock: 0 };
        let body = Body::Directory { entries: BTreeMap::new(), parent: Ino::ROOT };
        model.add_inode(body, 0o755, None);
        model
    }

    /// The open slots, in ascending order.
    pub fn open_slots(&self) -> impl Iterator<Item = Slot> {
        self.handles.keys().copied()
    }

    /// The attributes of a file, if there is such a file.
    pub fn status(&self, object: &Object) -> Option<Status> {
        let ino = self.resolve_object(object).ok()?;
        Some(self.inode(ino).status(ino, self.links(ino)))
    }

    /// Every path there is, in no particular order; the root comes first.
    pub fn paths(&self) -> Vec<TreePath> {
        let mut found = vec![(TreePath::ROOT, Ino::ROOT)];
        let mut next = 0;
        while let Some((path, ino)) = found.get(next).cloned() {
            if let Body::Directory { entries, .. } = &self.inode(ino).body {
                found.extend(entries.iter().map(|(name, child)| (path.join(name), *child)));
            }
            next += 1;
        }
        found.into_iter().map(|(path, _)| path).collect()
    }

    fn now(&self) -> Timestamp {
        Timestamp { seconds: EPOCH_SECONDS + self.clock, nanoseconds: 0 }
    }

    fn inode(&self, ino: Ino) -> &Inode {
        &self.inodes[&ino]
    }

    fn inode_mut(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("every inode that is referred to exists")
    }

    /// Notes a change of content.
    fn touch_content(&mut self, ino: Ino) {
        let now = self.now();
        let inode = self.inode_mut(ino);
        (inode.mtime, inode.ctime) = (now, now);
    }

    /// Notes a change of the inode.
    fn touch_inode(&mut self, ino: Ino) {
        let now = self.now();
        self.inode_mut(ino).ctime = now;
    }

    fn entries(&self, ino: Ino) -> Result<&BTreeMap<String, Ino>, Errno> {
        match &self.inode(ino).body {
            Body::Directory { entries, .. } => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The entry `name` of a directory, if there is one.
    fn lookup(&self, directory: Ino, name: &str) -> Result<Option<Ino>, Errno> {
        let entries = self.entries(directory)?;
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(entries.get(name).copied())
    }

    fn resolve(&self, path: &TreePath) -> Result<Ino, Errno> {
        path.names().try_fold(Ino::ROOT, |directory, name| self.lookup(directory, name)?.ok_or(Errno::NOENT))
    }

    /// The directory that `path` is in, and its name there. The root has no such place: EBUSY.
    fn resolve_parent<'a>(&self, path: &'a TreePath) -> Result<(Ino, &'a str), Errno> {
        let (parent, name) = path.split().ok_or(Errno::BUSY)?;
        let directory = self.resolve(&parent)?;
        self.entries(directory)?;
        Ok((directory, name))
    }

    fn handle(&self, slot: Slot) -> Result<Handle, Errno> {
        self.handles.get(&slot).copied().ok_or(Errno::BADF)
    }

    fn resolve_object(&self, object: &Object) -> Result<Ino, Errno> {
        match object {
            Object::Path(path) => self.resolve(path),
            Object::Open(slot) => Ok(self.handle(*slot)?.ino),
        }
    }

    /// The number of links that stat shows.
    fn links(&self, ino: Ino) -> u32 {
        let inode = self.inode(ino);
        match &inode.body {
            Body::Directory { .. } if inode.links == 0 => 0,
            Body::Directory { entries, .. } => {
                2 + entries.values().filter(|child| self.inode(**child).is_directory()).count() as u32
            }
            _ => inode.links,
        }
    }

    /// Forgets an inode that nothing leads to any more.
    fn reclaim(&mut self, ino: Ino) {
        let open = self.handles.values().any(|handle| handle.ino == ino);
        if self.inode(ino).links == 0 && !open {
            self.inodes.remove(&ino);
        }
    }

    fn dispatch(&mut self, operation: &Operation) -> Reply {
        use Operation as Op;
        match operation {
            Op::Open { slot, path, how } => self.open(*slot, path, *how),
            Op::Tmpfile { slot, directory, mode } => self.tmpfile(*slot, directory, *mode),
            Op::Close { slot } => self.close(*slot),
            Op::Mknod { path, mode, node } => self.mknod(path, *mode, *node),
            Op::Mkdir { path, mode } => self.mkdir(path, *mode),
            Op::Symlink { path, target } => self.symlink(path, target),
            Op::Link { source, path } => self.link(source, path),
            Op::Unlink { path } => self.unlink(path),
            Op::Rmdir { path } => self.rmdir(path),
            Op::Rename { from, to, mode } => self.rename(from, to, *mode),
            Op::Read { slot, offset, size } => self.read(*slot, *offset, *size),
            Op::Write { slot, offset, data } => self.write(*slot, *offset, *data),
            Op::Truncate { object, size } => self.truncate(object, *size),
            Op::Fallocate { slot, mode, offset, size } => self.fallocate(*slot, *mode, *offset, *size),
            Op::Seek { slot, offset, whence } => self.seek(*slot, *offset, *whence),
            Op::CopyRange { from, from_offset, to, to_offset, size } => {
                self.copy_range((*from, *from_offset), (*to, *to_offset), *size)
            }
            Op::SetXattr { object, name, value, mode } => self.set_xattr(object, name, *value, *mode),
            Op::GetXattr { object, name } => self.get_xattr(object, name),
            Op::ListXattr { object } => self.list_xattr(object),
            Op::RemoveXattr { object, name } => self.remove_xattr(object, name),
            Op::Chmod { object, mode } => self.chmod(object, *mode),
            Op::Chown { object, uid, gid } => self.chown(object, *uid, *gid),
            Op::Utimens { object, atime, mtime } => self.utimens(object, *atime, *mtime),
            Op::Readlink { path } => self.readlink(path),
            Op::Stat { object } => self.stat(object),
            Op::Readdir { path } => self.readdir(path),
            Op::GetXflags { object } => self.get_xflags(object),
            Op::SetXflags { object, xflags } => self.set_xflags(object, *xflags),
            Op::Fsync { slot } => self.handle(*slot).map(|_| Outcome::Done),
            Op::Syncfs => Ok(Outcome::Done),
            Op::Statfs => Ok(Outcome::Usage(judge::ENDLESS)),
        }
    }
}

impl Target for Model {
    fn apply(&mut self, operation: &Operation) -> Reply {
        self.clock += 1;
        self.dispatch(operation)
    }
}
