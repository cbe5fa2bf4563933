//! The table of chunks: their bitmaps, what is known of each, and the bins in which they are found.
//!
//! Invariants:
//! - `free` of a chunk is the number of clear bits in its bitmap, and `free_blocks` is the sum over all chunks;
//! - `longest` is never below the length of the chunk's longest free run (it may be above: a failed search
//!   corrects it);
//! - a chunk is in the bin that `Info::bin` says, and in no other. Chunks without a free block, and open
//!   chunks, are in none;
//! - bits behind the end of the volume are set, so nothing ever finds them.

use super::Run;
use super::bitmap::{CHUNK, ChunkBits, FreeRun};
use super::chunk_set::ChunkSet;

/// What a chunk holds. Metadata lives longer than most data; apart, it does not keep data's chunks from
/// becoming whole again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Metadata,
    /// Parts of large files. Left alone, such a chunk is whole again when its file goes.
    Large,
}

const KINDS: usize = 3;

/// Classes of partially free chunks: the base-2 logarithm of the number of free blocks, 1 to 511.
pub(super) const CLASSES: usize = 9;
/// A bin for each class of each kind, and one for whole chunks.
pub(super) const BINS: usize = KINDS * CLASSES + 1;
const WHOLE: usize = BINS - 1;

/// The bin for partially free chunks of a kind and class.
pub(super) fn bin_of(kind: Kind, class: usize) -> usize {
    kind as usize * CLASSES + class
}

/// Where in a chunk a search puts its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// At the first run that is long enough: packs small files without gaps.
    First,
    /// At the longest run: leaves room for a file that grows.
    Longest,
}

/// What is known of a chunk beside its bitmap.
#[derive(Clone, Copy, Debug)]
struct Info {
    free: u16,
    longest: u16,
    kind: Kind,
    /// Some slot of the placer fills this chunk, so it is hidden from the others.
    open: bool,
}

const _: () = assert!(size_of::<Info>() == 6);

impl Info {
    fn bin(self) -> Option<usize> {
        match usize::from(self.free) {
            0 => None,
            CHUNK => Some(WHOLE),
            _ if self.open => None,
            free => Some(bin_of(self.kind, free.ilog2() as usize)),
        }
    }
}

/// All chunks of a volume.
#[derive(Debug)]
pub(super) struct Chunks {
    bits: Vec<ChunkBits>,
    infos: Vec<Info>,
    bins: [ChunkSet; BINS],
    free_blocks: u64,
    whole: u64,
}

