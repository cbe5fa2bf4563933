//! A transaction: the bytes that one operation will change, gathered until they are committed together.
//!
//! Dropped without a commit, it leaves the volume as it was and gives its blocks back.
//!
//! What a crash can tear: nothing. Blocks that were written directly are referred to only by the record, which is
//! written after they are fenced; the record is one checksummed unit.

use std::cell::Cell;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode::InodeSlot;
use lodefs_layout::journal::{RECORD_HEAD_SIZE, RECORD_SIZE_MAX, WriteHead};
use lodefs_pmem::{Flushed, Medium};
use rustix::io::Errno;
use smallvec::SmallVec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::lease::Lagging;
use crate::types::Ino;

/// Room that [`Tx::has_room`] leaves for the inodes that every operation writes at its end.
const ROOM_FOR_INODES: usize = 2048;

pub(crate) struct Tx<'f> {
    fs: &'f Fs,
    record: Vec<u8>,
    fresh: Option<Flushed>,
    allocated: SmallVec<[Run; 8]>,
    freed_data: SmallVec<[Run; 8]>,
    freed_metadata: SmallVec<[Run; 4]>,
    /// Programs that may still reach the data that is freed.
    lagging: Option<Lagging>,
}

/// A point in a transaction.
pub(crate) struct Mark {
    record: usize,
    allocated: usize,
    freed_data: usize,
    freed_metadata: usize,
}

