//! Years of use in a second: files of mixed sizes come and go on a volume that is 70 % full, written in the ways in
//! which programs write, several at a time. Afterwards free space must still lie in whole chunks, large files must
//! lie so that 2 MiB pages can map them, and small files must not be scattered.

use super::bitmap::CHUNK;
use super::{BlockAllocator, Builder, Purpose, Request, Run};

const TOTAL_BLOCKS: u64 = 1 << 20;
const FULL_PERCENT: u64 = 70;
const FILES_WRITTEN_AT_ONCE: usize = 4;
const INODE_CHUNK_BLOCKS: u64 = 1;
/// How often files are deleted and others written. The volume is written anew about 15 times.
const ROUNDS: usize = 240;
/// The last rounds are measured.
const MEASURED_ROUNDS: usize = 40;

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Every power of two between the two is as likely as any other.
    fn size(&mut self, min: u64, max: u64) -> u64 {
        let doublings = u64::from((max / min).ilog2());
        let base = min << self.below(doublings);
        base + self.below(base)
    }
}

/// A file that is written in pieces of `piece` blocks.
struct File {
    size: u64,
    piece: u64,
    written: u64,
    /// First logical block and place of each extent.
    extents: Vec<(u64, Run)>,
    extent_block: Option<Run>,
}

/// Extents that an inode holds itself.
const INLINE_EXTENTS: usize = 4;

fn metadata(allocator: &BlockAllocator, blocks: u64) -> Run {
    let request = Request { blocks, goal: None, align: None, contiguous: true, purpose: Purpose::Metadata };
    allocator.allocate(&request).expect("70 % full is not full")
}

impl File {
    fn new(random: &mut Random) -> Self {
        let size = match random.below(100) {
            0..60 => random.size(1, 16),
            60..90 => random.size(16, 512),
            _ => random.size(512, 16384),
        };
        let piece = [1, 32, size][random.below(3) as usize];
        Self { size, piece, written: 0, extents: Vec::new(), extent_block: None }
    }

    /// Writes the next piece, as the engine would: what is or becomes a large file is aligned, but for the end of a
    /// file that is written in one piece.
    fn write(&mut self, allocator: &BlockAllocator) {
        let end = (self.written + self.piece).min(self.size);
        while self.written < end {
            let blocks = end - self.written;
            let large = self.written >= CHUNK as u64 || blocks >= CHUNK as u64;
            let tail = self.piece == self.size && blocks < CHUNK as u64;
            let request = Request {
                blocks,
                goal: self.extents.last().map(|(_, run)| run.end()),
                align: (large && !tail).then_some(self.written),
                contiguous: false,
                purpose: Purpose::Data,
            };
            let run = allocator.allocate(&request).expect("70 % full is not full");
            match self.extents.last_mut() {
                Some((_, last)) if last.end() == run.start => last.blocks += run.blocks,
                _ => self.extents.push((self.written, run)),
            }
            self.written += run.blocks;
        }
        if self.extents.len() > INLINE_EXTENTS && self.extent_block.is_none() {
            self.extent_block = Some(metadata(allocator, 1));
        }
    }

    fn delete(self, allocator: &BlockAllocator) {
        for run in self.extents.into_iter().map(|(_, run)| run).chain(self.extent_block) {
            allocator.free(run).unwrap();
        }
    }

    /// Blocks of the file that a 2 MiB page can map.
    fn mappable(&self) -> u64 {
        let chunk = CHUNK as u64;
        let whole_windows = |(logical, run): &(u64, Run)| {
            let in_phase = logical % chunk == run.start % chunk;
            let (first, end) = (logical.div_ceil(chunk), (logical + run.blocks) / chunk);
            if in_phase { end.saturating_sub(first) * chunk } else { 0 }
        };
        self.extents.iter().map(whole_windows).sum()
    }
}

/// A volume and what is on it.
struct Volume {
    allocator: BlockAllocator,
    random: Random,
    files: Vec<File>,
    writing: Vec<File>,
    /// For how many files there are inodes. Their blocks are never given back.
    inodes: usize,
}

