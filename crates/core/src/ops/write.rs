//! Writing data.
//!
//! Existing blocks are overwritten in place; holes get fresh blocks. All data is fenced before the record that makes
//! new blocks or a new size known, so a crash shows either the old size and holes, or all of the data. What a crash
//! can tear: an overwrite, at any 8 bytes.
//!
//! Invariant: within the blocks of a file, bytes beyond its end are undefined only in the block that the end is in.
//! They are zeroed before the end moves past them.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::CHUNK_BLOCKS;
use lodefs_layout::FILE_SIZE_MAX;
use lodefs_layout::extent::EXTENT_BLOCKS_MAX;
use rustix::io::Errno;
use zerocopy::little_endian::U64;

use super::locked::LockedInode;
use super::xattr;
use crate::alloc::{Purpose, Request};
use crate::error::{Error, Result, ensure};
use crate::extents::map::Edits;
use crate::extents::{Extent, ExtentMap, store};
use crate::fs::Fs;
use crate::inode::{InodeState, Node};
use crate::lease::{DataRight, recall_data, recall_zeroes};
use crate::tx::{Tx, offset_of};
use crate::types::{Kind, Time, Writer};

/// Most bytes that one transaction writes.
const PIECE_MAX: u64 = 8 << 20;

/// Where to write.
#[derive(Clone, Copy)]
enum Position {
    At(u64),
    End,
}

impl Fs {
    /// Writes `bytes` at byte `offset`. Returns how many were written: fewer only if space ran out or the largest file
    /// was reached on the way. FBIG beyond the largest file.
    ///
    /// The writer decides which set-id bits the file keeps.
    pub fn write(&self, node: &Node, offset: u64, bytes: &[u8], writer: impl Into<Writer>) -> Result<usize> {
        self.write_from(node, Position::At(offset), bytes, writer.into()).map(|(_, written)| written)
    }

    /// Writes `bytes` at the end of the file, in one step with finding the end. Returns where they were written, and how
    /// many.
    pub fn append(&self, node: &Node, bytes: &[u8], writer: impl Into<Writer>) -> Result<(u64, usize)> {
        self.write_from(node, Position::End, bytes, writer.into())
    }

