//! Where a run goes: the policy of the allocator.
//!
//! Two aims pull at each other. Large files want whole chunks, which 2 MiB pages can map, also after years of
//! use; so small requests must fill the holes in chunks that are broken already, the fullest first, and let the
//! emptiest drain. But a file that is scattered over holes is slow. So a whole chunk is broken for a small
//! request as long as little free space lies in broken chunks (`WHOLE_SHARE`); when more does, holes down to a
//! sixteenth of the request will do.
//!
//! Chunks are broken for data, for metadata, or for large files (aligned requests and those of a chunk and more).
//! The last kind is not shared unless nothing else is left: when its file goes it is whole again. Letting small
//! files into the end of every large file is what wears a volume out.
//!
//! Files must not grow through each other block by block. A file grows behind its last extent (the goal). New
//! files start in a chunk that only one slot, a group of threads, fills. A file that found its way blocked starts
//! again in the middle of the longest run of a chunk, so it and whoever grows towards it have room.

use lodefs_sync::thread_number;

use super::Run;
use super::bitmap::{CHUNK, FreeRun};
use super::chunks::{BINS, CLASSES, Choice, Chunks, Kind, bin_of};

/// Most slots for data; each keeps a chunk open.
const SLOTS_MAX: usize = 8;
/// A volume has a slot for this many chunks, so that open chunks are few among many.
const CHUNKS_PER_SLOT: usize = 32;
/// Chunks looked at in one bin before the next bin is tried.
const TRIES: usize = 16;
/// Blocks that a growing file should find free behind its new place.
const GROWTH_ROOM: usize = 32;
/// Small requests break whole chunks while broken chunks hold less than one part in so many of the free blocks.
const WHOLE_SHARE: u64 = 16;
/// The same for small requests that should be aligned: a sparse file must not take a chunk for each of its blocks.
const ALIGNED_SHARE: u64 = 2;
/// Runs of adjacent whole chunks looked at for a large request.
const WHOLE_RUNS_MAX: usize = 64;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Blocks, at least 1 and no more than are free.
    pub(super) blocks: u64,
    pub(super) goal: Option<u64>,
    /// Position in a chunk at which the run should start.
    pub(super) phase: Option<usize>,
    /// All of `blocks` or nothing.
    pub(super) contiguous: bool,
    /// Data or metadata.
    pub(super) kind: Kind,
}

impl Wish {
    /// Whether the request follows an extent whose next block is taken.
    fn growing(&self) -> bool {
        self.goal.is_some() && self.kind == Kind::Data
    }

    /// The kind of the whole chunks that are broken for it.
    pub(super) fn breaks_into(&self) -> Kind {
        if self.phase.is_some() || self.blocks >= CHUNK as u64 { Kind::Large } else { self.kind }
    }

    fn choice(&self) -> Choice {
        if self.growing() { Choice::Longest } else { Choice::First }
    }

    /// Blocks asked of a single chunk.
    fn in_chunk(&self) -> usize {
        self.blocks.min(CHUNK as u64) as usize
    }

    /// The shortest run that is a good place.
    fn comfortable(&self) -> usize {
        let room = if self.growing() { GROWTH_ROOM } else { 0 };
        (self.in_chunk() + room).min(CHUNK - 1).max(self.in_chunk())
    }

    /// The lengths of runs that are better than breaking a whole chunk while free space is scattered, the best
    /// first.
    fn lengths(&self) -> impl Iterator<Item = usize> + use<> {
        let longest = self.in_chunk();
        let shortest = if self.contiguous { longest } else { longest.div_ceil(16) };
        std::iter::successors(Some(longest), move |len| (*len > shortest).then(|| len.div_ceil(4)))
    }

    /// The part of a free run in `chunk` to use.
    fn part_of(&self, chunk: usize, free: FreeRun) -> Run {
        let len = free.len.min(self.in_chunk());
        // Only behind a block in use can somebody be growing towards this run.
        let leave_room = self.growing() && free.start > 0 && free.len >= len + 2 * GROWTH_ROOM;
        let start = if leave_room { free.start + (free.len / 2).min(free.len - len) } else { free.start };
        Run { start: (chunk * CHUNK + start) as u64, blocks: len as u64 }
    }
}

/// Finds places; remembers where it looked last.
#[derive(Debug)]
pub(super) struct Placer {
    /// The chunk that each slot fills, if it is still open; the last slot is for metadata. No two are the same.
    open: Vec<Option<usize>>,
    /// Where to go on looking in each bin.
    cursors: [usize; BINS],
    /// No run in the whole volume is longer, until something is freed.
    longest: u64,
}

impl Placer {
    pub(super) fn new(chunks: usize) -> Self {
        let slots = (chunks / CHUNKS_PER_SLOT).clamp(1, SLOTS_MAX);
        Self { open: vec![None; slots + 1], cursors: [0; BINS], longest: u64::MAX }
    }

    /// Must be told after blocks were freed.
    pub(super) fn freed(&mut self) {
        self.longest = u64::MAX;
    }

