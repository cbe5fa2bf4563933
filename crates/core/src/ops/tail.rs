//! Tails: files to which a program appends by itself.
//!
//! A program that may write a file by itself can have blocks *reserved* behind the file's end, and then appends to them with no message:
//! as long as it has the file, the file's size is counted on in a *word* of the medium. The inode says where its word is
//! ([`InodeSlot::tail`](lodefs_layout::inode::InodeSlot::tail)).
//!
//! - The word has the file's size, durably, before the record that makes the inode point to it, with the reserved blocks.
//! - A program stores bytes behind the end, makes them durable, then replaces the word, if it is still what it was, and makes
//!   that durable: from then on the file is longer.
//! - A tail is *settled* before anybody else uses the file's content or size: a mark in the word says that it is not to be replaced any
//!   more, which a program finds that was given up on in the midst of an append; and in one record the inode gets the size that
//!   the word has, and lets go of the word and of the blocks behind the end.
//! - Recovery settles all tails before the volume is used, so nobody has got the blocks of words by then (`lease::words`).
//!
//! What a crash can tear: an append whose word was not replaced is not there, though some of its bytes may be, behind the end in the
//! block that the end is in, where they mean nothing (`ops::write`).

use std::ops::Range;

use lodefs_layout::inode::{InodeSlot, TAIL_REVOKED};
use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use lodefs_pmem::Durable;
use rustix::io::Errno;
use zerocopy::little_endian::U64;

use super::locked::LockedInode;
use crate::error::{Error, Result, ensure};
use crate::extents::ExtentMap;
use crate::extents::map::Edits;
use crate::fs::Fs;
use crate::inode::{InodeState, Node, kind_of};
use crate::lease::{is_asked, recall_end};
use crate::tx::Tx;
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// Blocks that are reserved at first, and at most at a time, if no more are asked for: as many again as have been.
const RESERVED_MIN: u64 = 16;
const RESERVED_MAX: u64 = 512;
/// The part of what is free that is reserved at most, if no more is asked for: on a volume that is nearly full, nobody shall lack what lies idle.
const RESERVED_PART: u64 = 64;
/// Runs of blocks that are reserved at a time: what is left of them is given back in one record.
const RUNS_MAX: usize = 4;
/// Extents that are freed in one record when a tail is settled.
const PLACES_MAX: usize = 64;

/// In place of a lease: a program did before a crash.
const AFTER_CRASH: u64 = 0;

/// A program appends to a file by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// By which lease.
    pub(crate) lease: u64,
    /// Where the word is.
    pub(crate) word: u64,
    /// Behind the last block that is reserved.
    pub(crate) end: u64,
    /// Blocks that may be mapped somewhere, so that the file is not shorter.
    pub(crate) shown: u64,
}

/// What the slots on an open volume may say about words that a crash has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllowedTails {
    /// Nothing: the volume was closed, when all of them were settled.
    None,
    /// That a word is where one can be.
    Possible,
    /// Anything: it is being repaired.
    Any,
}

impl AllowedTails {
    pub(crate) fn allow(self, volume: &Volume, slot: &InodeSlot) -> bool {
        match self {
            _ if slot.tail.get() == 0 => true,
            Self::None => false,
            Self::Possible => word_of(volume, slot).is_some(),
            Self::Any => true,
        }
    }
}

impl Fs {
    /// The size of a file, wherever it is counted.
    pub(crate) fn size_of(&self, state: &InodeState) -> Result<u64> {
        match &state.tail {
            Some(tail) => Ok(tail.sensible(state, self.volume.medium.word(tail.word)?)),
            None => Ok(state.slot.size.get()),
        }
    }

