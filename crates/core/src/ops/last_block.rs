//! The last block of a file, where an unanswered program may still store to it.
//!
//! A program that appends stores bytes behind the end of the file, in the block that the end is in. If the program does not answer a
//! recall (a debugger has stopped the process, say), the server goes on without it, and the program may store those bytes at any time
//! later. The program cannot make them part of the file, because its EOF word is revoked (`ops::tail`). But the bytes would replace
//! what others have appended to the same block meanwhile, or the zeroes that a larger size has put there.
//!
//! So before the end of a file moves up, its content is copied to a fresh block, and the old block goes into quarantine until the
//! program has answered or has ended. This is one journal record: a crash leaves the old block or the new one, with the same content.

use lodefs_layout::BLOCK_SIZE;

use super::locked::LockedInode;
use crate::error::Result;
use crate::extents::map::Edits;
use crate::fs::Fs;
use crate::lease::is_reached_by_writer;
use crate::tx::{Tx, offset_of};

impl Fs {
    /// Copies the last block of a file to a fresh block, if its end is to move up to `size` and an unanswered program may still store to
    /// the block. NOSPC if there is no block; then nothing has changed.
    ///
    /// A transaction of its own: the caller has changed nothing of the locked inode yet.
    pub(super) fn leave_reached_block(&self, locked: &mut LockedInode<'_>, size: u64) -> Result<()> {
        let old_size = locked.state.slot.size.get();
        if size <= old_size || old_size.is_multiple_of(BLOCK_SIZE) {
            return Ok(());
        }
        let block = old_size / BLOCK_SIZE;
        if !is_reached_by_writer(&locked.state, block) {
            return Ok(());
        }
        let moved = self.move_block(locked, block, old_size % BLOCK_SIZE);
        if moved.is_err() {
            locked.forget_changes();
        }
        moved
    }

    /// Copies the first `used` bytes of a block of the file to a fresh block, which takes its place.
    fn move_block(&self, locked: &mut LockedInode<'_>, block: u64, used: u64) -> Result<()> {
        let Some(extent) = locked.state.extents(&self.volume, locked.inode.ino)?.extent_at(block) else {
            return Ok(());
        };
        let old = offset_of(extent.physical + (block - extent.logical));
        let mut tx = Tx::begin(self)?;
        // All other programs give the block back, so what is read here is all that they have stored.
        self.unmap(&mut tx, locked, block, block + 1)?;
        let mut content = vec![0; used as usize];
        self.volume.medium.read(old, &mut content)?;
        let mut edits = Edits::new();
        let new = offset_of(self.allocate_extent(&mut tx, locked, block, 1, &mut edits)?.physical);
        tx.write_fresh(new, &content)?;
        tx.zero_fresh(new + used, BLOCK_SIZE - used)?;
        self.put_extents(&mut tx, locked, &edits, false)?;
        locked.commit(tx)
    }
}
