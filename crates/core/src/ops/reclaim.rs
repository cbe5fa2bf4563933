//! Giving back what an inode without links occupies.

use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};
use zerocopy::FromZeros;
use zerocopy::little_endian::U64;

use super::locked::LockedInode;
use super::xattr;
use crate::blob;
use crate::dir::tree::Tree;
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::{Inode, InodeState, table};
use crate::tx::Tx;
use crate::types::{Ino, Kind};
use crate::volume::Run;

impl Fs {
    /// Reclaims an inode that has no links and to which nothing refers any more.
    pub(crate) fn reclaim(&self, inode: &Inode) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(self, inode)?;
        self.put_free(&mut tx, &mut locked)?;
        tx.commit()?;
        self.finish_reclaim(&mut locked);
        Ok(())
    }

    /// Reclaims an inode that a crash left without links.
    pub(crate) fn reclaim_orphan(&self, ino: Ino) -> Result<()> {
        let (slot_offset, slot) = table::read_slot(&self.volume, ino)?;
        self.reclaim(&Inode::new(ino, slot_offset, InodeState::new(slot), 0))
    }

    /// Puts into the transaction that the inode and all it occupies become free.
    pub(super) fn put_free(&self, tx: &mut Tx<'_>, locked: &mut LockedInode<'_>) -> Result<()> {
        let ino = locked.inode.ino;
        let slot = locked.state.slot;
        self.table.expect_back(&self.volume, ino)?;
        if let Some(run) = xattr::run_of(&slot) {
            tx.free_data(run);
        }
        match locked.kind() {
            Kind::File => {
                let map = locked.state.extents(&self.volume, ino)?;
                for extent in map.iter() {
                    tx.free_data(extent.run());
                }
                for block in &map.chain {
                    tx.free_metadata(Run { start: *block, blocks: 1 });
                }
            }
            Kind::Directory => {
                let tree = Tree { volume: &self.volume, nodes: &locked.state.nodes, owner: ino };
                tree.visit_blocks(slot.root.get(), &mut |block| {
                    tx.free_metadata(Run { start: block, blocks: 1 });
                    Ok(())
                })?;
            }
            Kind::Symlink if slot.size.get() as usize > INLINE_SIZE => {
                tx.free_data(blob::run(slot.root.get(), slot.size.get() as usize));
            }
            _ => {}
        }
        let mut free = InodeSlot::new_zeroed();
        free.ino = U64::new(ino.0);
        free.generation = slot.generation;
        locked.slot = free;
        locked.put(tx);
        Ok(())
    }

    /// The transaction of [`Self::put_free`] was committed. The number may be given out again at once: nobody finds
    /// this inode any more.
    pub(super) fn finish_reclaim(&self, locked: &mut LockedInode<'_>) {
        locked.state.dead = true;
        locked.state.extents = None;
        locked.state.nodes.clear();
        self.cache.remove(locked.inode);
        self.table.give_back(self, locked.inode.ino);
    }
}

#[cfg(test)]
mod tests {
    use lodefs_pmem::{Access, Domain, Medium};

    use super::*;
    use crate::format::FormatOptions;
    use crate::fs::OpenOptions;
    use crate::types::{NewInode, NewKind};

    /// The number of a file that goes is free on the volume before it is free in memory.
    #[test]
    fn a_number_is_not_given_out_before_it_was_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vol");
        lodefs_pmem::create_file(&path, 4 << 20, lodefs_pmem::Reserve::Full).unwrap();
        let open = || {
            let options =
                lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::Volatile) };
            Medium::open(&path, &options).unwrap()
        };
        Fs::format(&open(), &FormatOptions::default()).unwrap();
        let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
        let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
        let ino = fs.create(&fs.root().unwrap(), b"f", &new).unwrap().ino();
        fs.close().unwrap();
        drop(fs);

        // Nobody has looked for free numbers yet.
        let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
        let file = fs.node(ino).unwrap();
        let mut tx = Tx::begin(&fs).unwrap();
        let mut locked = LockedInode::lock(&fs, file.inode()).unwrap();
        fs.put_free(&mut tx, &mut locked).unwrap();
        tx.commit().unwrap();
        let taken: Vec<Ino> = (0..1000).map(|_| fs.table.take(&fs).unwrap()).collect();
        assert!(!taken.contains(&ino));
        fs.finish_reclaim(&mut locked);
        assert_eq!(fs.table.take(&fs).unwrap(), ino);
    }
}
