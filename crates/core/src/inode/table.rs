//! Where inodes are stored, and which numbers are free.
//!
//! Which slots of a chunk are free is found out by looking at them when a number is needed, and then kept in memory;
//! nothing about it is stored, so nothing can go stale. A chunk is looked at, at the latest, before the first of its
//! numbers becomes free: else the number might be found free before it is given back, and be given out twice.
//!
//! A chunk whose slots are all free is given back. Its block is metadata, so it is not used again before no record of
//! the journal would be replayed to it.

use std::ops::Range;

use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry, Found};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::tx::{Tx, offset_of};
use crate::types::Ino;
use crate::volume::Volume;
use lodefs_sync::Mutex;

/// What is known of a chunk: the lower bits are its free slots. Zero: nothing yet.
type Known = u32;
/// All slots are free.
const ALL_FREE: Known = (1 << CHUNK_INODES) - 1;
/// The chunk was looked at.
const LOOKED_AT: Known = 1 << CHUNK_INODES;

/// Chunks that are looked at in vain before a new one is added.
const SEARCH: usize = 64;

struct TableState {
    chunks: Vec<Known>,
    /// A chunk to look at before the others.
    hint: Option<u64>,
    /// Chunks in which free slots were not searched yet.
    unsearched: Range<u64>,
    /// Chunks with free slots, and some that have been given back; the last one is used first.
    candidates: Vec<u32>,
    /// Chunks that have been given back.
    gone: Vec<u32>,
    used: u64,
}

pub(crate) struct InodeTable {
    state: Mutex<TableState>,
}

impl InodeTable {
    /// The table of a volume with `used` inodes in use. `hint` is the chunk to look at first.
    pub(crate) fn open(volume: &Volume, used: u64, hint: u64) -> Result<Self> {
        let count = chunk_count(volume)?;
        let state = TableState {
            chunks: vec![0; count as usize],
            hint: Some(hint).filter(|hint| *hint < count),
            unsearched: 0..count,
            candidates: Vec::new(),
            gone: Vec::new(),
            used,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Inodes in use.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// The chunk where the next search should start.
    pub(crate) fn hint(&self) -> u64 {
        let state = self.state.lock();
        state.candidates.last().map_or(state.unsearched.start, |chunk| u64::from(*chunk))
    }

    /// Prepares for a number that is in use to be given back. Comes before whatever makes its slot free.
    pub(crate) fn expect_back(&self, volume: &Volume, ino: Ino) -> Result<()> {
        self.state.lock().look_at(volume, ino.0 / CHUNK_INODES)
    }

    /// Takes a free number. The caller stores the inode there, or gives the number back.
    pub(crate) fn take(&self, fs: &Fs) -> Result<Ino> {
        let mut state = self.state.lock();
        loop {
            if let Some(ino) = state.take_known() {
                return Ok(ino);
            }
            if state.search(&fs.volume, SEARCH)? {
                continue;
            }
            match state.add_chunk(fs) {
                // There may be free slots yet.
                Err(error) if error.errno() == Errno::NOSPC && state.search(&fs.volume, usize::MAX)? => {}
                added => added?,
            }
        }
    }

    /// Gives a number back that was taken, or expected back. If its chunk is then empty, gives that back too.
    pub(crate) fn give_back(&self, fs: &Fs, ino: Ino) {
        let (chunk, index) = (ino.0 / CHUNK_INODES, ino.0 % CHUNK_INODES);
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(1);
        let Some(known) = state.chunks.get_mut(chunk as usize).filter(|known| **known != 0) else { return };
        let was_full = *known == LOOKED_AT;
        *known |= 1 << index;
        let is_empty = *known == LOOKED_AT | ALL_FREE;
        if was_full {
            state.candidates.push(chunk as u32);
        }
        if is_empty {
            state.release_chunk(fs, chunk);
        }
    }

    /// Repair has changed the map's entry of a chunk, which may be behind all that were known.
    pub(crate) fn forget_chunk(&self, chunk: u64) {
        let mut state = self.state.lock();
        let count = state.chunks.len().max(chunk as usize + 1);
        state.chunks.resize(count, 0);
        state.chunks[chunk as usize] = 0;
        state.candidates.retain(|candidate| u64::from(*candidate) != chunk);
        state.gone.retain(|gone| u64::from(*gone) != chunk);
        state.unsearched = 0..count as u64;
    }

    /// Heap bytes in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        let state = self.state.lock();
        (state.chunks.capacity() + state.candidates.capacity() + state.gone.capacity()) * size_of::<u32>()
    }
}

impl TableState {
    /// Takes a number of a chunk that is known to have one.
    fn take_known(&mut self) -> Option<Ino> {
        while let Some(&chunk) = self.candidates.last() {
            let known = &mut self.chunks[chunk as usize];
            let free = *known & ALL_FREE;
            // Without the lowest bit.
            *known = LOOKED_AT | free & free.wrapping_sub(1);
            if *known == LOOKED_AT {
                self.candidates.pop();
            }
            if free != 0 {
                self.used += 1;
                return Some(Ino(u64::from(chunk) * CHUNK_INODES + u64::from(free.trailing_zeros())));
            }
        }
        None
    }

