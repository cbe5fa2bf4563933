//! Allocating, punching and zeroing ranges.

use std::ops::Range;

use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use rustix::io::Errno;
use zerocopy::little_endian::U64;

use super::locked::LockedInode;
use crate::error::{Error, Result, ensure};
use crate::extents::map::Edits;
use crate::fs::Fs;
use crate::inode::Node;
use crate::tx::{Tx, offset_of};
use crate::types::{Fallocate, Flags, Kind};

/// Most blocks that one transaction allocates and zeroes.
const BATCH_BLOCKS: u64 = 1 << 16;
/// Most extents that one transaction allocates.
const BATCH_EXTENTS: usize = 1024;

impl Fs {
    /// Allocates, punches or zeroes the `size` bytes from `offset` on. FBIG beyond the largest file, NOSPC (and nothing
    /// changed) if there is not enough space.
    pub fn fallocate(&self, node: &Node, how: Fallocate, offset: u64, size: u64) -> Result<()> {
        self.check_writable()?;
        ensure(size > 0, Errno::INVAL)?;
        let end = offset.checked_add(size).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Errno::FBIG)?;
        let mut locked = LockedInode::lock(self, node.inode())?;
        match locked.kind() {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(Errno::NODEV.into()),
        }
        ensure(!locked.flags().contains(Flags::IMMUTABLE), Errno::PERM)?;
        let appends = matches!(how, Fallocate::Allocate { .. });
        ensure(appends || !locked.flags().contains(Flags::APPEND), Errno::PERM)?;
        let keeps_size = match how {
            Fallocate::Allocate { keep_size } | Fallocate::ZeroRange { keep_size } => keep_size,
            Fallocate::PunchHole => true,
        };
        if !keeps_size {
            self.leave_reached_block(&mut locked, end)?;
        }
        let result = match how {
            Fallocate::Allocate { keep_size } => self.allocate_range(&mut locked, offset, end, keep_size),
            Fallocate::PunchHole => self.punch(&mut locked, offset, end),
            Fallocate::ZeroRange { keep_size } => self.zero_range(&mut locked, offset, end, keep_size),
        };
        if result.is_err() {
            locked.forget_changes();
        }
        result
    }

    fn allocate_range(
        &self,
        locked: &mut LockedInode<'_>,
        offset: u64,
        end: u64,
        keep_size: bool,
    ) -> Result<()> {
        let (first, last) = (offset / BLOCK_SIZE, end.div_ceil(BLOCK_SIZE));
        let holes = self.holes(locked, first, last)?;
        let filled = self.fill_holes(locked, first, last, (!keep_size).then_some(end));
        if matches!(filled, Err(Error::Refused(Errno::NOSPC))) {
            // What was filled before is a hole again.
            locked.forget_changes();
            for hole in holes {
                let mut tx = Tx::begin(self)?;
                self.unmap(&mut tx, locked, hole.start, hole.end)?;
                locked.commit(tx)?;
            }
        }
        filled
    }

    /// Fills all holes in blocks `[first, last)`, and makes the file end at `end`, if it is to be longer than it is.
    fn fill_holes(
        &self,
        locked: &mut LockedInode<'_>,
        first: u64,
        last: u64,
        end: Option<u64>,
    ) -> Result<()> {
        let mut next = first;
        while next < last {
            let mut tx = Tx::begin(self)?;
            let mut edits = Edits::new();
            next = self.allocate_batch(&mut tx, locked, next, last, &mut edits)?;
            let now = locked.now(self);
            locked.touch_content(now);
            self.put_extents(&mut tx, locked, &edits, false)?;
            if let Some(end) = end.filter(|_| next >= last) {
                self.lengthen(&mut tx, locked, end)?;
            }
            locked.commit(tx)?;
        }
        Ok(())
    }

    /// Makes a file end at `end`, if it is shorter.
    fn lengthen(&self, tx: &mut Tx<'_>, locked: &mut LockedInode<'_>, end: u64) -> Result<()> {
        let old_size = locked.slot.size.get();
        if end > old_size {
            locked.slot.size = U64::new(end);
            self.zero_gap(tx, locked, old_size, end)?;
        }
        Ok(())
    }

    /// The holes in blocks `[first, last)`; NOSPC unless all could be filled.
    fn holes(&self, locked: &mut LockedInode<'_>, first: u64, last: u64) -> Result<Vec<Range<u64>>> {
        let map = locked.state.extents(&self.volume, locked.inode.ino)?;
        let (mut block, mut missing, mut holes) = (first, 0u64, Vec::new());
        while block < last {
            match map.find(block) {
                Ok(extent) => block = extent.logical_end(),
                Err(hole) => {
                    let end = block.saturating_add(hole).min(last);
                    missing = missing.saturating_add(end - block);
                    holes.push(block..end);
                    block = end;
                }
            }
        }
        ensure(missing <= self.space().blocks_available, Errno::NOSPC)?;
        Ok(holes)
    }

    /// Fills holes from block `next` on with zeroed blocks, as far as one transaction goes. Returns where it stopped.
    pub(super) fn allocate_batch(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        mut next: u64,
        last: u64,
        edits: &mut Edits,
    ) -> Result<u64> {
        let mut left = BATCH_BLOCKS;
        while next < last && left > 0 && edits.len() < BATCH_EXTENTS {
            let map = locked.state.extents(&self.volume, locked.inode.ino)?;
            match map.find(next) {
                Ok(extent) => next = extent.logical_end().min(last),
                Err(hole) => {
                    let wanted = hole.min(last - next).min(left);
                    let extent = self.allocate_extent(tx, locked, next, wanted, edits)?;
                    tx.zero_fresh(offset_of(extent.physical), extent.blocks * BLOCK_SIZE)?;
                    next += extent.blocks;
                    left -= extent.blocks;
                }
            }
        }
        Ok(next)
    }

    fn punch(&self, locked: &mut LockedInode<'_>, offset: u64, end: u64) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let (first, last) = (offset.div_ceil(BLOCK_SIZE), end / BLOCK_SIZE);
        if first > last {
            self.zero_mapped(&mut tx, locked, offset, end)?;
        } else {
            // What may be refused comes first.
            self.unmap(&mut tx, locked, first, last)?;
            self.zero_mapped(&mut tx, locked, offset, first * BLOCK_SIZE)?;
            self.zero_mapped(&mut tx, locked, last * BLOCK_SIZE, end)?;
        }
        let now = locked.now(self);
        locked.touch_content(now);
        locked.commit(tx)
    }

    fn zero_range(&self, locked: &mut LockedInode<'_>, offset: u64, end: u64, keep_size: bool) -> Result<()> {
        let (first, last) = (offset / BLOCK_SIZE, end.div_ceil(BLOCK_SIZE));
        let holes = self.holes(locked, first, last)?;
        // First, so that nothing is changed if space is missing.
        self.allocate_range(locked, offset, end, true)?;
        let mut tx = Tx::begin(self)?;
        let mut at = offset;
        for hole in holes {
            self.zero_mapped(&mut tx, locked, at, hole.start * BLOCK_SIZE)?;
            at = offset.max(hole.end * BLOCK_SIZE);
        }
        self.zero_mapped(&mut tx, locked, at, end)?;
        if !keep_size {
            self.lengthen(&mut tx, locked, end)?;
        }
        let now = locked.now(self);
        locked.touch_content(now);
        locked.commit(tx)
    }

    /// Zeroes bytes `[from, to)` of the file where they have blocks. What is behind its end is not touched: it means nothing,
    /// unless a power failure makes the file as long again as it was.
    fn zero_mapped(&self, tx: &mut Tx<'_>, locked: &mut LockedInode<'_>, from: u64, to: u64) -> Result<()> {
        let to = to.min(locked.slot.size.get());
        let map = locked.state.extents(&self.volume, locked.inode.ino)?;
        let mut at = from;
        while at < to {
            let (block, within) = (at / BLOCK_SIZE, at % BLOCK_SIZE);
            at = match map.find(block) {
                Ok(extent) => {
                    let until = (extent.logical_end() * BLOCK_SIZE).min(to);
                    tx.zero_fresh(offset_of(extent.physical) + within, until - at)?;
                    until
                }
                Err(hole) => block.saturating_add(hole).saturating_mul(BLOCK_SIZE),
            };
        }
        Ok(())
    }
}