    /// Finds a free run for a wish. Fails only if no block is free, or none so many adjacent ones as are wanted.
    pub(super) fn find(&mut self, chunks: &mut Chunks, wish: &Wish) -> Option<Run> {
        at_goal(chunks, wish)
            .or_else(|| in_whole_chunks(chunks, wish))
            .or_else(|| self.in_broken_chunks(chunks, wish))
            .or_else(|| self.anywhere(chunks, wish))
    }

    /// Small requests, and large ones when no whole chunk is left.
    fn in_broken_chunks(&mut self, chunks: &mut Chunks, wish: &Wish) -> Option<Run> {
        if wish.contiguous && wish.blocks > CHUNK as u64 {
            return None;
        }
        self.in_own_chunk(chunks, wish, wish.comfortable())
            .or_else(|| self.in_bins(chunks, wish, wish.kind, wish.comfortable()))
            .or_else(|| if may_break(chunks, WHOLE_SHARE) { self.break_whole(chunks, wish) } else { None })
            .or_else(|| {
                wish.lengths().find_map(|need| {
                    self.in_bins(chunks, wish, wish.kind, need)
                        .or_else(|| self.in_open_chunks(chunks, wish, need))
                })
            })
            .or_else(|| wish.lengths().find_map(|need| self.in_other_bins(chunks, wish, need)))
            .or_else(|| self.break_whole(chunks, wish))
    }

    /// The last resort: whatever there is. Only here, and only for contiguous requests, a search is linear.
    fn anywhere(&mut self, chunks: &mut Chunks, wish: &Wish) -> Option<Run> {
        if wish.contiguous {
            return self.longest_search(chunks, wish.blocks);
        }
        self.in_bins(chunks, wish, wish.kind, 1)
            .or_else(|| self.in_open_chunks(chunks, wish, 1))
            .or_else(|| self.in_other_bins(chunks, wish, 1))
    }

    fn slot(&self, wish: &Wish) -> usize {
        let data_slots = self.open.len() - 1;
        if wish.kind == Kind::Data { thread_number() % data_slots } else { data_slots }
    }

    fn in_own_chunk(&self, chunks: &mut Chunks, wish: &Wish, need: usize) -> Option<Run> {
        let chunk = self.open[self.slot(wish)].filter(|chunk| chunks.is_open(*chunk))?;
        let free = chunks.find(chunk, need, wish.choice())?;
        Some(wish.part_of(chunk, free))
    }

    /// In a chunk that some slot fills, be it another's.
    fn in_open_chunks(&self, chunks: &mut Chunks, wish: &Wish, need: usize) -> Option<Run> {
        for &chunk in self.open.iter().flatten() {
            if chunks.is_open(chunk)
                && let Some(free) = chunks.find(chunk, need, Choice::Longest)
            {
                return Some(wish.part_of(chunk, free));
            }
        }
        None
    }

    /// In the fullest partially free chunk of a kind that has a run of `need` blocks, as far as a bounded search
    /// finds it. The chunk becomes the slot's open one.
    fn in_bins(&mut self, chunks: &mut Chunks, wish: &Wish, kind: Kind, need: usize) -> Option<Run> {
        (need.ilog2() as usize..CLASSES)
            .find_map(|class| self.in_bin(chunks, wish, bin_of(kind, class), need))
    }

    /// In a chunk of another kind. A chunk of a large file that small ones share will hardly be whole again, so it
    /// had better have room for many: the emptiest come first.
    fn in_other_bins(&mut self, chunks: &mut Chunks, wish: &Wish, need: usize) -> Option<Run> {
        let other = if wish.kind == Kind::Data { Kind::Metadata } else { Kind::Data };
        let classes = need.ilog2() as usize..CLASSES;
        classes
            .rev()
            .find_map(|class| self.in_bin(chunks, wish, bin_of(Kind::Large, class), need))
            .or_else(|| self.in_bins(chunks, wish, other, need))
    }

    /// Looks at some chunks of a bin, going on where the last search in it ended.
    fn in_bin(&mut self, chunks: &mut Chunks, wish: &Wish, bin: usize, need: usize) -> Option<Run> {
        // A run that is shorter than asked for may as well be as long as possible.
        let choice = if need < wish.in_chunk() { Choice::Longest } else { wish.choice() };
        for _ in 0..TRIES {
            let chunk = chunks.next_in_bin(bin, self.cursors[bin]).or_else(|| chunks.next_in_bin(bin, 0))?;
            if let Some(free) = chunks.find(chunk, need, choice) {
                self.cursors[bin] = chunk;
                self.open_chunk(chunks, wish, chunk);
                return Some(wish.part_of(chunk, free));
            }
            self.cursors[bin] = chunk + 1;
        }
        None
    }

    fn break_whole(&mut self, chunks: &mut Chunks, wish: &Wish) -> Option<Run> {
        let chunk = chunks.next_whole(0)?;
        self.open_chunk(chunks, wish, chunk);
        Some(wish.part_of(chunk, FreeRun { start: 0, len: CHUNK }))
    }

