//! Which blocks of the volume are free, and which of them to use next.
//!
//! The allocator lives in memory only. It is saved as a bitmap at a clean unmount and rebuilt from the inodes
//! after a crash ([`Builder`]), so nothing here is journaled: a block is in use on the medium exactly when an
//! inode that can be reached owns it.
//!
//! The volume is divided into chunks of 512 blocks, which are 2 MiB and aligned to that on the volume. Whole free
//! chunks are kept whole for large files; small requests are served from chunks that are broken already
//! (`placer` says how). Operations take a few steps, on a volume of any size: chunks are sorted into bins by
//! how many free blocks they have, and a bin is a tree that finds its next chunk at once.
//!
//! Invariants:
//! - a block is handed out only while it is free, and a freed run is checked against the bitmap before anything
//!   changes, so a caller's mistake is reported and cannot make two files share a block;
//! - blocks whose reuse is deferred are in use for every search, but free for [`BlockAllocator::counts`] and
//!   [`BlockAllocator::words`].
//!
//! One mutex guards everything. It is a leaf: nothing is called with it held.

mod bitmap;
mod builder;
mod chunk_set;
mod chunks;
mod deferred;
mod placer;

#[cfg(test)]
mod ageing;
#[cfg(test)]
mod tests;

use std::fmt;

use lodefs_layout::CHUNK_BLOCKS;
use lodefs_sync::Mutex;

pub(crate) use builder::Builder;

use bitmap::CHUNK;
use chunks::{Chunks, Kind, pieces};
use deferred::Deferred;
use placer::{Placer, Wish};

/// Deferred runs that are released before others get the lock.
const RELEASE_BATCH: usize = 256;

/// Adjacent blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run {
    /// First block, counted from the start of the volume.
    pub(crate) start: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
}

impl Run {
    /// The block behind the last one. The run must lie on a volume.
    pub(crate) fn end(self) -> u64 {
        self.start + self.blocks
    }

    fn lies_within(self, total_blocks: u64) -> bool {
        self.start.checked_add(self.blocks).is_some_and(|end| end <= total_blocks)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.blocks)
    }
}

/// What blocks are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Content of files.
    Data,
    /// Inodes, extent blocks, directories, blobs: kept in chunks of their own.
    Metadata,
    /// Metadata without which nothing could be freed. Only it may use the reserve.
    Reclaim,
}

/// What is wanted of [`BlockAllocator::allocate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// The best first block: the one behind the file's last extent. In a large file with holes, the one that lies
    /// to a neighbour in the same 2 MiB of the file as the logical blocks lie to each other. None if there is
    /// nothing to lie beside.
    pub goal: Option<u64>,
    /// The wish that `start % 512` be this number modulo 512: that of the logical block for which the run is
    /// meant. With it 2 MiB pages can map the file, so give it for what fills 2 MiB or probably will; not for the
    /// end of a file whose size is known. Even a small request then gets a whole chunk, unless it continues in one
    /// at its goal, or most free space is scattered already.
    pub align: Option<u64>,
    /// All blocks in one run, or nothing.
    pub(crate) contiguous: bool,
    /// What they are wanted for.
    pub(crate) purpose: Purpose,
}

/// How the blocks of the volume are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Blocks on the volume.
    pub(crate) total: u64,
    /// Blocks that no inode owns, the deferred ones included.
    pub(crate) free: u64,
    /// Free blocks that may not be reused yet.
    pub(crate) deferred: u64,
    /// Blocks that only [`Purpose::Reclaim`] may use.
    pub(crate) reserve: u64,
    /// Chunks of 2 MiB that are entirely free.
    pub(crate) whole_chunks_free: u64,
}

/// Why a run cannot be freed. The caller is mistaken; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FreeError {
    /// The run reaches beyond the end of the volume.
    #[error("blocks {0} lie beyond the end of the volume")]
    OutOfRange(Run),
    /// A block of the run is free, or its reuse deferred, already.
    #[error("blocks {0} are not all in use")]
    NotInUse(Run),
}

#[derive(Debug)]
struct State {
    chunks: Chunks,
    placer: Placer,
    deferred: Deferred,
}

/// The allocator of a volume's blocks.
#[derive(Debug)]
pub(crate) struct BlockAllocator {
    total_blocks: u64,
    reserve_blocks: u64,
    state: Mutex<State>,
}

impl BlockAllocator {
    /// A volume on which all blocks are in use, and nothing is reserved.
    #[cfg(test)]
    pub(crate) fn all_used(total_blocks: u64) -> Self {
        Builder::all_used(total_blocks).finish(0)
    }

