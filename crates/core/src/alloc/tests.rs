//! The allocator against a naive model: a set of free blocks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::builder::{MarkError, TooFewWords};
use super::{BlockAllocator, Builder, FreeError, Purpose, Request, Run};

fn data(blocks: u64) -> Request {
    Request { blocks, goal: None, align: None, contiguous: false, purpose: Purpose::Data }
}

fn run(start: u64, blocks: u64) -> Run {
    Run { start, blocks }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate {
        request: Request,
        goal_behind: Option<prop::sample::Index>,
    },
    /// Frees `len` blocks from `skip` on of an allocated run, possibly deferred.
    Free {
        which: prop::sample::Index,
        skip: u64,
        len: u64,
        epoch: Option<u64>,
    },
    /// Tries to free any run, allocated or not.
    FreeAny {
        run: Run,
        epoch: Option<u64>,
    },
    Release {
        up_to: u64,
    },
    SaveAndLoad,
}

fn blocks() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..20_u64, 2 => Just(1_u64), 2 => 20..600_u64, 1 => 600..3000_u64]
}

fn steps() -> impl Strategy<Value = Step> {
    let purpose =
        prop_oneof![4 => Just(Purpose::Data), 2 => Just(Purpose::Metadata), 1 => Just(Purpose::Reclaim)];
    let request = (
        blocks(),
        prop::option::weighted(0.1, any::<u64>()),
        prop::option::weighted(0.2, 0..1024_u64),
        prop::bool::weighted(0.2),
        purpose,
    )
        .prop_map(|(blocks, goal, align, contiguous, purpose)| Request {
            blocks,
            goal,
            align,
            contiguous,
            purpose,
        });
    let epoch = || prop::option::weighted(0.3, 0..4_u64);
    prop_oneof![
        12 => (request, prop::option::of(any::<prop::sample::Index>()))
            .prop_map(|(request, goal_behind)| Step::Allocate { request, goal_behind }),
        9 => (any::<prop::sample::Index>(), prop_oneof![Just(0_u64), 0..100_u64], prop_oneof![Just(u64::MAX), 1..100_u64], epoch())
            .prop_map(|(which, skip, len, epoch)| Step::Free { which, skip, len, epoch }),
        2 => ((0..9000_u64, 0..3000_u64), epoch())
            .prop_map(|((start, blocks), epoch)| Step::FreeAny { run: run(start, blocks), epoch }),
        1 => (0..4_u64).prop_map(|up_to| Step::Release { up_to }),
        1 => Just(Step::SaveAndLoad),
    ]
}

/// What must be true of an allocator, kept in the simplest way.
struct Model {
    allocator: BlockAllocator,
    total: u64,
    reserve: u64,
    free: BTreeSet<u64>,
    deferred: BTreeMap<u64, u64>,
    allocated: Vec<Run>,
}

impl Model {
    fn new(total: u64, reserve: u64) -> Self {
        let allocator = Builder::new(total).finish(reserve);
        Self {
            allocator,
            total,
            reserve,
            free: (0..total).collect(),
            deferred: BTreeMap::new(),
            allocated: Vec::new(),
        }
    }

    fn longest_free(&self) -> u64 {
        let (mut longest, mut len, mut next) = (0, 0, None);
        for &block in &self.free {
            len = if next == Some(block) { len + 1 } else { 1 };
            next = Some(block + 1);
            longest = longest.max(len);
        }
        longest
    }

    fn allocate(&mut self, request: Request) {
        let kept = if request.purpose == Purpose::Reclaim { 0 } else { self.reserve };
        let available = (self.free.len() as u64).saturating_sub(kept);
        let Some(run) = self.allocator.allocate(&request) else {
            if request.contiguous {
                assert!(
                    available < request.blocks || self.longest_free() < request.blocks,
                    "refused {request:?}"
                );
            } else {
                assert_eq!(available.min(request.blocks), 0, "refused {request:?}");
            }
            return;
        };
        assert!(run.blocks >= 1 && run.blocks <= request.blocks.min(available), "{run} for {request:?}");
        assert!(!request.contiguous || run.blocks == request.blocks, "{run} for {request:?}");
        for block in run.start..run.end() {
            assert!(self.free.remove(&block), "block {block} of {run} was not free");
        }
        self.allocated.push(run);
    }

    fn free(&mut self, run: Run, epoch: Option<u64>) {
        let result = match epoch {
            Some(epoch) => self.allocator.defer_free(run, epoch),
            None => self.allocator.free(run),
        };
        let in_use = |block: u64| !self.free.contains(&block) && !self.deferred.contains_key(&block);
        if run.end() > self.total {
            assert_eq!(result, Err(FreeError::OutOfRange(run)));
        } else if !(run.start..run.end()).all(in_use) {
            assert_eq!(result, Err(FreeError::NotInUse(run)));
        } else {
            assert_eq!(result, Ok(()));
            for block in run.start..run.end() {
                match epoch {
                    Some(epoch) => _ = self.deferred.insert(block, epoch),
                    None => _ = self.free.insert(block),
                }
            }
            self.forget(run);
        }
    }