    /// Looks at chunks until one has a free slot, at most `max`. Whether one has.
    fn search(&mut self, volume: &Volume, max: usize) -> Result<bool> {
        for _ in 0..max {
            let Some(chunk) = self.hint.take().or_else(|| self.unsearched.next()) else { break };
            self.look_at(volume, chunk)?;
            if !self.candidates.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the free slots of a chunk (STALE if it does not exist), if they are not known yet. Number zero is never
    /// free.
    fn look_at(&mut self, volume: &Volume, chunk: u64) -> Result<()> {
        let known = self.chunks.get_mut(chunk as usize).ok_or(Errno::STALE)?;
        if *known != 0 {
            return Ok(());
        }
        if find_chunk(volume, chunk)? == Found::Gone {
            *known = LOOKED_AT;
            self.gone.push(chunk as u32);
            return Ok(());
        }
        let start = chunk_offset(volume, chunk)?;
        let mut free = 0;
        for index in 0..CHUNK_INODES {
            let mode: [u8; 4] = volume.get(start + index * SLOT_SIZE as u64 + 4)?;
            if mode == [0; 4] && (chunk, index) != (0, 0) {
                free |= 1 << index;
            }
        }
        *known = LOOKED_AT | free;
        if free != 0 {
            self.candidates.push(chunk as u32);
        }
        Ok(())
    }

    /// Adds a chunk, with the number of one that has been given back if there is one.
    fn add_chunk(&mut self, fs: &Fs) -> Result<()> {
        let again = self.gone.last().copied();
        let index = again.map_or(self.chunks.len() as u64, u64::from);
        ensure(index < fs.volume.shape.inode_chunks_max, Errno::NOSPC)?;
        let mut tx = Tx::begin(fs)?;
        let request =
            Request { blocks: 1, goal: None, align: None, contiguous: true, purpose: Purpose::Metadata };
        let run = tx.allocate(&request)?;
        tx.zero_fresh(offset_of(run.start), lodefs_layout::BLOCK_SIZE)?;
        put_entry(&mut tx, &fs.volume, index, Entry::new(index, run.start, fs.volume.seed));
        tx.commit()?;
        let known = LOOKED_AT | if index == 0 { ALL_FREE & !1 } else { ALL_FREE };
        match self.gone.pop() {
            Some(_) => self.chunks[index as usize] = known,
            None => self.chunks.push(known),
        }
        self.candidates.push(index as u32);
        Ok(())
    }

    /// Gives back a chunk of which all slots are free. If that cannot be done (the volume has failed), it is kept.
    fn release_chunk(&mut self, fs: &Fs, chunk: u64) {
        let release = || -> Result<()> {
            let start = chunk_offset(&fs.volume, chunk)? / lodefs_layout::BLOCK_SIZE;
            let mut tx = Tx::begin(fs)?;
            put_entry(&mut tx, &fs.volume, chunk, Entry::gone(chunk, fs.volume.seed));
            tx.free_metadata(Run { start, blocks: 1 });
            tx.commit()
        };
        if release().is_ok() {
            // It may still be among the candidates, which are used up before a chunk with its number is added.
            self.chunks[chunk as usize] = LOOKED_AT;
            self.gone.push(chunk as u32);
        }
    }
}

fn put_entry(tx: &mut Tx<'_>, volume: &Volume, index: u64, entry: Entry) {
    tx.put(entry_offset(volume, index), entry.as_bytes());
}

fn entry_offset(volume: &Volume, index: u64) -> u64 {
    offset_of(volume.shape.inode_map_start) + index * ENTRY_SIZE
}

/// What the inode map says of chunk `index`.
pub(crate) fn find_chunk(volume: &Volume, index: u64) -> Result<Found> {
    let entry: Entry = volume.get(entry_offset(volume, index))?;
    Ok(entry.interpret(index, volume.seed))
}

/// Where chunk `index` starts, in bytes.
fn chunk_offset(volume: &Volume, index: u64) -> Result<u64> {
    let damaged = |fault| Error::Corrupt { object: format!("inode map entry {index}"), fault };
    if index >= volume.shape.inode_chunks_max {
        return Err(Error::Refused(Errno::STALE));
    }
    match find_chunk(volume, index)? {
        Found::At(block) if volume.holds_block(block) => Ok(offset_of(block)),
        Found::At(_) => Err(damaged("it points outside of the volume")),
        Found::Damaged => Err(damaged("wrong checksum")),
        Found::Absent | Found::Gone => Err(Error::Refused(Errno::STALE)),
    }
}

/// Number of chunks, with those that have been given back: they are added in order, so the last one is found by halving.
pub(crate) fn chunk_count(volume: &Volume) -> Result<u64> {
    let (mut present, mut absent) = (0, volume.shape.inode_chunks_max);
    while present < absent {
        let middle = present.midpoint(absent);
        if find_chunk(volume, middle)? == Found::Absent {
            absent = middle;
        } else {
            present = middle + 1;
        }
    }
    Ok(present)
}

/// Where the slot of `ino` is, in bytes; STALE if there can be none.
pub(crate) fn slot_offset(volume: &Volume, ino: Ino) -> Result<u64> {
    ensure(ino.0 != 0, Errno::STALE)?;
    Ok(chunk_offset(volume, ino.0 / CHUNK_INODES)? + ino.0 % CHUNK_INODES * SLOT_SIZE as u64)
}

/// Reads the slot of `ino`, checked if it is in use.
pub(crate) fn read_slot(volume: &Volume, ino: Ino) -> Result<(u64, InodeSlot)> {
    let offset = slot_offset(volume, ino)?;
    let slot: InodeSlot = volume.get(offset)?;
    if slot.is_free() {
        return Ok((offset, slot));
    }
    match super::check::fault_of(volume, ino, &slot) {
        // Its chunk may have been given back meanwhile, and its block be something else by now.
        Some(_) if slot_offset(volume, ino)? != offset => Err(Error::Refused(Errno::STALE)),
        Some(fault) => Err(Error::corrupt_inode(ino, fault)),
        None => Ok((offset, slot)),
    }
}
