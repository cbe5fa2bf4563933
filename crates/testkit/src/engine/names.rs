//! Making, opening and removing names.

use std::collections::BTreeMap;

use lodefs_core::{Flags, Kind as InodeKind, NewInode, NewKind, Node as Inode, OpenIntent, Result, SetAttr};
use rustix::io::Errno;

use super::attributes::encode_device;
use super::{EngineTarget, Handle, kind, text};
use crate::model::SYMLINK_MAX;
use crate::operation::{Access, Creation, Node, Object, OpenHow, Outcome, RenameMode, Slot};
use crate::path::TreePath;

/// Set-id bits are not for mkdir to give.
const MKDIR_MODE: u32 = 0o1777;

/// Owner and group of whatever is made.
const ROOT: (u32, u32) = (0, 0);

fn new_inode(kind: NewKind<'_>, perm: u32) -> NewInode<'_> {
    NewInode { kind, perm, umask: 0, uid: ROOT.0, gid: ROOT.1 }
}

impl EngineTarget {
    pub(super) fn open(&mut self, slot: Slot, path: &TreePath, how: OpenHow) -> Result<Outcome> {
        self.handles.remove(&slot);
        let existing = match path.split() {
            None => Some(self.fs.root()?),
            Some((_, name)) => self.lookup(&self.place(path)?.0, name)?,
        };
        let inode = match (existing, how.creation) {
            (None, Creation::Never) => return Err(Errno::NOENT.into()),
            (None, Creation::IfMissing(mode) | Creation::Exclusive(mode)) => {
                self.make(path, NewKind::File, mode)?
            }
            (Some(_), Creation::Exclusive(_)) => return Err(Errno::EXIST.into()),
            (Some(inode), _) => {
                self.open_existing(&inode, how)?;
                inode
            }
        };
        let handle = Handle { inode, access: how.access, append: how.append, nameless: false };
        self.handles.insert(slot, handle);
        Ok(Outcome::Done)
    }

    fn open_existing(&self, inode: &Inode, how: OpenHow) -> Result<()> {
        match inode.kind() {
            InodeKind::Directory if how.creation != Creation::Never => return Err(Errno::ISDIR.into()),
            InodeKind::File | InodeKind::Directory => {}
            InodeKind::Symlink => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::NXIO.into()),
        }
        let write = how.access.writes();
        let intent = OpenIntent { write, append: write && how.append, truncate: how.truncate };
        self.fs.check_open(inode, intent)?;
        if how.truncate {
            self.fs
                .set_attr(inode, &SetAttr { size: Some(0), by_handle: true, ..SetAttr::default() })
                .map(|_| ())?;
        }
        Ok(())
    }

    fn make(&self, path: &TreePath, kind: NewKind<'_>, mode: u32) -> Result<Inode> {
        let (directory, name) = self.place(path)?;
        self.fs.create(&directory, name.as_bytes(), &new_inode(kind, mode))
    }

    pub(super) fn tmpfile(&mut self, slot: Slot, directory: &TreePath, mode: u32) -> Result<Outcome> {
        self.handles.remove(&slot);
        let inode = self.fs.tmpfile(&self.resolve(directory)?, &new_inode(NewKind::File, mode))?;
        let handle = Handle { inode, access: Access::ReadWrite, append: false, nameless: true };
        self.handles.insert(slot, handle);
        Ok(Outcome::Done)
    }

    pub(super) fn mknod(&self, path: &TreePath, mode: u32, node: Node) -> Result<Outcome> {
        let kind = match node {
            Node::File => NewKind::File,
            Node::Fifo => NewKind::Fifo,
            Node::Socket => NewKind::Socket,
            Node::CharDevice { major, minor } => NewKind::CharDevice(encode_device(major, minor)),
        };
        self.make(path, kind, mode).map(|_| Outcome::Done)
    }

    pub(super) fn mkdir(&self, path: &TreePath, mode: u32) -> Result<Outcome> {
        self.make(path, NewKind::Directory, mode & MKDIR_MODE).map(|_| Outcome::Done)
    }

    pub(super) fn symlink(&self, path: &TreePath, target: &str) -> Result<Outcome> {
        match target.len() {
            0 => Err(Errno::NOENT.into()),
            size if size > SYMLINK_MAX => Err(Errno::NAMETOOLONG.into()),
            _ => self.make(path, NewKind::Symlink(target.as_bytes()), 0o777).map(|_| Outcome::Done),
        }
    }

    pub(super) fn link(&mut self, source: &Object, path: &TreePath) -> Result<Outcome> {
        let inode = self.inode(source)?;
        let (directory, name) = self.place(path)?;
        if self.lookup(&directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        let attr = self.attr(&inode)?;
        let nameless = self.handles.values().any(|it| it.nameless && it.inode.ino() == inode.ino());
        if attr.links == 0 && !nameless {
            let forbidden = inode.kind() == InodeKind::Directory
                || attr.flags.intersects(Flags::IMMUTABLE | Flags::APPEND)
                || self.attr(&directory)?.flags.contains(Flags::IMMUTABLE);
            return Err(if forbidden { Errno::PERM } else { Errno::NOENT }.into());
        }
        self.fs.link(&inode, &directory, name.as_bytes())?;
        for handle in self.handles.values_mut().filter(|it| it.inode.ino() == inode.ino()) {
            handle.nameless = false;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn unlink(&self, path: &TreePath) -> Result<Outcome> {
        let (directory, name) = self.place(path)?;
        self.fs.unlink(&directory, name.as_bytes()).map(|()| Outcome::Done)
    }

    pub(super) fn rmdir(&self, path: &TreePath) -> Result<Outcome> {
        let (directory, name) = self.place(path)?;
        self.fs.rmdir(&directory, name.as_bytes()).map(|()| Outcome::Done)
    }

    pub(super) fn rename(&self, from: &TreePath, to: &TreePath, mode: RenameMode) -> Result<Outcome> {
        let (from_directory, from_name) = self.place(from)?;
        let (to_directory, to_name) = self.place(to)?;
        self.lookup(&from_directory, from_name)?.ok_or(Errno::NOENT)?;
        let target = self.lookup(&to_directory, to_name)?;
        if mode.refuses_existing() && target.is_some() {
            return Err(Errno::EXIST.into());
        }
        let exchange = mode == RenameMode::Exchange;
        if exchange && target.is_none() {
            return Err(Errno::NOENT.into());
        }
        // The kernel walks up from both directories before it looks at anything else.
        if is_above(from, to) {
            return Err(Errno::INVAL.into());
        }
        if is_above(to, from) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY }.into());
        }
        let mode = match mode {
            RenameMode::Replace => lodefs_core::RenameMode::Replace,
            RenameMode::NoReplace => lodefs_core::RenameMode::NoReplace,
            RenameMode::Exchange => lodefs_core::RenameMode::Exchange,
            RenameMode::Whiteout => lodefs_core::RenameMode::Whiteout,
            RenameMode::NoReplaceWhiteout => lodefs_core::RenameMode::NoReplaceWhiteout,
        };
        let (from_name, to_name) = (from_name.as_bytes(), to_name.as_bytes());
        self.fs.rename(&from_directory, from_name, &to_directory, to_name, mode, ROOT)?;
        Ok(Outcome::Done)
    }

    pub(super) fn readlink(&self, path: &TreePath) -> Result<Outcome> {
        Ok(Outcome::Target(text(&self.fs.read_link(&self.resolve(path)?)?)))
    }

    pub(super) fn readdir(&self, path: &TreePath) -> Result<Outcome> {
        let mut entries = BTreeMap::new();
        self.fs.read_dir(&self.resolve(path)?, 0, &mut |entry| {
            let name = text(&entry.name);
            if name != "." && name != ".." {
                // A name that is read twice must not go unnoticed.
                let name = if entries.contains_key(&name) { format!("{name} (twice)") } else { name };
                entries.insert(name, kind(entry.kind));
            }
            true
        })?;
        Ok(Outcome::Entries(entries))
    }
}

/// Whether `below` leads through `above`. As no path has links or dots in it, the text tells.
fn is_above(above: &TreePath, below: &TreePath) -> bool {
    below.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
}