    /// Cuts `gone` out of the list of allocated runs.
    fn forget(&mut self, gone: Run) {
        let cut = |kept: &Run| {
            let before = run(kept.start, gone.start.clamp(kept.start, kept.end()) - kept.start);
            let behind = gone.end().clamp(kept.start, kept.end());
            [before, run(behind, kept.end() - behind)]
        };
        let pieces: Vec<Run> = self.allocated.iter().flat_map(cut).filter(|piece| piece.blocks > 0).collect();
        self.allocated = pieces;
    }

    fn release(&mut self, up_to: u64) {
        self.allocator.release_deferred(up_to);
        for (block, _) in self.deferred.extract_if(.., |_, epoch| *epoch <= up_to) {
            self.free.insert(block);
        }
    }

    fn save_and_load(&mut self) {
        let words = self.allocator.words();
        let behind_end =
            words.last().unwrap().unbounded_shr((self.total - (words.len() as u64 - 1) * 64) as u32);
        assert_eq!((words.len() as u64, behind_end), (self.total.div_ceil(64), 0));
        let builder = Builder::from_words(self.total, words.into_iter().chain([u64::MAX; 3])).unwrap();
        self.allocator = builder.finish(self.reserve);
        self.free.extend(std::mem::take(&mut self.deferred).into_keys());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate { mut request, goal_behind } => {
                if let Some(index) = goal_behind.filter(|_| !self.allocated.is_empty()) {
                    request.goal = Some(index.get(&self.allocated).end());
                }
                self.allocate(request);
            }
            Step::Free { which, skip, len, epoch } => {
                if !self.allocated.is_empty() {
                    let whole = *which.get(&self.allocated);
                    let skip = skip.min(whole.blocks - 1);
                    self.free(run(whole.start + skip, len.min(whole.blocks - skip)), epoch);
                }
            }
            Step::FreeAny { run, epoch } => self.free(run, epoch),
            Step::Release { up_to } => self.release(up_to),
            Step::SaveAndLoad => self.save_and_load(),
        }
    }

    fn check(&self) {
        let counts = self.allocator.counts();
        assert_eq!(counts.total, self.total);
        assert_eq!(counts.deferred, self.deferred.len() as u64);
        assert_eq!(counts.free, (self.free.len() + self.deferred.len()) as u64);
        assert_eq!(counts.reserve, self.reserve);
        for block in 0..self.total + 10 {
            assert_eq!(self.allocator.is_used(block), !self.free.contains(&block), "block {block}");
        }
        let whole = |chunk: &u64| self.free.range(chunk * 512..(chunk + 1) * 512).count() == 512;
        assert_eq!(counts.whole_chunks_free, (0..self.total / 512).filter(whole).count() as u64);
        self.allocator.state.lock().chunks.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn agrees_with_the_model(
        total in prop_oneof![1..5000_u64, Just(4096_u64), 6000..9000_u64],
        reserve in prop_oneof![Just(0_u64), 0..300_u64],
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        let mut model = Model::new(total, reserve);
        for (number, step) in steps.into_iter().enumerate() {
            model.step(step);
            if number % 16 == 0 {
                model.check();
            }
        }
        model.check();
        for run in std::mem::take(&mut model.allocated) {
            model.free(run, None);
        }
        model.release(u64::MAX);
        model.check();
        prop_assert_eq!(model.free.len() as u64, total, "everything comes back");
    }

    #[test]
    fn every_block_can_be_allocated(total in 1..3000_u64, size in blocks(), contiguous in any::<bool>()) {
        let mut model = Model::new(total, 0);
        loop {
            let before = model.free.len();
            model.allocate(Request { contiguous: contiguous && before as u64 >= size, ..data(size) });
            if model.free.len() == before {
                break;
            }
        }
        model.check();
        prop_assert!(model.free.is_empty() || contiguous);
    }
}

#[test]
fn a_volume_that_is_all_used_gains_what_is_freed() {
    let allocator = BlockAllocator::all_used(1000);
    assert_eq!((allocator.counts().free, allocator.allocate(&data(1))), (0, None));
    allocator.free(run(990, 10)).unwrap();
    assert_eq!(allocator.allocate(&data(20)), Some(run(990, 10)));
}