    /// Has blocks reserved for the program with this lease, so that bytes up to `end` can be appended, and makes the file be counted
    /// on in a word. PERM if there are blocks behind the end that are the file's own.
    pub(crate) fn reserve_tail(&self, locked: &mut LockedInode<'_>, lease: u64, end: u64) -> Result<()> {
        ensure(end <= FILE_SIZE_MAX, Errno::FBIG)?;
        if locked.state.tail.is_none() {
            self.leave_reached_block(locked, end)?;
        }
        let last = end_of(locked.state.extents(&self.volume, locked.inode.ino)?);
        let size_end = locked.state.slot.size.get().div_ceil(BLOCK_SIZE);
        let from = if let Some(tail) = &locked.state.tail {
            tail.end
        } else {
            ensure(last <= size_end, Errno::PERM)?;
            size_end
        };
        let wanted = end.div_ceil(BLOCK_SIZE);
        if wanted <= from && locked.state.tail.is_some() {
            return Ok(());
        }
        let had = from - size_end.min(from);
        let ahead = had.clamp(RESERVED_MIN, RESERVED_MAX).min(self.space().blocks_available / RESERVED_PART);
        let to = wanted.max(from + ahead).min(FILE_SIZE_MAX / BLOCK_SIZE);
        let reserved = self.reserve(locked, lease, from..to, wanted);
        if reserved.is_err() {
            locked.forget_changes();
        }
        reserved
    }