impl Chunks {
    /// Takes over bitmaps in which the bits behind the end of the volume are set.
    pub(super) fn new(bits: Vec<ChunkBits>) -> Self {
        let mut table = Self {
            infos: Vec::with_capacity(bits.len()),
            bins: std::array::from_fn(|_| ChunkSet::new(bits.len())),
            free_blocks: 0,
            whole: 0,
            bits,
        };
        for (chunk, bits) in table.bits.iter().enumerate() {
            let free = bits.count_free() as u16;
            let info = Info { free, longest: free, kind: Kind::Data, open: false };
            table.infos.push(info);
            table.free_blocks += u64::from(free);
            if let Some(bin) = info.bin() {
                table.bins[bin].insert(chunk);
                table.whole += u64::from(bin == WHOLE);
            }
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.bits.len()
    }

    pub(super) fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// Chunks of which every block is free.
    pub(super) fn whole_chunks(&self) -> u64 {
        self.whole
    }

    pub(super) fn bits(&self) -> &[ChunkBits] {
        &self.bits
    }

    pub(super) fn free_in(&self, chunk: usize) -> usize {
        usize::from(self.infos[chunk].free)
    }

    pub(super) fn is_whole(&self, chunk: usize) -> bool {
        self.free_in(chunk) == CHUNK
    }

    /// Whether the chunk holds parts of large files only.
    pub(super) fn is_large(&self, chunk: usize) -> bool {
        self.infos[chunk].kind == Kind::Large
    }

    /// The next partially free chunk, from `from` on, in a bin.
    pub(super) fn next_in_bin(&self, bin: usize, from: usize) -> Option<usize> {
        self.bins[bin].next(from)
    }

    /// The next whole chunk from `from` on.
    pub(super) fn next_whole(&self, from: usize) -> Option<usize> {
        self.bins[WHOLE].next(from)
    }

    /// How many whole chunks follow each other from `chunk` on, up to `max`.
    pub(super) fn whole_run(&self, chunk: usize, max: usize) -> usize {
        self.bins[WHOLE].run_from(chunk, max)
    }

    /// Whether every block of `run`, which lies on the volume, is in use.
    pub(super) fn all_used(&self, run: Run) -> bool {
        pieces(run).all(|(chunk, start, len)| self.bits[chunk].all_used(start, len))
    }

    /// A run of at least `need` free blocks in a chunk. Remembers what it learned if there is none.
    pub(super) fn find(&mut self, chunk: usize, need: usize, choice: Choice) -> Option<FreeRun> {
        if usize::from(self.infos[chunk].longest) < need {
            return None;
        }
        let mut longest = FreeRun { start: 0, len: 0 };
        for run in self.bits[chunk].free_runs() {
            if run.len >= need && choice == Choice::First {
                return Some(run);
            }
            if run.len > longest.len {
                longest = run;
            }
        }
        self.infos[chunk].longest = longest.len as u16;
        (longest.len >= need).then_some(longest)
    }

    /// Hides a chunk from the bins, because a slot fills it. A whole chunk, and one of a large file, is of `kind`
    /// from now on. A chunk does not stay open when it becomes whole.
    pub(super) fn open(&mut self, chunk: usize, kind: Kind) {
        self.change(chunk, |info| {
            info.open = true;
            if info.kind == Kind::Large || usize::from(info.free) == CHUNK {
                info.kind = kind;
            }
        });
    }

    pub(super) fn is_open(&self, chunk: usize) -> bool {
        self.infos[chunk].open
    }

    /// Shows an open chunk in its bin again.
    pub(super) fn close(&mut self, chunk: usize) {
        self.change(chunk, |info| info.open = false);
    }

    /// Marks free blocks as used. Whole chunks that are broken by it become chunks of `kind`, if not open.
    pub(super) fn take(&mut self, run: Run, kind: Kind) {
        for (chunk, start, len) in pieces(run) {
            debug_assert!(self.bits[chunk].all_free(start, len));
            self.bits[chunk].set(start, len);
            self.change(chunk, |info| {
                if usize::from(info.free) == CHUNK && !info.open {
                    info.kind = kind;
                }
                info.free -= len as u16;
            });
        }
        self.free_blocks -= run.blocks;
    }

    /// Marks used blocks as free.
    pub(super) fn put(&mut self, run: Run) {
        for (chunk, start, len) in pieces(run) {
            let bits = &mut self.bits[chunk];
            debug_assert!(bits.all_used(start, len));
            bits.clear(start, len);
            let joined = bits.free_before(start) + bits.free_from(start);
            self.change(chunk, |info| {
                info.free += len as u16;
                info.longest = info.longest.max(joined as u16);
                info.open &= usize::from(info.free) < CHUNK;
            });
        }
        self.free_blocks += run.blocks;
    }

    /// Changes what is known of a chunk and moves it to the bin where it then belongs.
    fn change(&mut self, chunk: usize, change: impl FnOnce(&mut Info)) {
        let info = &mut self.infos[chunk];
        let before = info.bin();
        change(info);
        let after = info.bin();
        if before == after {
            return;
        }
        if let Some(bin) = before {
            self.bins[bin].remove(chunk);
            self.whole -= u64::from(bin == WHOLE);
        }
        if let Some(bin) = after {
            self.bins[bin].insert(chunk);
            self.whole += u64::from(bin == WHOLE);
        }
    }

    /// Panics if an invariant of this module does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut free_blocks = 0;
        for (chunk, (bits, info)) in self.bits.iter().zip(&self.infos).enumerate() {
            assert_eq!(bits.count_free(), usize::from(info.free), "free count of chunk {chunk}");
            let longest = bits.free_runs().map(|run| run.len).max().unwrap_or(0);
            assert!(longest <= usize::from(info.longest), "longest run of chunk {chunk}");
            for (bin, set) in self.bins.iter().enumerate() {
                assert_eq!(set.contains(chunk), info.bin() == Some(bin), "chunk {chunk} in bin {bin}");
            }
            assert!(!info.open || usize::from(info.free) < CHUNK, "chunk {chunk} is open and whole");
            free_blocks += u64::from(info.free);
        }
        assert_eq!(self.free_blocks, free_blocks);
        assert_eq!(
            self.whole,
            self.infos.iter().filter(|info| usize::from(info.free) == CHUNK).count() as u64
        );
    }
}

/// Splits a run at the borders of chunks: chunk, first position in it, number of blocks.
pub(super) fn pieces(run: Run) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = run.start as usize;
    let end = run.end() as usize;
    std::iter::from_fn(move || {
        let (chunk, start) = (at / CHUNK, at % CHUNK);
        let len = (end - at).min(CHUNK - start);
        at += len;
        (len > 0).then_some((chunk, start, len))
    })
}