    fn write_from(
        &self,
        node: &Node,
        position: Position,
        bytes: &[u8],
        writer: Writer,
    ) -> Result<(u64, usize)> {
        self.check_writable()?;
        let inode = node.inode();
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(Errno::INVAL.into()),
        }
        let mut state = inode.write()?;
        recall_data(&mut state, DataRight::Write, None);
        if state.tail.is_some() {
            let mut locked = LockedInode::new(inode, state);
            self.settle_tail(&mut locked)?;
            state = locked.state;
        }
        if let Position::At(offset) = position
            && (1..=PIECE_MAX).contains(&(bytes.len() as u64))
            && !self.loses_privileges(&mut state, writer)
            && self.overwrite(&state, offset, bytes, inode.now(self))?
        {
            state.keep_glimpse();
            return Ok((offset, bytes.len()));
        }
        let mut locked = LockedInode::new(inode, state);
        let start = match position {
            Position::At(offset) => offset,
            Position::End => locked.slot.size.get(),
        };
        if bytes.is_empty() {
            return Ok((start, 0));
        }
        ensure(start < FILE_SIZE_MAX, Errno::FBIG)?;
        let bytes = &bytes[..bytes.len().min((FILE_SIZE_MAX - start) as usize)];
        self.leave_reached_block(&mut locked, start + bytes.len() as u64)?;
        let mut done = 0;
        while done < bytes.len() {
            let offset = start + done as u64;
            let size = piece_size(offset, (bytes.len() - done) as u64) as usize;
            match self.write_piece(&mut locked, offset, &bytes[done..done + size], writer) {
                Ok(written) => {
                    done += written;
                    if written < size {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok((start, done))
    }

    fn write_piece(
        &self,
        locked: &mut LockedInode<'_>,
        offset: u64,
        bytes: &[u8],
        writer: Writer,
    ) -> Result<usize> {
        let now = locked.now(self);
        let loses = self.loses_privileges(&mut locked.state, writer).then_some(writer);
        locked.state.extents(&self.volume, locked.inode.ino)?;
        if loses.is_none() && self.overwrite(&locked.state, offset, bytes, now)? {
            return Ok(bytes.len());
        }
        let mut tx = Tx::begin(self)?;
        let result = self.write_transaction(&mut tx, locked, offset, bytes, now, loses);
        let result = result.and_then(|written| locked.commit(tx).map(|()| written));
        if result.is_err() {
            locked.forget_changes();
        }
        result
    }

    /// Whether a write takes something from the file that lets a program run with more rights than its user has.
    pub(super) fn loses_privileges(&self, state: &mut InodeState, writer: Writer) -> bool {
        let mode = state.slot.mode.get();
        writer.keeps_of(mode) != mode || xattr::has_capability(&self.volume, state)
    }

    /// The short way: all in one extent, within the file, and no time to store. `false` if it is not so.
    fn overwrite(&self, state: &InodeState, offset: u64, bytes: &[u8], now: Time) -> Result<bool> {
        let slot = &state.slot;
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return Ok(false) };
        let same_time = slot.mtime_s.get() == now.s
            && slot.times_ns[1].get() == now.ns
            && slot.ctime_s.get() == now.s
            && slot.times_ns[2].get() == now.ns;
        if !same_time || end > slot.size.get() {
            return Ok(false);
        }
        let Some(map) = &state.extents else { return Ok(false) };
        let Ok(extent) = map.find(offset / BLOCK_SIZE) else { return Ok(false) };
        if end > extent.logical_end() * BLOCK_SIZE {
            return Ok(false);
        }
        let flushed = self.volume.medium.write(offset_of(extent.physical) + offset % BLOCK_SIZE, bytes)?;
        let _in_place = self.volume.medium.fence(flushed)?;
        self.journal.note_activity(&self.volume);
        Ok(true)
    }

    fn write_transaction(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        offset: u64,
        bytes: &[u8],
        now: Time,
        loses: Option<Writer>,
    ) -> Result<usize> {
        let old_size = locked.slot.size.get();
        let mut edits = Edits::new();
        let mut done = 0;
        while done < bytes.len() {
            match self.write_part(tx, locked, offset + done as u64, &bytes[done..], &mut edits) {
                Ok(written) => done += written,
                Err(Error::Refused(Errno::NOSPC)) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        locked.slot.size = U64::new(old_size.max(offset + done as u64));
        if let Some(writer) = loses {
            self.drop_privileges(tx, locked, writer)?;
        }
        locked.touch_content(now);
        self.put_extents(tx, locked, &edits, false)?;
        self.zero_gap(tx, locked, old_size, offset)?;
        Ok(done)
    }

    /// Writes as much as one extent, or one fresh run, takes.
    fn write_part(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        offset: u64,
        bytes: &[u8],
        edits: &mut Edits,
    ) -> Result<usize> {
        let (block, within) = (offset / BLOCK_SIZE, offset % BLOCK_SIZE);
        let map = locked.state.extents(&self.volume, locked.inode.ino)?;
        match map.find(block) {
            Ok(extent) => {
                let size = bytes.len().min((extent.blocks * BLOCK_SIZE - within) as usize);
                tx.write_fresh(offset_of(extent.physical) + within, &bytes[..size])?;
                Ok(size)
            }
            Err(hole) => {
                let wanted = (within + bytes.len() as u64).div_ceil(BLOCK_SIZE).min(hole);
                let extent = self.allocate_extent(tx, locked, block, wanted, edits)?;
                let room = extent.blocks * BLOCK_SIZE;
                let size = bytes.len().min((room - within) as usize);
                let at = offset_of(extent.physical);
                tx.zero_fresh(at, within)?;
                tx.write_fresh(at + within, &bytes[..size])?;
                tx.zero_fresh(at + within + size as u64, room - within - size as u64)?;
                Ok(size)
            }
        }
    }

    /// Gives a hole fresh blocks: some, from `logical` on, at most `wanted`. The caller fills them. Nobody sees zeroes in their
    /// place any more.
    pub(super) fn allocate_extent(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        logical: u64,
        wanted: u64,
        edits: &mut Edits,
    ) -> Result<Extent> {
        let ino = locked.inode.ino;
        recall_zeroes(locked, logical, logical.saturating_add(wanted));
        let map = locked.state.extents(&self.volume, ino)?;
        let (goal, align) = placement(map, logical, wanted);
        let request = Request {
            blocks: wanted.min(EXTENT_BLOCKS_MAX),
            goal,
            align,
            contiguous: false,
            purpose: Purpose::Data,
        };
        let before = tx.mark();
        let run = tx.allocate(&request)?;
        let extent = Extent { logical, physical: run.start, blocks: run.blocks };
        if !map.insert(extent, edits) {
            if let Err(error) = store::grow(tx, &self.volume, ino, &mut locked.slot, map, false) {
                // Whoever has got some before may do with these.
                tx.roll_back(&before);
                return Err(error);
            }
            let inserted = map.insert(extent, edits);
            debug_assert!(inserted, "a new extent block has free slots");
        }
        locked.slot.blocks = U64::new(locked.slot.blocks.get() + run.blocks);
        Ok(extent)
    }

    /// Puts changed extents into the transaction.
    pub(super) fn put_extents(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        edits: &Edits,
        reclaim: bool,
    ) -> Result<()> {
        let ino = locked.inode.ino;
        let map = locked.state.extents.as_mut().expect("extents were changed, so they are loaded");
        store::put(tx, &self.volume, ino, &mut locked.slot, map, edits, reclaim)
    }

    /// Where the end of the file moves from `size` to `offset` or beyond: zeroes what is undefined in between.
    ///
    /// It is in place, so it comes last in a transaction, when nothing but the medium can refuse any more: on a `page` volume a
    /// power failure may take back that the file had been made shorter, and of an operation that was refused there must be no
    /// trace then.
    pub(super) fn zero_gap(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        size: u64,
        offset: u64,
    ) -> Result<()> {
        if offset <= size || size.is_multiple_of(BLOCK_SIZE) {
            return Ok(());
        }
        let map = locked.state.extents(&self.volume, locked.inode.ino)?;
        let Ok(extent) = map.find(size / BLOCK_SIZE) else { return Ok(()) };
        let within = size % BLOCK_SIZE;
        let until = (BLOCK_SIZE - within).min(offset - size);
        tx.zero_fresh(offset_of(extent.physical) + within, until)
    }
}

/// How much of `size` bytes at byte `offset` the next transaction writes: all if it can, so that the file grows at once or
/// not at all; else whole pieces, so that the next one is aligned.
fn piece_size(offset: u64, size: u64) -> u64 {
    if size <= PIECE_MAX { size } else { PIECE_MAX - offset % PIECE_MAX }
}

/// Where `wanted` blocks from `logical` on should lie: start and alignment.
///
/// Right behind what comes before; or, where a 2 MiB page could map the file, so that it can: each 2 MiB of a large file at
/// the start of a chunk, and blocks of one such part side by side whatever the order in which they are written.
fn placement(map: &ExtentMap, logical: u64, wanted: u64) -> (Option<u64>, Option<u64>) {
    let (before, behind) = map.neighbours(logical);
    let adjacent =
        before.filter(|extent| extent.logical_end() == logical).map(|extent| extent.physical + extent.blocks);
    if logical + wanted < CHUNK_BLOCKS {
        return (adjacent, None);
    }
    let phase = logical % CHUNK_BLOCKS;
    let part = logical - phase;
    let same_part = |block: u64| block >= part && block < part + CHUNK_BLOCKS;
    let from_before = before
        .filter(|extent| same_part(extent.logical_end() - 1))
        .map(|extent| extent.physical + (logical - extent.logical));
    let from_behind = behind
        .filter(|extent| same_part(extent.logical))
        .and_then(|extent| extent.physical.checked_sub(extent.logical - logical));
    let neighbour = from_before.or(from_behind);
    let goal = neighbour.or(adjacent).filter(|goal| phase != 0 || goal.is_multiple_of(CHUNK_BLOCKS));
    // The end of a large file that is shorter than a part needs no chunk of its own.
    let is_short_end = phase == 0 && wanted < CHUNK_BLOCKS && goal.is_some();
    (goal, (!is_short_end).then_some(phase))
}