impl Volume {
    fn new(seed: u64) -> Self {
        let allocator = Builder::new(TOTAL_BLOCKS).finish(0);
        Self { allocator, random: Random(seed), files: Vec::new(), writing: Vec::new(), inodes: 0 }
    }

    fn free_blocks(&self) -> u64 {
        self.allocator.counts().free
    }

    /// Writes several files in turns until the volume is as full as it shall be.
    fn fill(&mut self) {
        while self.free_blocks() > TOTAL_BLOCKS * (100 - FULL_PERCENT) / 100 {
            while self.writing.len() < FILES_WRITTEN_AT_ONCE {
                self.writing.push(File::new(&mut self.random));
            }
            if self.files.len() + self.writing.len() > self.inodes {
                metadata(&self.allocator, INODE_CHUNK_BLOCKS);
                self.inodes += INODE_CHUNK_BLOCKS as usize * 16;
            }
            let which = self.random.below(FILES_WRITTEN_AT_ONCE as u64) as usize;
            self.writing[which].write(&self.allocator);
            if self.writing[which].written == self.writing[which].size {
                self.files.push(self.writing.swap_remove(which));
            }
        }
    }

    /// Deletes files at random until so many percent of the volume are free.
    fn delete(&mut self, free_percent: u64) {
        while self.free_blocks() < TOTAL_BLOCKS * free_percent / 100 {
            let which = self.random.below(self.files.len() as u64) as usize;
            self.files.swap_remove(which).delete(&self.allocator);
        }
    }

    fn report(&self) -> Report {
        let chunk = CHUNK as u64;
        let counts = self.allocator.counts();
        let large = || self.files.iter().filter(|file| file.size >= 4 * chunk);
        let small = || self.files.iter().filter(|file| file.size < chunk);
        Report {
            whole: percent(counts.whole_chunks_free * chunk, counts.free),
            mappable: percent(
                large().map(File::mappable).sum(),
                large().map(|file| file.size / chunk * chunk).sum(),
            ),
            extents: percent(small().map(|file| file.extents.len() as u64).sum(), small().count() as u64),
        }
    }
}

fn percent(part: u64, all: u64) -> u64 {
    part * 100 / all
}

#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// Percentage of the free blocks that lie in whole chunks.
    whole: u64,
    /// Percentage of large files that 2 MiB pages can map.
    mappable: u64,
    /// Extents of 100 files below 2 MiB.
    extents: u64,
}

/// Fills a volume, then deletes from it and fills it again many times.
fn age(seed: u64) -> (Report, Report) {
    let mut volume = Volume::new(seed);
    volume.fill();
    let fresh = volume.report();
    let mut sum = Report::default();
    for round in 0..ROUNDS {
        // Mostly a few files are replaced; now and then half of the free space.
        volume.delete([31, 32, 35, 50][round % 4]);
        volume.fill();
        if round >= ROUNDS - MEASURED_ROUNDS {
            let now = volume.report();
            sum.whole += now.whole;
            sum.mappable += now.mappable;
            sum.extents += now.extents;
        }
    }
    volume.allocator.state.lock().chunks.check();
    let rounds = MEASURED_ROUNDS as u64;
    (
        fresh,
        Report { whole: sum.whole / rounds, mappable: sum.mappable / rounds, extents: sum.extents / rounds },
    )
}

#[test]
fn an_aged_volume_is_nearly_as_good_as_a_fresh_one() {
    for seed in 1..=4 {
        let (fresh, aged) = age(seed);
        assert!(aged.whole * 100 >= fresh.whole * 90, "fresh {fresh:?}, aged {aged:?}");
        assert!(aged.mappable * 100 >= fresh.mappable * 97, "fresh {fresh:?}, aged {aged:?}");
        assert!(fresh.mappable >= 93 && aged.extents <= 300, "fresh {fresh:?}, aged {aged:?}");
    }
}
