//! Building the allocator when a volume is opened: from the bitmap of a clean unmount, or from the inodes.

use lodefs_layout::CHUNK_BLOCKS;
use lodefs_sync::Mutex;

use super::bitmap::{ChunkBits, WORDS};
use super::chunks::{Chunks, pieces};
use super::deferred::Deferred;
use super::placer::Placer;
use super::{BlockAllocator, Run, State};

/// Why a run cannot be marked as used. The volume contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MarkError {
    /// The run reaches beyond the end of the volume.
    #[error("blocks {0} lie beyond the end of the volume")]
    OutOfRange(Run),
    /// A block of the run has been marked before.
    #[error("blocks {0} overlap blocks that are in use already")]
    Overlap(Run),
}

/// The saved bitmap is shorter than the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bitmap has {found} words, but the volume needs {needed}")]
pub(crate) struct TooFewWords {
    /// Words that were there.
    pub(crate) found: u64,
    /// Words that the volume needs.
    pub(crate) needed: u64,
}

/// An allocator in the making: nobody allocates yet.
///
/// Takes 64 bytes of memory for each 2 MiB of the volume (the finished allocator 74), so the caller must know
/// beforehand that the medium is as large as `total_blocks` says.
#[derive(Debug)]
pub(crate) struct Builder {
    total_blocks: u64,
    bits: Vec<ChunkBits>,
}

impl Builder {
    /// A volume on which all blocks are free.
    pub(crate) fn new(total_blocks: u64) -> Self {
        Self::filled(total_blocks, ChunkBits::FREE)
    }

    /// A volume on which all blocks are in use.
    #[cfg(test)]
    pub(super) fn all_used(total_blocks: u64) -> Self {
        Self::filled(total_blocks, ChunkBits::USED)
    }

    fn filled(total_blocks: u64, content: ChunkBits) -> Self {
        let chunks = total_blocks.div_ceil(CHUNK_BLOCKS) as usize;
        Self { total_blocks, bits: vec![content; chunks] }
    }

    /// A volume with the bitmap that [`BlockAllocator::words`] returned; what follows the last word that the
    /// volume needs is ignored.
    pub(crate) fn from_words(
        total_blocks: u64,
        words: impl Iterator<Item = u64>,
    ) -> Result<Self, TooFewWords> {
        let needed = total_blocks.div_ceil(64);
        let mut found = 0;
        let mut words = words.take(needed as usize).inspect(|_| found += 1);
        let chunks = total_blocks.div_ceil(CHUNK_BLOCKS);
        let bits = (0..chunks)
            .map(|_| ChunkBits::from_words(std::array::from_fn::<_, WORDS, _>(|_| words.next().unwrap_or(0))))
            .collect();
        drop(words);
        if found < needed {
            return Err(TooFewWords { found, needed });
        }
        Ok(Self { total_blocks, bits })
    }

    /// Marks a run as used. Changes nothing if the run is not entirely free.
    pub(crate) fn mark_used(&mut self, run: Run) -> Result<(), MarkError> {
        if !run.lies_within(self.total_blocks) {
            return Err(MarkError::OutOfRange(run));
        }
        if !pieces(run).all(|(chunk, start, len)| self.bits[chunk].all_free(start, len)) {
            return Err(MarkError::Overlap(run));
        }
        for (chunk, start, len) in pieces(run) {
            self.bits[chunk].set(start, len);
        }
        Ok(())
    }

    /// Whether a block is marked, or lies beyond the end.
    #[cfg(test)]
    pub(crate) fn is_used(&self, block: u64) -> bool {
        block >= self.total_blocks
            || self.bits[(block / CHUNK_BLOCKS) as usize].is_used((block % CHUNK_BLOCKS) as usize)
    }

    /// The allocator. The last `reserve_blocks` free blocks are kept for [`Purpose::Reclaim`](super::Purpose).
    pub(crate) fn finish(mut self, reserve_blocks: u64) -> BlockAllocator {
        let behind_end = (self.total_blocks % CHUNK_BLOCKS) as usize;
        if behind_end > 0
            && let Some(last) = self.bits.last_mut()
        {
            last.set(behind_end, CHUNK_BLOCKS as usize - behind_end);
        }
        let chunks = Chunks::new(self.bits);
        let placer = Placer::new(chunks.len());
        let state = State { chunks, placer, deferred: Deferred::default() };
        BlockAllocator { total_blocks: self.total_blocks, reserve_blocks, state: Mutex::new(state) }
    }
}
