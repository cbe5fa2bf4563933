//! A directory of the machine's own file systems as a [`Target`], through system calls.
//!
//! Every path is walked one name at a time below the root's descriptor, without following symbolic links, so the
//! working directory does not matter and nothing outside can be reached. Calls that have no form for descriptors
//! opened with `O_PATH` go through `/proc/self/fd`.

mod attributes;
mod clear;
mod data;
mod names;
mod xflags;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::operation::{Object, Operation, Outcome, Slot};
use crate::path::TreePath;
use crate::target::{Reply, Target};

/// A real directory.
#[derive(Debug)]
pub struct HostTarget {
    root: OwnedFd,
    handles: BTreeMap<Slot, OwnedFd>,
}

impl HostTarget {
    /// Uses `directory`, which should be empty, and gives it the attributes that the model's root starts with.
    ///
    /// Sets the umask of the whole process to zero, as the model assumes.
    pub fn new(directory: &Path) -> rustix::io::Result<Self> {
        rustix::process::umask(Mode::empty());
        let root = fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        fs::fchown(&root, Some(Uid::ROOT), Some(Gid::ROOT))?;
        fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        Ok(Self { root, handles: BTreeMap::new() })
    }

    /// Closes everything and empties the directory, whatever flags forbid it.
    pub fn clear(&mut self) -> rustix::io::Result<()> {
        self.handles.clear();
        clear::clear(self.root.as_fd())
    }

    /// A directory, opened as a starting point only.
    fn directory(&self, path: &TreePath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = fs::openat(&self.root, ".", flags, Mode::empty())?;
        path.names().try_fold(root, |at, name| fs::openat(at, name, flags, Mode::empty()))
    }

    /// The directory that a path is in, and the name there.
    fn place<'a>(&self, path: &'a TreePath) -> Result<(OwnedFd, &'a str), Errno> {
        let (parent, name) = path.split().ok_or(Errno::BUSY)?;
        Ok((self.directory(&parent)?, name))
    }

    /// Anything, opened only to be named by the descriptor.
    fn reference(&self, path: &TreePath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.place(path) {
            Ok((directory, name)) => fs::openat(directory, name, flags, Mode::empty()),
            Err(Errno::BUSY) => self.directory(path),
            Err(errno) => Err(errno),
        }
    }

    fn handle(&self, slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
        self.handles.get(&slot).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// A file named either way.
    fn referent(&self, object: &Object) -> Result<Referent<'_>, Errno> {
        Ok(match object {
            Object::Path(path) => Referent::Path(self.reference(path)?),
            Object::Open(slot) => Referent::Open(self.handle(*slot)?),
        })
    }

    fn dispatch(&mut self, operation: &Operation) -> Reply {
        use Operation as Op;
        match operation {
            Op::Open { slot, path, how } => self.open(*slot, path, *how),
            Op::Tmpfile { slot, directory, mode } => self.tmpfile(*slot, directory, *mode),
            Op::Close { slot } => self.handles.remove(slot).map(|_| Outcome::Done).ok_or(Errno::BADF),
            Op::Mknod { path, mode, node } => self.mknod(path, *mode, *node),
            Op::Mkdir { path, mode } => self.mkdir(path, *mode),
            Op::Symlink { path, target } => self.symlink(path, target),
            Op::Link { source, path } => self.link(source, path),
            Op::Unlink { path } => self.unlink(path, fs::AtFlags::empty()),
            Op::Rmdir { path } => self.unlink(path, fs::AtFlags::REMOVEDIR),
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
            Op::Fsync { slot } => fs::fsync(self.handle(*slot)?).map(|()| Outcome::Done),
            Op::Syncfs => fs::syncfs(&self.root).map(|()| Outcome::Done),
            Op::Statfs => self.statfs(),
        }
    }
}

impl Target for HostTarget {
    fn apply(&mut self, operation: &Operation) -> Reply {
        self.dispatch(operation)
    }
}

/// A descriptor that stands for a file.
enum Referent<'a> {
    /// Opened with `O_PATH`.
    Path(OwnedFd),
    /// Really open.
    Open(BorrowedFd<'a>),
}

impl AsFd for Referent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Path(fd) => fd.as_fd(),
            Self::Open(fd) => *fd,
        }
    }
}

/// A path that leads to what a descriptor stands for, which may be a symbolic link.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Names are only ever made by the tests; something else on the disk is shown as well as it can be.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