    fn open_chunk(&mut self, chunks: &mut Chunks, wish: &Wish, chunk: usize) {
        let slot = self.slot(wish);
        // A chunk that was open and became whole is open no longer, but its slot may still point at it.
        for open in self.open.iter_mut().filter(|open| **open == Some(chunk)) {
            *open = None;
        }
        if let Some(previous) = self.open[slot].replace(chunk) {
            chunks.close(previous);
        }
        chunks.open(chunk, wish.kind);
    }

    /// Looks through the whole volume for `blocks` adjacent free blocks, across the borders of chunks too, but
    /// not again before something was freed.
    fn longest_search(&mut self, chunks: &Chunks, blocks: u64) -> Option<Run> {
        if blocks > self.longest {
            return None;
        }
        let mut longest = 0;
        let mut run = Run { start: 0, blocks: 0 };
        for (chunk, bits) in chunks.bits().iter().enumerate().filter(|(chunk, _)| chunks.free_in(*chunk) > 0)
        {
            for free in bits.free_runs() {
                let start = (chunk * CHUNK + free.start) as u64;
                if run.end() != start {
                    run = Run { start, blocks: 0 };
                }
                run.blocks += free.len as u64;
                longest = longest.max(run.blocks);
                if run.blocks >= blocks {
                    return Some(Run { start: run.start, blocks });
                }
            }
        }
        self.longest = longest;
        None
    }
}

/// Whether so little free space, one part in `share`, lies in broken chunks that a small request may break another.
fn may_break(chunks: &Chunks, share: u64) -> bool {
    let in_broken = chunks.free_blocks() - chunks.whole_chunks() * CHUNK as u64;
    in_broken < chunks.free_blocks() / share
}

/// At the goal, if it is free and suits the alignment.
fn at_goal(chunks: &Chunks, wish: &Wish) -> Option<Run> {
    let goal = wish.goal? as usize;
    let mut wanted = wish.blocks as usize;
    if let Some(phase) = wish.phase
        && goal % CHUNK != phase
    {
        // The file is out of phase here: follow it up to the next border, and start anew in phase there.
        wanted = wanted.min((CHUNK - phase) % CHUNK);
    }
    let mut len = 0;
    while len < wanted {
        let (chunk, start) = ((goal + len) / CHUNK, (goal + len) % CHUNK);
        if chunk >= chunks.len() {
            break;
        }
        // A page cannot map a chunk that small files share. One of a large file is probably this file's own.
        if wish.phase.is_some() && start == 0 && !chunks.is_whole(chunk) && !chunks.is_large(chunk) {
            break;
        }
        // Breaking the next whole chunk is subject to the policy, wherever the request comes from.
        let free_to_break = wanted - len >= CHUNK || (wish.contiguous && len > 0);
        let share = if wish.phase.is_some() { ALIGNED_SHARE } else { WHOLE_SHARE };
        if chunks.is_whole(chunk) && !free_to_break && !may_break(chunks, share) {
            break;
        }
        let step = (wanted - len).min(CHUNK - start);
        let free = chunks.bits()[chunk].free_from_up_to(start, step);
        len += free;
        if free < step {
            break;
        }
    }
    let enough = if wish.contiguous { wish.blocks } else { 1 };
    (len as u64 >= enough).then_some(Run { start: goal as u64, blocks: len as u64 })
}

/// Large requests, and those for a part of a large file: adjacent whole chunks, as many as possible. What would
/// only use a part of the last chunk is left for another request, unless it must be contiguous.
fn in_whole_chunks(chunks: &Chunks, wish: &Wish) -> Option<Run> {
    // Where a file was interrupted within its 2 MiB, what follows can no longer be mapped by one page.
    let interrupted = wish.goal.is_some() && wish.phase.is_some_and(|phase| phase > 0);
    let is_small = wish.blocks < CHUNK as u64;
    if is_small && (wish.phase.is_none() || interrupted || !may_break(chunks, ALIGNED_SHARE)) {
        return None;
    }
    let phase = wish.phase.unwrap_or(0);
    let reach = phase + wish.blocks as usize;
    let wanted = if wish.contiguous { reach.div_ceil(CHUNK) } else { (reach / CHUNK).max(1) };
    let runs_max = if wish.contiguous { usize::MAX } else { WHOLE_RUNS_MAX };
    let (chunk, found) = adjacent_whole_chunks(chunks, wanted, runs_max)?;
    if found < wanted && wish.contiguous {
        return None;
    }
    let blocks = wish.blocks.min((found * CHUNK - phase) as u64);
    Some(Run { start: (chunk * CHUNK + phase) as u64, blocks })
}

/// The first `wanted` adjacent whole chunks, or the most there are among the first `runs_max` runs of them.
fn adjacent_whole_chunks(chunks: &Chunks, wanted: usize, runs_max: usize) -> Option<(usize, usize)> {
    let mut best = None;
    let mut from = 0;
    for _ in 0..runs_max {
        let Some(chunk) = chunks.next_whole(from) else { break };
        let found = chunks.whole_run(chunk, wanted);
        if found == wanted {
            return Some((chunk, found));
        }
        if best.is_none_or(|(_, most)| found > most) {
            best = Some((chunk, found));
        }
        from = chunk + found;
    }
    best
}
