//! Making, opening and removing names.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{HostTarget, text};
use crate::model::SYMLINK_MAX;
use crate::operation::{Access, Creation, Kind, Node, Object, OpenHow, Outcome, RenameMode, Slot};
use crate::path::TreePath;
use crate::target::Reply;

impl HostTarget {
    pub(super) fn open(&mut self, slot: Slot, path: &TreePath, how: OpenHow) -> Reply {
        self.handles.remove(&slot);
        if let Ok(existing) = self.reference(path) {
            let kind = kind(FileType::from_raw_mode(fs::fstat(&existing)?.st_mode));
            match (kind, how.creation) {
                (Kind::File | Kind::Directory | Kind::Symlink, _) | (_, Creation::Exclusive(_)) => {}
                // Never opened: a device may do anything.
                _ => return Err(Errno::NXIO),
            }
        }
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags |= match how.access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::TRUNC, how.truncate);
        let mode = match how.creation {
            Creation::Never => 0,
            Creation::IfMissing(mode) | Creation::Exclusive(mode) => mode,
        };
        flags.set(OFlags::CREATE, how.creation != Creation::Never);
        flags.set(OFlags::EXCL, matches!(how.creation, Creation::Exclusive(_)));
        let mode = Mode::from_raw_mode(mode);
        let file = match path.split() {
            None => fs::openat(&self.root, ".", flags, mode)?,
            Some((parent, name)) => fs::openat(self.directory(&parent)?, name, flags, mode)?,
        };
        self.handles.insert(slot, file);
        Ok(Outcome::Done)
    }

    pub(super) fn tmpfile(&mut self, slot: Slot, directory: &TreePath, mode: u32) -> Reply {
        self.handles.remove(&slot);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = fs::openat(self.directory(directory)?, ".", flags, Mode::from_raw_mode(mode))?;
        self.handles.insert(slot, file);
        Ok(Outcome::Done)
    }

    pub(super) fn mknod(&self, path: &TreePath, mode: u32, node: Node) -> Reply {
        let (directory, name) = self.place(path)?;
        let (kind, device) = match node {
            Node::File => (FileType::RegularFile, 0),
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::CharDevice { major, minor } => (FileType::CharacterDevice, fs::makedev(major, minor)),
        };
        fs::mknodat(directory, name, kind, Mode::from_raw_mode(mode), device)?;
        Ok(Outcome::Done)
    }

    pub(super) fn mkdir(&self, path: &TreePath, mode: u32) -> Reply {
        let (directory, name) = self.place(path)?;
        fs::mkdirat(directory, name, Mode::from_raw_mode(mode))?;
        Ok(Outcome::Done)
    }

    pub(super) fn symlink(&self, path: &TreePath, target: &str) -> Reply {
        // The system call looks at the target first.
        match target.len() {
            0 => return Err(Errno::NOENT),
            size if size > SYMLINK_MAX => return Err(Errno::NAMETOOLONG),
            _ => {}
        }
        let (directory, name) = self.place(path)?;
        fs::symlinkat(target, directory, name)?;
        Ok(Outcome::Done)
    }

    pub(super) fn link(&self, source: &Object, path: &TreePath) -> Reply {
        let source = self.referent(source)?;
        let (directory, name) = self.place(path)?;
        fs::linkat(source, "", directory, name, AtFlags::EMPTY_PATH)?;
        Ok(Outcome::Done)
    }

    /// Removes a name, with the flag that says whether of a directory.
    pub(super) fn unlink(&self, path: &TreePath, flags: AtFlags) -> Reply {
        let (directory, name) = self.place(path)?;
        fs::unlinkat(directory, name, flags)?;
        Ok(Outcome::Done)
    }

    pub(super) fn rename(&self, from: &TreePath, to: &TreePath, mode: RenameMode) -> Reply {
        let (from_directory, from_name) = self.place(from)?;
        let (to_directory, to_name) = self.place(to)?;
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, mode.refuses_existing());
        flags.set(RenameFlags::EXCHANGE, mode == RenameMode::Exchange);
        flags.set(RenameFlags::WHITEOUT, mode.leaves_whiteout());
        fs::renameat_with(from_directory, from_name, to_directory, to_name, flags)?;
        Ok(Outcome::Done)
    }

    pub(super) fn readlink(&self, path: &TreePath) -> Reply {
        let target = match self.place(path) {
            Ok((directory, name)) => fs::readlinkat(directory, name, Vec::new())?,
            // The root is no link.
            Err(Errno::BUSY) => return Err(Errno::INVAL),
            Err(errno) => return Err(errno),
        };
        Ok(Outcome::Target(text(target.as_bytes())))
    }

    pub(super) fn readdir(&self, path: &TreePath) -> Reply {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(self.directory(path)?, ".", flags, Mode::empty())?;
        let mut entries = std::collections::BTreeMap::new();
        for entry in fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = text(entry.file_name().to_bytes());
            let twice = entries.contains_key(&name);
            if name != "." && name != ".." {
                // A name that is read twice must not go unnoticed.
                let name = if twice { format!("{name} (twice)") } else { name };
                entries.insert(name, kind(entry.file_type()));
            }
        }
        Ok(Outcome::Entries(entries))
    }
}

/// The kind that a type is.
pub(super) fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    }
}