thread_local! {
    /// The buffer of the last transaction of this thread, to be used again.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<'f> Tx<'f> {
    /// An empty transaction; refuses if the volume may not be written.
    pub(crate) fn begin(fs: &'f Fs) -> Result<Self> {
        fs.check_writable()?;
        let mut record = SPARE.take();
        record.clear();
        record.resize(RECORD_HEAD_SIZE, 0);
        Ok(Self {
            fs,
            record,
            fresh: None,
            allocated: SmallVec::new(),
            freed_data: SmallVec::new(),
            freed_metadata: SmallVec::new(),
            lagging: None,
        })
    }

    /// Will change the metadata at byte `offset` of the volume to `bytes`.
    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let head =
            WriteHead { offset: U64::new(offset), size: U32::new(bytes.len() as u32), reserved: U32::ZERO };
        self.record.extend_from_slice(head.as_bytes());
        self.record.extend_from_slice(bytes);
        self.record.resize(self.record.len().next_multiple_of(8), 0);
    }

    /// Will change inode `ino`, stored at `offset`, from `old` to `new`, which is sealed here. Only the parts that
    /// differ are recorded.
    pub(crate) fn put_inode(&mut self, offset: u64, ino: Ino, old: &InodeSlot, new: &mut InodeSlot) {
        const PART: usize = 32;
        *new = new.sealed(ino.0, self.fs.volume.seed);
        let parts = old.as_bytes().chunks_exact(PART).zip(new.as_bytes().chunks_exact(PART));
        let mut pending: Option<(usize, usize)> = None;
        for (i, (before, after)) in parts.enumerate() {
            if before == after {
                continue;
            }
            pending = match pending {
                Some((start, end)) if end == i * PART => Some((start, end + PART)),
                Some((start, end)) => {
                    self.put(offset + start as u64, &new.as_bytes()[start..end]);
                    Some((i * PART, (i + 1) * PART))
                }
                None => Some((i * PART, (i + 1) * PART)),
            };
        }
        if let Some((start, end)) = pending {
            self.put(offset + start as u64, &new.as_bytes()[start..end]);
        }
    }

    /// Reads metadata as it will be when this transaction is committed.
    pub(crate) fn get<T: FromBytes + IntoBytes + Immutable>(&self, at: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Reads metadata as it will be when this transaction is committed.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        self.fs.volume.medium.read_meta(at, into)?;
        self.overlay(at, into);
        Ok(())
    }

    fn overlay(&self, at: u64, into: &mut [u8]) {
        for write in lodefs_layout::journal::writes(&self.record) {
            let (offset, bytes) = write.expect("Tx::put pads every write");
            let start = offset.max(at);
            let end = (offset + bytes.len() as u64).min(at + into.len() as u64);
            if start < end {
                into[(start - at) as usize..(end - at) as usize]
                    .copy_from_slice(&bytes[(start - offset) as usize..(end - offset) as usize]);
            }
        }
    }

    /// Writes to a block that nothing refers to until this transaction is committed.
    pub(crate) fn write_fresh(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let flushed = self.fs.volume.medium.write(at, bytes)?;
        self.note_fresh(flushed);
        Ok(())
    }

    /// Fills with zeros what nothing refers to until this transaction is committed.
    pub(crate) fn zero_fresh(&mut self, at: u64, size: u64) -> Result<()> {
        if size > 0 {
            let flushed = self.fs.volume.medium.zero(at, size)?;
            self.note_fresh(flushed);
        }
        Ok(())
    }

    fn note_fresh(&mut self, flushed: Flushed) {
        self.fresh = Some(match self.fresh.take() {
            Some(before) => before.and(flushed),
            None => flushed,
        });
    }

    /// Takes one run of at most `request.blocks` blocks. `NOSPC` if there is none, even after a checkpoint has made
    /// freed blocks available.
    pub(crate) fn allocate(&mut self, request: &Request) -> Result<Run> {
        let run = match self.fs.blocks.allocate(request) {
            Some(run) => run,
            None => self.allocate_after_checkpoint(request)?,
        };
        self.allocated.push(run);
        Ok(run)
    }

    fn allocate_after_checkpoint(&self, request: &Request) -> Result<Run> {
        ensure(self.fs.blocks.counts().deferred > 0, Errno::NOSPC)?;
        self.fs.checkpoint()?;
        self.fs.blocks.allocate(request).ok_or(Error::Refused(Errno::NOSPC))
    }

    /// Takes one block for metadata. `reclaim` tells that the operation gives space back, so that it may use the
    /// reserve.
    pub(crate) fn allocate_metadata_block(&mut self, reclaim: bool) -> Result<u64> {
        let purpose = if reclaim { Purpose::Reclaim } else { Purpose::Metadata };
        let request = Request { blocks: 1, goal: None, align: None, contiguous: true, purpose };
        Ok(self.allocate(&request)?.start)
    }

    /// Will free blocks that hold file data or a blob: blocks that no journal record ever writes to.
    pub(crate) fn free_data(&mut self, run: Run) {
        self.freed_data.push(run);
    }

    /// The data that will be freed is kept as long as `lagging` programs may reach it.
    pub(crate) fn keep_for(&mut self, lagging: Option<Lagging>) {
        self.lagging = lagging;
    }

    /// Will free blocks that journal records may write to.
    pub(crate) fn free_metadata(&mut self, run: Run) {
        self.freed_metadata.push(run);
    }

    /// How far the transaction has come, to go back to.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            record: self.record.len(),
            allocated: self.allocated.len(),
            freed_data: self.freed_data.len(),
            freed_metadata: self.freed_metadata.len(),
        }
    }

    /// Forgets everything since `mark`, and gives the blocks back that were taken since.
    pub(crate) fn roll_back(&mut self, mark: &Mark) {
        self.record.truncate(mark.record);
        self.freed_data.truncate(mark.freed_data);
        self.freed_metadata.truncate(mark.freed_metadata);
        for run in self.allocated.drain(mark.allocated..) {
            self.fs.give_back(run);
        }
    }

    /// Whether the record has room for `size` more bytes of writes, heads included.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        self.record.len() + size + ROOM_FOR_INODES <= RECORD_SIZE_MAX
    }

    /// Whether nothing would be changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.record.len() == RECORD_HEAD_SIZE
    }

    /// Commits. If the medium fails, nothing has happened as far as this process shows; what the next open finds, is all of it
    /// or nothing. Without metadata to change there is no record, but what was written in place is fenced all the same.
    pub(crate) fn commit(mut self) -> Result<()> {
        ensure(self.record.len() <= RECORD_SIZE_MAX, Errno::TOOBIG)?;
        let volume = &self.fs.volume;
        let fresh = self.fresh.take().unwrap_or_else(Medium::nothing_flushed);
        let ready = volume.medium.fence(fresh).map_err(|error| self.fs.latch(error.into()))?;
        if self.is_empty() {
            self.fs.journal.note_activity(volume);
            return Ok(());
        }
        // Once the volume is closed, what is in memory may be ahead of what is on it (`ops::tail`).
        self.fs.check_writable()?;
        let committed = match self.fs.journal.commit(volume, &mut self.record, &ready) {
            Ok(committed) => committed,
            Err(error) => {
                // The record may be on the medium, and the next open may believe it: nobody else gets its blocks.
                self.allocated.clear();
                return Err(self.fs.latch(error));
            }
        };
        self.allocated.clear();
        if let Some(lagging) = self.lagging.take() {
            self.fs.quarantine(&self.freed_data, lagging);
            self.freed_data.clear();
        }
        self.fs.free_committed(&self.freed_data, &self.freed_metadata, committed.generation);
        Ok(())
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            // Given up half-way. Others see what was written only after a fence, and soon the caller's lock is free. If the
            // medium has lost some of it, it refuses all that follows.
            let _in_order = self.fs.volume.medium.fence(fresh);
        }
        for run in self.allocated.drain(..) {
            self.fs.give_back(run);
        }
        SPARE.set(std::mem::take(&mut self.record));
    }
}

