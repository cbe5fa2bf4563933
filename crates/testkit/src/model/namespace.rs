//! Names: making, linking, renaming and removing them.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::content::Content;
use super::inode::{Body, Ino, Inode};
use super::{Handle, Model};
use crate::operation::{Access, Node, Object, Outcome, RenameMode, Slot, xflag};
use crate::path::TreePath;
use crate::target::Reply;

const S_ISGID: u32 = 0o2000;
/// Set-id bits are not for mkdir to give.
const MKDIR_MODE: u32 = 0o1777;
/// Longest target of a symbolic link.
pub(crate) const SYMLINK_MAX: usize = 4095;
/// Flags that new files and directories take over from the directory they are made in.
const INHERITED: u32 = xflag::DAX | xflag::NOATIME | xflag::NODUMP;

impl Model {
    /// Adds an inode that no entry leads to yet, as a child of directory `parent` (of none: the root itself).
    pub(super) fn add_inode(&mut self, body: Body, mode: u32, parent: Option<Ino>) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        let is_directory = matches!(body, Body::Directory { .. });
        let has_flags = is_directory || matches!(body, Body::File(_));
        let (mut mode, mut gid, mut xflags) = (mode, 0, 0);
        if let Some(parent) = parent.map(|parent| self.inode(parent)) {
            if parent.mode & S_ISGID != 0 {
                gid = parent.gid;
                mode |= if is_directory { S_ISGID } else { 0 };
            }
            xflags = if has_flags { parent.xflags & INHERITED } else { 0 };
        }
        let now = self.now();
        let inode = Inode {
            body,
            mode,
            uid: 0,
            gid,
            links: u32::from(parent.is_none()),
            nameless: false,
            xflags,
            xattrs: BTreeMap::new(),
            mtime: now,
            ctime: now,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// Points the entry `name` at `ino`, and lets go of what it pointed at.
    fn set_entry(&mut self, directory: Ino, name: &str, ino: Option<Ino>) {
        let Body::Directory { entries, .. } = &mut self.inode_mut(directory).body else {
            unreachable!("callers have resolved a directory");
        };
        let old = match ino {
            Some(ino) => entries.insert(name.to_owned(), ino),
            None => entries.remove(name),
        };
        self.touch_content(directory);
        if let Some(ino) = ino {
            let inode = self.inode_mut(ino);
            inode.links += 1;
            inode.nameless = false;
            if let Body::Directory { parent, .. } = &mut inode.body {
                *parent = directory;
            }
            self.touch_inode(ino);
        }
        if let Some(old) = old {
            self.inode_mut(old).links -= 1;
            self.touch_inode(old);
            self.reclaim(old);
        }
    }

    /// Whether an entry may be added to a directory.
    fn may_create(&self, directory: Ino) -> Result<(), Errno> {
        if self.inode(directory).has(xflag::IMMUTABLE) { Err(Errno::PERM) } else { Ok(()) }
    }

    /// Whether the entry that leads to `victim` may be taken from a directory, by a call for directories or for
    /// everything else.
    fn may_remove(&self, directory: Ino, victim: Ino, for_directories: bool) -> Result<(), Errno> {
        let inode = self.inode(victim);
        if self.inode(directory).is_fixed() || inode.is_fixed() {
            return Err(Errno::PERM);
        }
        match (for_directories, inode.is_directory()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    fn make(&mut self, path: &TreePath, body: Body, mode: u32) -> Result<Ino, Errno> {
        let (directory, name) = self.resolve_parent(path)?;
        if self.lookup(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.may_create(directory)?;
        let ino = self.add_inode(body, mode, Some(directory));
        self.set_entry(directory, name, Some(ino));
        Ok(ino)
    }

    /// Makes an empty regular file.
    pub(super) fn create(&mut self, path: &TreePath, mode: u32) -> Result<Ino, Errno> {
        self.make(path, Body::File(Content::default()), mode)
    }

    pub(super) fn mknod(&mut self, path: &TreePath, mode: u32, node: Node) -> Reply {
        let body = match node {
            Node::File => Body::File(Content::default()),
            Node::Fifo => Body::Fifo,
            Node::Socket => Body::Socket,
            Node::CharDevice { major, minor } => Body::CharDevice { major, minor },
        };
        self.make(path, body, mode).map(|_| Outcome::Done)
    }

    pub(super) fn mkdir(&mut self, path: &TreePath, mode: u32) -> Reply {
        let body = Body::Directory { entries: BTreeMap::new(), parent: Ino::ROOT };
        self.make(path, body, mode & MKDIR_MODE).map(|_| Outcome::Done)
    }

    pub(super) fn symlink(&mut self, path: &TreePath, target: &str) -> Reply {
        match target.len() {
            0 => Err(Errno::NOENT),
            size if size > SYMLINK_MAX => Err(Errno::NAMETOOLONG),
            _ => self.make(path, Body::Symlink(target.to_owned()), 0o777).map(|_| Outcome::Done),
        }
    }

    pub(super) fn tmpfile(&mut self, slot: Slot, directory: &TreePath, mode: u32) -> Reply {
        self.close(slot).ok();
        let directory = self.resolve(directory)?;
        self.entries(directory)?;
        self.may_create(directory)?;
        let ino = self.add_inode(Body::File(Content::default()), mode, Some(directory));
        self.inode_mut(ino).nameless = true;
        self.handles.insert(slot, Handle { ino, access: Access::ReadWrite, append: false });
        Ok(Outcome::Done)
    }

    pub(super) fn link(&mut self, source: &Object, path: &TreePath) -> Reply {
        let ino = self.resolve_object(source)?;
        let (directory, name) = self.resolve_parent(path)?;
        if self.lookup(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.may_create(directory)?;
        let inode = self.inode(ino);
        if inode.is_fixed() || inode.is_directory() {
            return Err(Errno::PERM);
        }
        if inode.links == 0 && !inode.nameless {
            return Err(Errno::NOENT);
        }
        self.set_entry(directory, name, Some(ino));
        Ok(Outcome::Done)
    }

    pub(super) fn unlink(&mut self, path: &TreePath) -> Reply {
        let (directory, name) = self.resolve_parent(path)?;
        let ino = self.lookup(directory, name)?.ok_or(Errno::NOENT)?;
        self.may_remove(directory, ino, false)?;
        self.set_entry(directory, name, None);
        Ok(Outcome::Done)
    }

    pub(super) fn rmdir(&mut self, path: &TreePath) -> Reply {
        let (directory, name) = self.resolve_parent(path)?;
        let ino = self.lookup(directory, name)?.ok_or(Errno::NOENT)?;
        self.may_remove(directory, ino, true)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.set_entry(directory, name, None);
        Ok(Outcome::Done)
    }

    /// Whether `ino` is `directory` or contains it.
    fn contains(&self, ino: Ino, directory: Ino) -> bool {
        let mut at = directory;
        loop {
            if at == ino {
                return true;
            }
            match self.inode(at).body {
                Body::Directory { parent, .. } if at != Ino::ROOT => at = parent,
                _ => return false,
            }
        }
    }

    pub(super) fn rename(&mut self, from: &TreePath, to: &TreePath, mode: RenameMode) -> Reply {
        let exchange = mode == RenameMode::Exchange;
        let (from_directory, from_name) = self.resolve_parent(from)?;
        let (to_directory, to_name) = self.resolve_parent(to)?;
        let source = self.lookup(from_directory, from_name)?.ok_or(Errno::NOENT)?;
        let target = self.lookup(to_directory, to_name)?;
        if mode.refuses_existing() && target.is_some() {
            return Err(Errno::EXIST);
        }
        if exchange && target.is_none() {
            return Err(Errno::NOENT);
        }
        if self.contains(source, to_directory) {
            return Err(Errno::INVAL);
        }
        if target.is_some_and(|target| self.contains(target, from_directory)) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if target == Some(source) {
            return Ok(Outcome::Done);
        }
        let source_is_directory = self.inode(source).is_directory();
        self.may_remove(from_directory, source, source_is_directory)?;
        match target {
            None => self.may_create(to_directory)?,
            Some(target) if exchange => {
                self.may_remove(to_directory, target, self.inode(target).is_directory())?;
            }
            Some(target) => {
                self.may_remove(to_directory, target, source_is_directory)?;
                if self.entries(target).is_ok_and(|entries| !entries.is_empty()) {
                    return Err(Errno::NOTEMPTY);
                }
            }
        }
        // One link more keeps both alive while they change places.
        let moved = [Some(source), target];
        for ino in moved.into_iter().flatten() {
            self.inode_mut(ino).links += 1;
        }
        let left_behind =
            if exchange { target } else { mode.leaves_whiteout().then(|| self.add_whiteout(from_directory)) };
        self.set_entry(from_directory, from_name, left_behind);
        self.set_entry(to_directory, to_name, Some(source));
        for ino in moved.into_iter().flatten() {
            self.inode_mut(ino).links -= 1;
            self.reclaim(ino);
        }
        Ok(Outcome::Done)
    }

    fn add_whiteout(&mut self, directory: Ino) -> Ino {
        self.add_inode(Body::CharDevice { major: 0, minor: 0 }, 0, Some(directory))
    }

    pub(super) fn readlink(&self, path: &TreePath) -> Reply {
        match &self.inode(self.resolve(path)?).body {
            Body::Symlink(target) => Ok(Outcome::Target(target.clone())),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn readdir(&self, path: &TreePath) -> Reply {
        let entries = self.entries(self.resolve(path)?)?;
        let kinds = entries.iter().map(|(name, ino)| (name.clone(), self.inode(*ino).kind()));
        Ok(Outcome::Entries(kinds.collect()))
    }
}
