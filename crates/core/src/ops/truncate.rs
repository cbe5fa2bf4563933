//! Changing the size of a file.

use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use rustix::io::Errno;
use zerocopy::little_endian::U64;

use super::locked::LockedInode;
use crate::error::{Result, ensure};
use crate::extents::map::Edits;
use crate::extents::store;
use crate::fs::Fs;
use crate::inode::Node;
use crate::lease::{recall_blocks, recall_zeroes};
use crate::tx::Tx;
use crate::types::Kind;

impl Fs {
    /// Puts a change of size into the transaction. If that is not committed, the caller throws the extents away.
    pub(super) fn change_size(&self, tx: &mut Tx<'_>, locked: &mut LockedInode<'_>, size: u64) -> Result<()> {
        match locked.kind() {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(Errno::INVAL.into()),
        }
        ensure(size <= FILE_SIZE_MAX, Errno::FBIG)?;
        let old_size = locked.slot.size.get();
        if size >= old_size {
            self.zero_gap(tx, locked, old_size, size)?;
        } else {
            // The bytes behind the new end in its block stay as they are: zeroing them now would change the old file
            // if the record did not make it. They are zeroed before the end moves past them.
            // Zeroes that are shown in place of holes go as well.
            recall_zeroes(locked, size.div_ceil(BLOCK_SIZE), u64::MAX);
            self.unmap(tx, locked, size.div_ceil(BLOCK_SIZE), u64::MAX)?;
        }
        locked.slot.size = U64::new(size);
        Ok(())
    }

    /// Changes a file as a write of zeros up to byte `end` would, where there are no blocks yet.
    pub(super) fn write_hole(&self, node: &Node, end: u64) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(self, node.inode())?;
        self.leave_reached_block(&mut locked, end)?;
        let old_size = locked.slot.size.get();
        if end > old_size {
            self.zero_gap(&mut tx, &mut locked, old_size, end)?;
            locked.slot.size = U64::new(end);
        }
        let now = locked.now(self);
        locked.touch_content(now);
        locked.commit(tx)
    }

    /// Puts into the transaction that blocks `[from, to)` of a file become a hole.
    pub(super) fn unmap(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let ino = locked.inode.ino;
        let map = locked.state.extents(&self.volume, ino)?;
        if from >= to || map.find(from).is_err_and(|hole| hole >= to - from) {
            return Ok(());
        }
        let is_cut_in_two =
            map.extent_at(from).is_some_and(|extent| extent.logical < from && extent.logical_end() > to);
        if is_cut_in_two && map.free_slots() == 0 {
            store::grow(tx, &self.volume, ino, &mut locked.slot, map, true)?;
        }
        tx.keep_for(recall_blocks(locked, from, to));
        let map = locked.state.extents(&self.volume, ino)?;
        let mut edits = Edits::new();
        let mut freed = 0;
        let removed = map.remove(from, to, &mut edits, |run| {
            freed += run.blocks;
            tx.free_data(run);
        });
        debug_assert!(removed, "one free slot is enough to cut one extent in two");
        locked.slot.blocks = U64::new(locked.slot.blocks.get().saturating_sub(freed));
        self.put_extents(tx, locked, &edits, true)
    }
}