/// Byte offset of a block.
pub(crate) fn offset_of(block: u64) -> u64 {
    block * BLOCK_SIZE
}

#[cfg(test)]
mod tests {
    use lodefs_pmem::{Access, Domain, OpenOptions, Reserve, What};

    use super::*;

    #[test]
    fn what_is_rolled_back_leaves_nothing_behind() {
        let medium = Medium::anonymous(4 << 20, Domain::Volatile).unwrap();
        Fs::format(&medium, &crate::FormatOptions::default()).unwrap();
        let fs = Fs::open(medium, &crate::OpenOptions::default()).unwrap();
        let free = || fs.blocks.counts().free;
        let mut tx = Tx::begin(&fs).unwrap();
        let kept = tx.allocate_metadata_block(false).unwrap();
        let before = free();
        let mark = tx.mark();
        let dropped = tx.allocate_metadata_block(false).unwrap();
        tx.put(kept * BLOCK_SIZE, &[1; 8]);
        tx.free_metadata(Run { start: kept, blocks: 1 });
        tx.free_data(Run { start: kept, blocks: 1 });
        assert!(free() < before && dropped != kept && !tx.is_empty());
        tx.roll_back(&mark);
        assert_eq!(free(), before);
        assert!(tx.is_empty() && tx.freed_metadata.is_empty() && tx.freed_data.is_empty());
        assert_eq!(tx.allocated[..], [Run { start: kept, blocks: 1 }]);
    }

    #[test]
    fn a_record_that_is_too_large_is_refused() {
        let medium = Medium::anonymous(4 << 20, Domain::Volatile).unwrap();
        Fs::format(&medium, &crate::FormatOptions::default()).unwrap();
        let fs = Fs::open(medium, &crate::OpenOptions::default()).unwrap();
        let mut tx = Tx::begin(&fs).unwrap();
        let block = tx.allocate_metadata_block(false).unwrap();
        while tx.record.len() <= RECORD_SIZE_MAX {
            tx.put(block * BLOCK_SIZE, &[1; 1024]);
        }
        assert_eq!(tx.commit().map_err(|error| error.errno()), Err(Errno::TOOBIG));
        assert!(!fs.is_latched());
    }

    #[test]
    fn what_changes_nothing_but_data_is_made_durable_by_a_sync() {
        let (medium, recording) = Medium::recording(4 << 20, Domain::Page).unwrap();
        Fs::format(&medium, &crate::FormatOptions::default()).unwrap();
        let fs = Fs::open(medium, &crate::OpenOptions::default()).unwrap();
        let mut tx = Tx::begin(&fs).unwrap();
        let block = tx.allocate_metadata_block(false).unwrap();
        fs.sync().unwrap();
        recording.take();
        tx.write_fresh(block * BLOCK_SIZE, &[1; 8]).unwrap();
        tx.commit().unwrap();
        fs.sync().unwrap();
        let events = recording.take();
        assert!(events.iter().any(|event| matches!(event.what, What::Sync { .. })), "{events:?}");
    }

    #[test]
    fn blocks_of_a_record_that_may_be_there_go_to_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        lodefs_pmem::create_file(&path, 4 << 20, Reserve::Full).unwrap();
        let options = OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::Volatile) };
        let open = || Medium::open(&path, &options).unwrap();
        Fs::format(&open(), &crate::FormatOptions::default()).unwrap();
        let fs = Fs::open(open(), &crate::OpenOptions::default()).unwrap();
        let mut tx = Tx::begin(&fs).unwrap();
        let block = tx.allocate_metadata_block(false).unwrap();
        tx.put(block * BLOCK_SIZE, &[1; 8]);
        let free = fs.blocks.counts().free;
        // The record goes to a page that is lost.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        tx.commit().unwrap_err();
        assert!(fs.is_latched());
        assert_eq!(fs.blocks.counts().free, free);
    }
}
