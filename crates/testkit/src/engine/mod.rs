//! The engine as a [`Target`]: an open volume, without a kernel in between.
//!
//! What the kernel would do before it asks a file system is done here, in its order: paths are walked one name at a
//! time, open files have an access mode, and arguments that make no sense are refused. Everything else is the
//! engine's answer.

mod attributes;
mod check;
mod data;
mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use lodefs_core::{Attr, Error, Fs, Kind as InodeKind, Node as Inode};
use rustix::io::Errno;

pub(crate) use self::attributes::status;
pub use self::check::{EngineCheck, EngineStatistics};
use crate::operation::{Access, Kind, Object, Operation, Outcome, Slot};
use crate::path::TreePath;
use crate::target::{Reply, Target};

/// An open file.
#[derive(Debug)]
struct Handle {
    inode: Inode,
    access: Access,
    append: bool,
    /// Made by `O_TMPFILE` and never named: it may get a first name.
    nameless: bool,
}

/// An open volume.
pub struct EngineTarget {
    fs: Arc<Fs>,
    handles: BTreeMap<Slot, Handle>,
    /// The first answer that was no refusal but something gone wrong.
    fault: Option<String>,
}

impl EngineTarget {
    /// Drives the volume `fs`.
    pub fn new(fs: Arc<Fs>) -> Self {
        Self { fs, handles: BTreeMap::new(), fault: None }
    }

    /// The volume.
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    /// The first error that was no refusal but something gone wrong, in words. As errnos these look like any other.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Closes everything that is open, then the volume.
    pub fn close(self) -> lodefs_core::Result<()> {
        let Self { fs, handles, .. } = self;
        drop(handles);
        fs.close()
    }

    /// The open files that have no name.
    fn unlinked(&self) -> lodefs_core::Result<Vec<Slot>> {
        let mut slots = Vec::new();
        for (slot, handle) in &self.handles {
            if self.attr(&handle.inode)?.links == 0 {
                slots.push(*slot);
            }
        }
        Ok(slots)
    }

    /// Closes the volume cleanly and goes on with what `reopen` opens. Files that have a name stay open.
    ///
    /// # Errors
    /// Of closing and of opening; and if an open file cannot be found again.
    pub fn reopen<E: From<Error>>(self, reopen: impl FnOnce() -> Result<Arc<Fs>, E>) -> Result<Self, E> {
        let Self { fs, handles, fault } = self;
        let mut open = Vec::new();
        for (slot, Handle { inode, access, append, nameless }) in handles {
            open.push((slot, inode.ino(), fs.attr(&inode)?.generation, access, append, nameless));
        }
        fs.close()?;
        drop(fs);
        let fs = reopen()?;
        let mut handles = BTreeMap::new();
        for (slot, ino, generation, access, append, nameless) in open {
            let inode = fs.node_by_handle(ino, Some(generation))?;
            handles.insert(slot, Handle { inode, access, append, nameless });
        }
        Ok(Self { fs, handles, fault })
    }

    fn resolve(&self, path: &TreePath) -> lodefs_core::Result<Inode> {
        path.names().try_fold(self.fs.root()?, |directory, name| self.fs.lookup(&directory, name.as_bytes()))
    }

    /// The directory that `path` is in, and its name there. The root has no such place: EBUSY.
    fn place<'p>(&self, path: &'p TreePath) -> lodefs_core::Result<(Inode, &'p str)> {
        let (parent, name) = path.split().ok_or(Errno::BUSY)?;
        let directory = self.resolve(&parent)?;
        if directory.kind() != InodeKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok((directory, name))
    }

    /// The entry `name` of a directory, if there is one.
    fn lookup(&self, directory: &Inode, name: &str) -> lodefs_core::Result<Option<Inode>> {
        match self.fs.lookup(directory, name.as_bytes()) {
            Ok(inode) => Ok(Some(inode)),
            Err(Error::Refused(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn handle(&self, slot: Slot) -> Result<&Handle, Errno> {
        self.handles.get(&slot).ok_or(Errno::BADF)
    }

    fn inode(&self, object: &Object) -> lodefs_core::Result<Inode> {
        match object {
            Object::Path(path) => self.resolve(path),
            Object::Open(slot) => Ok(self.handle(*slot)?.inode.clone()),
        }
    }

    fn attr(&self, inode: &Inode) -> lodefs_core::Result<Attr> {
        self.fs.attr(inode)
    }

    fn dispatch(&mut self, operation: &Operation) -> lodefs_core::Result<Outcome> {
        use Operation as Op;
        match operation {
            Op::Open { slot, path, how } => self.open(*slot, path, *how),
            Op::Tmpfile { slot, directory, mode } => self.tmpfile(*slot, directory, *mode),
            Op::Close { slot } => self.handles.remove(slot).map(|_| Outcome::Done).ok_or(Errno::BADF.into()),
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
            Op::Fsync { slot } => self.fs.fsync(&self.handle(*slot)?.inode, false).map(|()| Outcome::Done),
            Op::Syncfs => self.fs.sync().map(|()| Outcome::Done),
            Op::Statfs => Ok(self.statfs()),
        }
    }
}

impl Target for EngineTarget {
    fn apply(&mut self, operation: &Operation) -> Reply {
        self.dispatch(operation).map_err(|error| {
            if !matches!(error, Error::Refused(_)) && self.fault.is_none() {
                self.fault = Some(error.to_string());
            }
            error.errno()
        })
    }
}

/// The kind, in the words of the tests.
fn kind(kind: InodeKind) -> Kind {
    match kind {
        InodeKind::File => Kind::File,
        InodeKind::Directory => Kind::Directory,
        InodeKind::Symlink => Kind::Symlink,
        InodeKind::Fifo => Kind::Fifo,
        InodeKind::Socket => Kind::Socket,
        InodeKind::CharDevice => Kind::CharDevice,
        InodeKind::BlockDevice => Kind::BlockDevice,
    }
}

/// Names and targets are only ever made by the tests; something else on the volume is shown as well as it can be.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