#[test]
fn nothing_can_be_freed_anywhere() {
    let allocator = Builder::new(4096).finish(0);
    let taken = allocator.allocate(&data(81)).unwrap();
    allocator.defer_free(taken, 0).unwrap();
    for start in [taken.start, taken.start + 1, taken.end(), 4096] {
        assert_eq!(allocator.free(run(start, 0)), Ok(()), "at {start}");
        assert_eq!(allocator.defer_free(run(start, 0), 0), Ok(()), "at {start}");
    }
    assert_eq!(allocator.counts().free, 4096);
}

#[test]
fn the_builder_reports_what_contradicts_itself() {
    let mut builder = Builder::new(2000);
    builder.mark_used(run(500, 600)).unwrap();
    assert_eq!(builder.mark_used(run(1099, 2)), Err(MarkError::Overlap(run(1099, 2))));
    assert_eq!(builder.mark_used(run(1999, 2)), Err(MarkError::OutOfRange(run(1999, 2))));
    assert_eq!(builder.mark_used(run(u64::MAX, 2)), Err(MarkError::OutOfRange(run(u64::MAX, 2))));
    assert!(!builder.is_used(1100) && builder.is_used(1099) && builder.is_used(2000));
    assert_eq!(builder.finish(0).counts().free, 1400);
    let short = Builder::from_words(2000, std::iter::repeat_n(0, 31));
    assert_eq!(short.err(), Some(TooFewWords { found: 31, needed: 32 }));
}

#[test]
fn the_reserve_is_kept_for_reclaim() {
    let allocator = Builder::new(100).finish(10);
    assert_eq!(allocator.allocate(&data(100)).map(|run| run.blocks), Some(90));
    assert_eq!(allocator.allocate(&data(1)), None);
    assert_eq!(allocator.allocate(&Request { purpose: Purpose::Metadata, ..data(1) }), None);
    assert!(allocator.allocate(&Request { purpose: Purpose::Reclaim, ..data(10) }).is_some());
}

#[test]
fn a_file_continues_at_its_goal() {
    let allocator = Builder::new(1 << 16).finish(0);
    let first = allocator.allocate(&data(3)).unwrap();
    let next = allocator.allocate(&Request { goal: Some(first.end()), ..data(1) });
    assert_eq!(next, Some(run(first.end(), 1)));
    let beyond = allocator.allocate(&Request { goal: Some(u64::MAX), ..data(1) });
    assert!(beyond.is_some());
}

#[test]
fn large_requests_get_adjacent_whole_chunks() {
    let allocator = Builder::new(64 * 512).finish(0);
    allocator.allocate(&data(7)).unwrap();
    let run = allocator.allocate(&data(3 * 512 + 40)).unwrap();
    assert_eq!((run.start % 512, run.blocks), (0, 3 * 512), "the rest goes where small files go");
    let contiguous = allocator.allocate(&Request { contiguous: true, ..data(3 * 512 + 40) }).unwrap();
    assert_eq!((contiguous.start % 512, contiguous.blocks), (0, 3 * 512 + 40));
}

#[test]
fn an_aligned_request_starts_in_phase() {
    let allocator = Builder::new(64 * 512).finish(0);
    let small = allocator.allocate(&data(7)).unwrap();
    let aligned = |blocks, align, goal| Request { align: Some(align), goal, ..data(blocks) };
    let page = allocator.allocate(&aligned(1, 5 * 512 + 9, None)).unwrap();
    assert_eq!((page.start % 512, page.blocks), (9, 1));
    let head = allocator.allocate(&aligned(2000, 100, Some(small.end()))).unwrap();
    assert_eq!(head, run(small.end(), 412), "out of phase no further than the border of the logical chunk");
    let body = allocator.allocate(&aligned(1588, 0, Some(head.end()))).unwrap();
    assert_eq!((body.start % 512, body.blocks), (0, 3 * 512));
}

#[test]
fn a_large_file_leaves_a_broken_chunk_at_its_goal_for_a_whole_one() {
    let mut builder = Builder::new(64 * 512);
    builder.mark_used(run(0, 512)).unwrap();
    builder.mark_used(run(700, 1)).unwrap();
    let allocator = builder.finish(0);
    let next = Request { goal: Some(512), align: Some(512), ..data(1) };
    assert_eq!(
        allocator.allocate(&next),
        Some(run(1024, 1)),
        "512 is free, but a page cannot map what follows"
    );
}

#[test]
fn an_interrupted_page_does_not_break_another_chunk() {
    let allocator = Builder::new(64 * 512).finish(0);
    let small = allocator.allocate(&data(7)).unwrap();
    let begin = allocator.allocate(&Request { align: Some(0), ..data(100) }).unwrap();
    let other = allocator.allocate(&Request { goal: Some(begin.end()), ..data(1) }).unwrap();
    assert_eq!(other.start, begin.end(), "another file goes in between");
    let next = allocator.allocate(&Request { goal: Some(begin.end()), align: Some(100), ..data(1) }).unwrap();
    assert_eq!(next.start / 512, small.start / 512);
    assert_eq!(allocator.counts().whole_chunks_free, 62);
}

