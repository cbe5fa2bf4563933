//! Remedies for the extents of a file.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::extent::{ExtentBlockHead, ExtentSlot, InlineExtent, SLOT_SIZE, SLOTS_START};
use lodefs_layout::inode::InodeSlot;
use rustix::io::Errno;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::Repair;
use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result};
use crate::extents::map::Edits;
use crate::extents::{Extent, ExtentMap, store};
use crate::fsck::finding::Place;
use crate::tx::{Tx, offset_of};
use crate::types::Ino;

/// Bytes that are copied at a time.
const COPY_SIZE: u64 = 1 << 20;

impl Repair {
    /// Drops an extent, or the end of the chain of extent blocks. The number of extents is counted later.
    pub(super) fn drop_extent(&self, ino: Ino, place: &Place) -> Result<()> {
        let seed = self.fs.volume.seed;
        match *place {
            Place::InlineExtent(index) => self.edit_inode(ino, |slot| {
                let mut inline = slot.inline_extents();
                inline[index] = InlineExtent::default();
                slot.set_inline_extents(inline);
            }),
            Place::ChainEnd(0) => self.edit_inode(ino, |slot| slot.root = U64::ZERO),
            Place::ChainEnd(last) => {
                let mut tx = Tx::begin(&self.fs)?;
                tx.put(offset_of(last), ExtentBlockHead::new(ino.0, 0, last, seed).as_bytes());
                tx.commit()
            }
            Place::ExtentSlot(block, index) => {
                let mut tx = Tx::begin(&self.fs)?;
                let at = offset_of(block) + (SLOTS_START + index * SLOT_SIZE) as u64;
                tx.put(at, ExtentSlot::default().as_bytes());
                tx.commit()
            }
            ref other => unreachable!("{other:?} is not an extent"),
        }
    }

    /// Gives a file blocks of its own instead of `run`, with the same content; or a hole, if that is metadata, or there
    /// is no room.
    pub(super) fn part_with(&self, ino: Ino, logical: u64, run: Run, with_metadata: bool) -> Result<()> {
        let volume = &self.fs.volume;
        let offset = crate::inode::table::slot_offset(volume, ino)?;
        let old = self.inode(ino)?;
        let shared = Extent { logical, physical: run.start, blocks: run.blocks };
        if store::load(volume, ino, &old)?.find(logical).map(|extent| extent.physical) != Ok(run.start) {
            // Another remedy was quicker.
            return Ok(());
        }
        if !with_metadata {
            match self.replace(ino, offset, &old, shared, true) {
                // Otherwise there may yet be room.
                Err(Error::Refused(Errno::NOSPC)) if !self.spares_leaves => {}
                copied => return copied,
            }
        }
        self.replace(ino, offset, &old, shared, false)
    }

    fn replace(&self, ino: Ino, offset: u64, old: &InodeSlot, shared: Extent, copy: bool) -> Result<()> {
        let volume = &self.fs.volume;
        let mut tx = Tx::begin(&self.fs)?;
        let mut slot = *old;
        let mut map = store::load(volume, ino, old)?;
        let copies = if copy { self.copy(&mut tx, shared)? } else { Vec::new() };
        let added: u64 = copies.iter().map(|extent| extent.blocks).sum();
        let mut edits = Edits::new();
        self.make_room(&mut tx, ino, &mut slot, &mut map)?;
        let removed = map.remove(shared.logical, shared.logical_end(), &mut edits, |_| {});
        debug_assert!(removed, "one free slot is enough to cut one extent in two");
        for extent in copies {
            self.make_room(&mut tx, ino, &mut slot, &mut map)?;
            let inserted = map.insert(extent, &mut edits);
            debug_assert!(inserted, "there was a free slot");
        }
        let blocks = slot.blocks.get().saturating_sub(shared.blocks).saturating_add(added);
        slot.blocks = U64::new(blocks);
        store::put(&mut tx, volume, ino, &mut slot, &mut map, &edits, true)?;
        tx.put_inode(offset, ino, old, &mut slot);
        tx.commit()
    }

    fn make_room(&self, tx: &mut Tx<'_>, ino: Ino, slot: &mut InodeSlot, map: &mut ExtentMap) -> Result<()> {
        if map.free_slots() == 0 { store::grow(tx, &self.fs.volume, ino, slot, map, true) } else { Ok(()) }
    }

    /// Copies the blocks of an extent into fresh ones.
    fn copy(&self, tx: &mut Tx<'_>, from: Extent) -> Result<Vec<Extent>> {
        let mut copies = Vec::new();
        let mut done = 0;
        while done < from.blocks {
            let request = Request {
                blocks: from.blocks - done,
                goal: None,
                align: None,
                contiguous: false,
                purpose: Purpose::Data,
            };
            let run = tx.allocate(&request)?;
            self.copy_run(tx, from.physical + done, run)?;
            copies.push(Extent { logical: from.logical + done, physical: run.start, blocks: run.blocks });
            done += run.blocks;
        }
        Ok(copies)
    }

    fn copy_run(&self, tx: &mut Tx<'_>, from: u64, to: Run) -> Result<()> {
        let size = to.blocks * BLOCK_SIZE;
        let mut buffer = vec![0; size.min(COPY_SIZE) as usize];
        for start in (0..size).step_by(buffer.len()) {
            let part = &mut buffer[..(size - start).min(COPY_SIZE) as usize];
            self.fs.volume.medium.read(offset_of(from) + start, part)?;
            tx.write_fresh(offset_of(to.start) + start, part)?;
        }
        Ok(())
    }
}
