//! Where inodes go that no name leads to: the directory `lost+found` of the root, as `#` and their number.

use lodefs_layout::inode::InodeSlot;
use rustix::io::Errno;
use zerocopy::little_endian::{U32, U64};

use super::Repair;
use crate::dir::leaf::Key;
use crate::dir::tree::Tree;
use crate::dir::{Entry, NodeCache};
use crate::error::{Error, Result};
use crate::inode::{SetTimes, table};
use crate::tx::Tx;
use crate::types::{Ino, Kind, NewInode, NewKind};

/// Names that are tried before giving up.
const NAMES_MAX: u32 = 1000;

impl Repair {
    /// Gives an inode a name in `lost+found`.
    pub(super) fn move_to_lost_found(&mut self, ino: Ino) -> Result<()> {
        let home = self.lost_found()?;
        let kind = Kind::from_mode(self.inode(ino)?.mode.get()).ok_or(Errno::STALE)?;
        let (name, found) = self.free_name(home, &format!("#{ino}"), |_| false)?;
        debug_assert!(found.is_none(), "only a free name is wanted");
        let nodes = NodeCache::default();
        let tree = Tree { volume: &self.fs.volume, nodes: &nodes, owner: home };
        let offset = table::slot_offset(&self.fs.volume, home)?;
        let old = self.inode(home)?;
        let mut slot = old;
        let now = self.fs.clock.fine();
        let mut tx = Tx::begin(&self.fs)?;
        tree.insert(&mut tx, &mut slot, self.key(name.as_bytes()), ino, kind)?;
        slot.set_mtime(now);
        slot.set_ctime(now);
        if kind == Kind::Directory {
            slot.links = U32::new(slot.links.get().saturating_add(1));
        }
        tx.put_inode(offset, home, &old, &mut slot);
        self.edit_inode_in(&mut tx, ino, |child| adopt(child, kind, home))?;
        tx.commit()
    }

    fn key<'n>(&self, name: &'n [u8]) -> Key<'n> {
        Key::new(&self.fs.volume, name)
    }

    /// The directory `lost+found`, made if there is none.
    fn lost_found(&mut self) -> Result<Ino> {
        if let Some(ino) = self.lost_found {
            return Ok(ino);
        }
        let is_directory = |entry: &Entry| entry.kind == Kind::Directory;
        let (name, found) = self.free_name(Ino::ROOT, "lost+found", is_directory)?;
        let ino = if let Some(entry) = found { entry.ino } else { self.make_lost_found(name.as_bytes())? };
        self.lost_found = Some(ino);
        Ok(ino)
    }

    fn make_lost_found(&self, name: &[u8]) -> Result<Ino> {
        // The engine refuses a directory with one link. It is counted again later.
        self.edit_inode(Ino::ROOT, |root| root.links = U32::new(root.links.get().max(2)))?;
        let new = NewInode { kind: NewKind::Directory, perm: 0o700, umask: 0, uid: 0, gid: 0 };
        let root = self.fs.root()?;
        Ok(self.fs.create(&root, name, &new)?.ino())
    }

    /// The name, with a number behind it if that is needed, that is free in a directory or leads to what is wanted.
    fn free_name(
        &self,
        directory: Ino,
        name: &str,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> Result<(String, Option<Entry>)> {
        let nodes = NodeCache::default();
        let volume = &self.fs.volume;
        let tree = Tree { volume, nodes: &nodes, owner: directory };
        let root = self.inode(directory)?.root.get();
        for number in 0..NAMES_MAX {
            let candidate = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
            match tree.find(volume, root, self.key(candidate.as_bytes()))? {
                None => return Ok((candidate, None)),
                Some(entry) if is_wanted(&entry) => return Ok((candidate, Some(entry))),
                Some(_) => {}
            }
        }
        Err(Error::Refused(Errno::EXIST))
    }
}

/// The inode has one name now. A directory must not seem to wait to be reclaimed if there is a crash before its links are
/// counted.
fn adopt(child: &mut InodeSlot, kind: Kind, home: Ino) {
    if kind == Kind::Directory {
        child.parent = U64::new(home.0);
        child.links = U32::new(child.links.get().max(2));
    } else {
        child.links = U32::new(1);
    }
}