#[test]
fn a_sparse_file_leaves_half_of_the_whole_chunks() {
    let allocator = Builder::new(64 * 512).finish(0);
    for window in 0..64 {
        allocator.allocate(&Request { align: Some(window * 512 + 9), ..data(1) }).unwrap();
    }
    assert_eq!(allocator.counts().whole_chunks_free, 31);
}

#[test]
fn a_page_is_filled_in_any_order_around_its_first_block() {
    let allocator = Builder::new(64 * 512).finish(0);
    let first = allocator.allocate(&Request { align: Some(77), ..data(1) }).unwrap();
    let start = first.start - 77;
    for logical in (0..512).rev().filter(|logical| *logical != 77) {
        allocator.allocate(&data(1)).unwrap();
        let goal = Some(start + logical);
        let next = allocator.allocate(&Request { goal, align: Some(logical), ..data(1) }).unwrap();
        assert_eq!(next.start, start + logical);
    }
}

#[test]
fn chunks_of_large_files_are_given_up_one_at_a_time() {
    let allocator = Builder::new(8 * 512).finish(0);
    let ends: Vec<Run> =
        (0..8).map(|_| allocator.allocate(&Request { align: Some(0), ..data(256) }).unwrap()).collect();
    for number in 0..200 {
        // One that does not fit into the open chunk closes it.
        let request = if number == 100 { Request { contiguous: true, ..data(200) } } else { data(1) };
        allocator.allocate(&request).unwrap();
    }
    for end in ends {
        allocator.free(end).unwrap();
    }
    assert_eq!(allocator.counts().whole_chunks_free, 6);
}

#[test]
fn threads_start_files_in_different_chunks() {
    let allocator = Builder::new(512 * 512).finish(0);
    let chunks: BTreeSet<u64> = std::thread::scope(|scope| {
        let start = || allocator.allocate(&data(1)).unwrap().start / 512;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(chunks.len() > 1, "all 8 threads started in the same chunk");
}

#[test]
fn small_requests_leave_whole_chunks_alone() {
    let allocator = Builder::new(64 * 512).finish(0);
    for size in 1..30 {
        allocator.allocate(&data(size)).unwrap();
    }
    assert_eq!(allocator.counts().whole_chunks_free, 63);
    allocator.allocate(&Request { purpose: Purpose::Metadata, ..data(1) }).unwrap();
    assert_eq!(allocator.counts().whole_chunks_free, 62, "metadata has a chunk of its own");
}

#[test]
fn files_that_grow_in_turns_do_not_interleave() {
    let allocator = Builder::new(64 * 512).finish(0);
    let mut tails = [None; 4];
    let mut extents = 0;
    for _ in 0..512 {
        for tail in &mut tails {
            let run = allocator.allocate(&Request { goal: *tail, ..data(1) }).unwrap();
            extents += u32::from(*tail != Some(run.start));
            *tail = Some(run.end());
        }
    }
    assert!(extents <= 4 * 6, "{extents} extents for 4 files of 512 blocks");
}

#[test]
fn a_refused_contiguous_request_is_granted_after_a_free() {
    let allocator = Builder::new(1024).finish(0);
    while allocator.allocate(&data(1)).is_some() {}
    for block in (500..520).step_by(2) {
        allocator.free(run(block, 1)).unwrap();
    }
    let pair = Request { contiguous: true, ..data(3) };
    assert_eq!((allocator.allocate(&pair), allocator.allocate(&pair)), (None, None));
    allocator.free(run(511, 1)).unwrap();
    assert_eq!(allocator.allocate(&pair), Some(run(510, 3)), "across the border of two chunks");
}

#[test]
fn threads_share_no_block() {
    let allocator = Builder::new(64 * 512).finish(0);
    let mut all: Vec<Run> = std::thread::scope(|scope| {
        let work = || {
            let mut mine: Vec<Run> = Vec::new();
            for step in 0..3000_u64 {
                if step % 3 == 2 {
                    allocator.free(mine.swap_remove(step as usize * 7 % mine.len())).unwrap();
                } else {
                    let goal = mine.last().map(|run| run.end());
                    mine.extend(allocator.allocate(&Request { goal, ..data(step % 17 + 1) }));
                }
            }
            mine
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    assert!(all.windows(2).all(|pair| pair[0].end() <= pair[1].start));
    let used: u64 = all.iter().map(|run| run.blocks).sum();
    assert_eq!(allocator.counts().free, 64 * 512 - used);
    allocator.state.lock().chunks.check();
}