    /// Allocates one run of 1 to `request.blocks` blocks; the caller asks again for the rest. None if there is no
    /// free block, or no run that is long enough for a contiguous request.
    pub(crate) fn allocate(&self, request: &Request) -> Option<Run> {
        let state = &mut *self.state.lock();
        let free = state.chunks.free_blocks();
        let kept = if request.purpose == Purpose::Reclaim { 0 } else { self.reserve_blocks };
        let blocks = request.blocks.min(free.saturating_sub(kept));
        if blocks == 0 || (request.contiguous && blocks < request.blocks) {
            return None;
        }
        let kind = if request.purpose == Purpose::Data { Kind::Data } else { Kind::Metadata };
        let wish = Wish {
            blocks,
            goal: request.goal,
            phase: request.align.map(|align| (align % CHUNK_BLOCKS) as usize),
            contiguous: request.contiguous,
            kind,
        };
        let run = state.placer.find(&mut state.chunks, &wish)?;
        state.chunks.take(run, wish.breaks_into());
        Some(run)
    }

    /// Frees a run of used blocks; they may be reused at once.
    pub(crate) fn free(&self, run: Run) -> Result<(), FreeError> {
        let mut state = self.state.lock();
        self.check_used(&state, run)?;
        state.put(run);
        Ok(())
    }

    /// Frees a run of used blocks that may be reused only after [`Self::release_deferred`] of `epoch`.
    pub(crate) fn defer_free(&self, run: Run, epoch: u64) -> Result<(), FreeError> {
        let mut state = self.state.lock();
        self.check_used(&state, run)?;
        if run.blocks > 0 {
            state.deferred.push(run, epoch);
        }
        Ok(())
    }

    /// Lets the blocks be reused that were freed with an epoch not above `up_to_epoch`.
    pub(crate) fn release_deferred(&self, up_to_epoch: u64) {
        loop {
            let mut state = self.state.lock();
            for _ in 0..RELEASE_BATCH {
                let Some(run) = state.deferred.pop(up_to_epoch) else { return };
                state.put(run);
            }
        }
    }

    /// How the blocks of the volume are used.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock();
        let deferred = state.deferred.blocks();
        Counts {
            total: self.total_blocks,
            free: state.chunks.free_blocks() + deferred,
            deferred,
            reserve: self.reserve_blocks,
            whole_chunks_free: state.chunks.whole_chunks(),
        }
    }

    /// Heap bytes in use, roughly: a bitmap and a few counters for each chunk.
    pub(crate) fn memory(&self) -> usize {
        self.total_blocks.div_ceil(CHUNK_BLOCKS) as usize * 80
    }

    /// The bitmap: a bit for each block, least significant first, set if the block is in use. Deferred blocks are
    /// free. Bits behind the end of the volume are zero.
    pub(crate) fn words(&self) -> Vec<u64> {
        let state = self.state.lock();
        let mut chunks = state.chunks.bits().to_vec();
        for (chunk, start, len) in state.deferred.runs().flat_map(pieces) {
            chunks[chunk].clear(start, len);
        }
        drop(state);
        let behind_end = self.total_blocks as usize % CHUNK;
        if behind_end > 0
            && let Some(last) = chunks.last_mut()
        {
            last.clear(behind_end, CHUNK - behind_end);
        }
        chunks.iter().flat_map(|bits| *bits.words()).take(self.total_blocks.div_ceil(64) as usize).collect()
    }

    /// Whether a block is in use, its reuse is deferred, or it lies beyond the end of the volume.
    #[cfg(test)]
    pub(crate) fn is_used(&self, block: u64) -> bool {
        block >= self.total_blocks
            || self.state.lock().chunks.bits()[(block / CHUNK_BLOCKS) as usize]
                .is_used((block % CHUNK_BLOCKS) as usize)
    }

    fn check_used(&self, state: &State, run: Run) -> Result<(), FreeError> {
        if !run.lies_within(self.total_blocks) {
            return Err(FreeError::OutOfRange(run));
        }
        // An empty run overlaps with nothing, wherever it is.
        let is_used = run.blocks == 0 || (state.chunks.all_used(run) && !state.deferred.overlaps(run));
        if !is_used {
            return Err(FreeError::NotInUse(run));
        }
        Ok(())
    }
}

impl State {
    fn put(&mut self, run: Run) {
        self.chunks.put(run);
        self.placer.freed();
    }
}
