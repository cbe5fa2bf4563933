//! Where inodes are stored, and which numbers are free.
//!
//! Which slots of a chunk are free is found out by looking at them when a number is needed, and then kept in memory;
//! nothing about it is stored, so nothing can go stale. A chunk is looked at, at the latest, before the first of its
//! numbers becomes free: else the number might be found free before it is given back, and be given out twice.

use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_BLOCKS, CHUNK_INODES, ENTRY_SIZE, Entry, Found};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::sync::Mutex;
use crate::tx::{Tx, offset_of};
use crate::types::Ino;
use crate::volume::Volume;

/// Bits of the slots of a chunk: 1 is free.
type FreeBits = [u64; (CHUNK_INODES / 64) as usize];

#[derive(Default)]
struct TableState {
    /// For each chunk: its free slots, if they were looked at.
    chunks: Vec<Option<FreeBits>>,
    /// Chunks that may have free slots; looked at from the end.
    candidates: Vec<u32>,
    used: u64,
}

pub(crate) struct InodeTable {
    state: Mutex<TableState>,
}

impl InodeTable {
    /// The table of a volume with `used` inodes in use. `hint` is the chunk to look at first.
    pub(crate) fn open(volume: &Volume, used: u64, hint: u64) -> Result<Self> {
        let count = chunk_count(volume)?;
        let mut candidates: Vec<u32> = (0..count as u32).collect();
        if hint < count {
            candidates.swap(hint as usize, count as usize - 1);
        }
        let state = TableState { chunks: vec![None; count as usize], candidates, used };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Inodes in use.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// The chunk where the next search should start.
    pub(crate) fn hint(&self) -> u64 {
        self.state.lock().candidates.last().copied().unwrap_or_default().into()
    }

    /// Prepares for a number that is in use to be given back. Comes before whatever makes its slot free.
    pub(crate) fn expect_back(&self, volume: &Volume, ino: Ino) -> Result<()> {
        self.state.lock().free_bits(volume, ino.0 / CHUNK_INODES).map(drop)
    }

    /// Takes a free number. The caller stores the inode there, or gives the number back.
    pub(crate) fn take(&self, fs: &Fs) -> Result<Ino> {
        let mut state = self.state.lock();
        loop {
            let Some(&chunk) = state.candidates.last() else {
                add_chunk(fs, &mut state)?;
                continue;
            };
            let Some(index) = take_bit(state.free_bits(&fs.volume, u64::from(chunk))?) else {
                state.candidates.pop();
                continue;
            };
            state.used += 1;
            return Ok(Ino(u64::from(chunk) * CHUNK_INODES + index));
        }
    }

    /// Gives a number back that was taken, or expected back.
    pub(crate) fn give_back(&self, ino: Ino) {
        let (chunk, index) = (ino.0 / CHUNK_INODES, ino.0 % CHUNK_INODES);
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(1);
        let Some(Some(bits)) = state.chunks.get_mut(chunk as usize) else { return };
        let was_full = bits.iter().all(|word| *word == 0);
        bits[(index / 64) as usize] |= 1 << (index % 64);
        if was_full {
            state.candidates.push(chunk as u32);
        }
    }

    /// Heap bytes in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        let state = self.state.lock();
        state.chunks.capacity() * size_of::<Option<FreeBits>>() + state.candidates.capacity() * 4
    }
}

impl TableState {
    /// The free slots of a chunk that exists (STALE if it does not), looked at if they were not yet.
    fn free_bits(&mut self, volume: &Volume, chunk: u64) -> Result<&mut FreeBits> {
        let slot = self.chunks.get_mut(chunk as usize).ok_or(Errno::STALE)?;
        match slot {
            Some(bits) => Ok(bits),
            None => Ok(slot.insert(look_at(volume, chunk)?)),
        }
    }
}

fn take_bit(bits: &mut FreeBits) -> Option<u64> {
    let word = bits.iter().position(|word| *word != 0)?;
    let bit = bits[word].trailing_zeros();
    bits[word] &= bits[word] - 1;
    Some(word as u64 * 64 + u64::from(bit))
}

/// Finds the free slots of a chunk. Number zero is never free.
fn look_at(volume: &Volume, chunk: u64) -> Result<FreeBits> {
    let mut bits = FreeBits::default();
    let start = chunk_offset(volume, chunk)?;
    for index in 0..CHUNK_INODES {
        let mode: [u8; 4] = volume.get(start + index * SLOT_SIZE as u64 + 4)?;
        if mode == [0; 4] && (chunk, index) != (0, 0) {
            bits[(index / 64) as usize] |= 1 << (index % 64);
        }
    }
    Ok(bits)
}

fn add_chunk(fs: &Fs, state: &mut TableState) -> Result<()> {
    let index = state.chunks.len() as u64;
    ensure(index < fs.volume.shape.inode_chunks_max, Errno::NOSPC)?;
    let mut tx = Tx::begin(fs)?;
    let request = Request {
        blocks: CHUNK_BLOCKS,
        goal: None,
        align: None,
        contiguous: true,
        purpose: Purpose::Metadata,
    };
    let run = tx.allocate(&request)?;
    tx.zero_fresh(offset_of(run.start), run.blocks * lodefs_layout::BLOCK_SIZE)?;
    put_entry(&mut tx, &fs.volume, index, run);
    tx.commit()?;
    let mut bits = [u64::MAX; (CHUNK_INODES / 64) as usize];
    if index == 0 {
        bits[0] &= !1;
    }
    state.chunks.push(Some(bits));
    state.candidates.push(index as u32);
    Ok(())
}

fn put_entry(tx: &mut Tx<'_>, volume: &Volume, index: u64, run: Run) {
    tx.put(entry_offset(volume, index), Entry::new(index, run.start, volume.seed).as_bytes());
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
        Found::At(block) if volume.holds(Run { start: block, blocks: CHUNK_BLOCKS }) => Ok(offset_of(block)),
        Found::At(_) => Err(damaged("it points outside of the volume")),
        Found::Damaged => Err(damaged("wrong checksum")),
        Found::Absent => Err(Error::Refused(Errno::STALE)),
    }
}

/// Number of chunks: they are added in order, so the last one is found by halving.
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
        Some(fault) => Err(Error::corrupt_inode(ino, fault)),
        None => Ok((offset, slot)),
    }
}