    /// Reserves blocks; if they lie in too many places, only the first of them, up to `wanted` at least.
    fn reserve(
        &self,
        locked: &mut LockedInode<'_>,
        lease: u64,
        blocks: Range<u64>,
        wanted: u64,
    ) -> Result<()> {
        let tx = Tx::begin(self)?;
        let present = locked.state.tail;
        let word = if let Some(tail) = present {
            tail.word
        } else {
            // Before the blocks: these may be all that are left.
            let (word, durable) = self.take_word(locked.state.slot.size.get())?;
            locked.count_on(word, &durable);
            word
        };
        match self.reserve_blocks(tx, locked, blocks, wanted) {
            Ok(end) => {
                let shown = present.map_or(0, |tail| tail.shown);
                locked.state.tail = Some(Tail { lease, word, end, shown });
                // It may become longer at any time.
                let size_end = locked.state.slot.size.get() / BLOCK_SIZE;
                recall_end(&mut locked.state, size_end);
            }
            Err(error) => {
                if present.is_none() {
                    // If the medium has failed, the record may be there all the same.
                    self.give_word_back(word, !matches!(error, Error::Refused(_)));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Says where the reserved blocks end.
    fn reserve_blocks(
        &self,
        mut tx: Tx<'_>,
        locked: &mut LockedInode<'_>,
        blocks: Range<u64>,
        wanted: u64,
    ) -> Result<u64> {
        let mut edits = Edits::new();
        let mut next = blocks.start;
        for _ in 0..RUNS_MAX {
            if next >= blocks.end {
                break;
            }
            next += self.allocate_extent(&mut tx, locked, next, blocks.end - next, &mut edits)?.blocks;
        }
        ensure(next >= wanted, Errno::NOSPC)?;
        self.put_extents(&mut tx, locked, &edits, false)?;
        locked.commit(tx)?;
        Ok(next)
    }

    /// Settles the tail of a locked file, if it has one. Nobody may write to it by himself any more.
    pub(crate) fn settle_tail(&self, locked: &mut LockedInode<'_>) -> Result<()> {
        let Some(tail) = locked.state.tail else { return Ok(()) };
        let word = match tail.lease {
            // Nobody is there to replace it, and an image may say that it is anywhere.
            AFTER_CRASH => self.volume.medium.word(tail.word)?,
            _ => self.volume.medium.mark_word(tail.word, TAIL_REVOKED.to_le())?,
        };
        let size = tail.sensible(&locked.state, word);
        if self.check_writable().is_err() {
            // For whoever reads. The next open settles it.
            locked.state.slot.size = U64::new(size);
            locked.slot = locked.state.slot;
            locked.state.tail = None;
            return Ok(());
        }
        let settled = self.settle_at(locked, size);
        if settled.is_err() {
            locked.forget_changes();
            return settled;
        }
        locked.state.tail = None;
        if tail.lease != AFTER_CRASH {
            self.give_word_back(tail.word, is_asked(&locked.state, tail.lease));
        }
        Ok(())
    }

    /// Gives a file its size, frees what is behind it, and lets go of the word. So much is freed at a time as a record has room for: then no
    /// block is allocated, of which there may be none, and which may be that of a word that was not read yet.
    fn settle_at(&self, locked: &mut LockedInode<'_>, size: u64) -> Result<()> {
        let end = size.div_ceil(BLOCK_SIZE);
        loop {
            let from = last_places(locked.state.extents(&self.volume, locked.inode.ino)?, end);
            let mut tx = Tx::begin(self)?;
            self.unmap(&mut tx, locked, from, u64::MAX)?;
            if from == end {
                locked.slot.size = U64::new(size);
                locked.slot.tail = U64::ZERO;
                return locked.commit(tx);
            }
            locked.commit(tx)?;
        }
    }

    /// Lets a file, which is counted on in a word that is not to be believed, have the size that it says by itself.
    pub(crate) fn forget_tail(&self, node: &Node) -> Result<()> {
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let size = locked.state.slot.size.get();
        self.settle_at(&mut locked, size)
    }

    /// Settles what a crash has left.
    pub(crate) fn settle_after_crash(&self, node: &Node) -> Result<()> {
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let Some(word) = word_of(&self.volume, &locked.state.slot) else { return Ok(()) };
        let end = end_of(locked.state.extents(&self.volume, node.ino())?);
        locked.state.tail = Some(Tail { lease: AFTER_CRASH, word, end, shown: 0 });
        self.settle_tail(&mut locked)
    }
}

impl Tail {
    fn sensible(&self, state: &InodeState, word: u64) -> u64 {
        sensible(state, self.shown, self.end, word)
    }
}

impl LockedInode<'_> {
    /// From now on the file's size is what a word says that has it durably.
    fn count_on(&mut self, word: u64, _durable: &Durable) {
        self.slot.tail = U64::new(word);
    }
}

/// Gives an inode that was just read the size that a crash has left in a word, or a program that appended when the volume could not be written
/// to any more. Where nothing can be written it is not settled.
pub(crate) fn apply_after_crash(volume: &Volume, ino: Ino, state: &mut InodeState) -> Result<()> {
    let Some(word) = word_of(volume, &state.slot) else { return Ok(()) };
    let word = volume.medium.word(word)?;
    let end = end_of(state.extents(volume, ino)?);
    state.slot.size = U64::new(sensible(state, 0, end, word));
    Ok(())
}

/// Where the word of a file is, which was not settled: only where one can be.
pub(crate) fn word_of(volume: &Volume, slot: &InodeSlot) -> Option<u64> {
    place_of_word(volume, slot).filter(|_| kind_of(slot) == Kind::File)
}

/// The same, whatever else is in the slot.
pub(crate) fn place_of_word(volume: &Volume, slot: &InodeSlot) -> Option<u64> {
    let at = slot.tail.get();
    let can_be = at != 0 && at.is_multiple_of(size_of::<u64>() as u64) && volume.holds_block(at / BLOCK_SIZE);
    can_be.then_some(at)
}

/// What a word says, if it can be so: it is another process's.
fn sensible(state: &InodeState, shown: u64, end: u64, word: u64) -> u64 {
    let said = u64::from_le(word) & !TAIL_REVOKED;
    let least = state.slot.size.get().max(shown.saturating_mul(BLOCK_SIZE));
    let most = end.saturating_mul(BLOCK_SIZE).min(FILE_SIZE_MAX);
    if (least..=most).contains(&said) {
        return said;
    }
    // Whoever says so may say it as often as he likes.
    tracing::debug!(
        ino = state.slot.ino.get(),
        said,
        "nonsense about a file's size, which stays what it was"
    );
    least
}

/// Behind the last block of a file.
fn end_of(map: &ExtentMap) -> u64 {
    map.neighbours(u64::MAX).0.map_or(0, |last| last.logical_end())
}

/// The block from which on a file has so many extents as one record can let go of; at least `end`.
fn last_places(map: &ExtentMap, end: u64) -> u64 {
    map.start_from_end(PLACES_MAX - 1).map_or(end, |start| start.max(end))
}
