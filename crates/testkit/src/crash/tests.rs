//! Synthetic logs, whose crash images are known or can be found by a simpler and slower way.

use std::collections::BTreeSet;

use super::*;

/// A log that is being written by hand. Calls of one line have one location.
#[derive(Default)]
struct Log(Vec<Event>);

impl Log {
    fn push(&mut self, thread: u64, what: What) -> &mut Self {
        self.0.push(Event { thread, what });
        self
    }

    fn store(&mut self, thread: u64, at: u64, bytes: &[u8]) -> &mut Self {
        self.push(thread, What::Store { at, bytes: bytes.to_vec(), non_temporal: false })
    }

    fn stream(&mut self, thread: u64, at: u64, bytes: &[u8]) -> &mut Self {
        self.push(thread, What::Store { at, bytes: bytes.to_vec(), non_temporal: true })
    }

    #[track_caller]
    fn flush(&mut self, thread: u64, at: u64, size: u64) -> &mut Self {
        self.push(thread, What::Flush { at, size, location: Location::caller() })
    }

    #[track_caller]
    fn fence(&mut self, thread: u64) -> &mut Self {
        self.push(thread, What::Fence { location: Location::caller() })
    }

    #[track_caller]
    fn sync(&mut self) -> &mut Self {
        self.push(0, What::Sync { location: Location::caller() })
    }

    fn mark(&mut self, number: u64) -> &mut Self {
        self.push(0, What::Mark(number))
    }
}

fn exhaustive(domain: Domain) -> Options {
    Options { exhaustive_max: usize::MAX, stores_between: 0, ..Options::new(domain) }
}

/// All images after the mark `after`, of a medium of `size` zeros.
fn images(log: &Log, size: usize, options: &Options, after: Option<u64>) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let result = for_each_crash_image(&Snapshot::new(vec![0; size], 0), &[&log.0], options, |image| {
        if image.last_mark == after {
            assert!(found.insert(image.bytes().to_vec()), "an image was given twice: {image:?}");
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(result.is_continue());
    found
}

/// The first bytes of words, for images in which nothing else differs.
fn firsts(images: &BTreeSet<Vec<u8>>, at: &[usize]) -> BTreeSet<Vec<u8>> {
    images.iter().map(|image| at.iter().map(|at| image[*at]).collect()).collect()
}

fn set(images: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    images.iter().map(|image| image.to_vec()).collect()
}

#[test]
fn lines_are_independent_and_a_line_keeps_the_order_of_its_stores() {
    let mut log = Log::default();
    log.store(0, 0, &[1]).store(0, 8, &[2]).store(0, 64, &[3]);
    let found = images(&log, 128, &exhaustive(Domain::MemoryController), None);
    let expected: [&[u8]; 6] = [&[0, 0, 0], &[1, 0, 0], &[1, 2, 0], &[0, 0, 3], &[1, 0, 3], &[1, 2, 3]];
    assert_eq!(firsts(&found, &[0, 8, 64]), set(&expected));
}

#[test]
fn a_store_is_durable_after_flush_and_fence_of_the_flushing_thread() {
    let after = |build: for<'l> fn(&'l mut Log) -> &'l mut Log| {
        let mut log = Log::default();
        log.store(0, 0, &[1]);
        build(&mut log);
        log.mark(9);
        firsts(&images(&log, 64, &exhaustive(Domain::MemoryController), Some(9)), &[0])
    };
    let (durable, open) = (set(&[&[1]]), set(&[&[0], &[1]]));
    assert_eq!(after(|log| log.flush(0, 0, 1).fence(0)), durable);
    assert_eq!(after(|log| log.flush(1, 63, 1).fence(1)), durable, "whoever flushes any byte of it");
    assert_eq!(after(|log| log.flush(1, 0, 1).fence(0)), open, "another thread's fence");
    assert_eq!(after(|log| log.fence(0).flush(0, 0, 1)), open, "the wrong order");
    assert_eq!(after(|log| log.flush(0, 64, 64).fence(0)), open, "another line");
    assert_eq!(after(|log| log.fence(0)), open, "no flush");
    assert_eq!(after(|log| log.sync()), durable);
}

#[test]
fn a_non_temporal_store_is_durable_after_a_fence_of_its_thread() {
    let after = |fencing: u64| {
        let mut log = Log::default();
        log.stream(0, 0, &[1]).fence(fencing).mark(9);
        firsts(&images(&log, 64, &exhaustive(Domain::MemoryController), Some(9)), &[0])
    };
    assert_eq!(after(0), set(&[&[1]]));
    assert_eq!(after(1), set(&[&[0], &[1]]));
}

#[test]
fn what_is_stored_after_the_flush_is_not_flushed() {
    let mut log = Log::default();
    log.store(0, 0, &[1]).flush(0, 0, 1).store(0, 0, &[2]).fence(0).mark(9);
    let found = images(&log, 64, &exhaustive(Domain::MemoryController), Some(9));
    assert_eq!(firsts(&found, &[0]), set(&[&[1], &[2]]));
}

#[test]
fn an_old_store_does_not_come_back_over_a_durable_newer_one() {
    let mut log = Log::default();
    log.store(0, 0, &[1, 1]).stream(0, 0, &[2]).fence(0).mark(9);
    let found = images(&log, 64, &exhaustive(Domain::MemoryController), Some(9));
    assert_eq!(firsts(&found, &[0, 1]), set(&[&[2, 0], &[2, 1]]));
}

#[test]
fn stores_are_torn_at_multiples_of_eight_bytes_only() {
    let mut log = Log::default();
    log.stream(0, 6, &[1; 12]);
    let found = images(&log, 64, &exhaustive(Domain::MemoryController), None);
    let expected: [&[u8]; 4] = [&[0; 6], &[1, 1, 0, 0, 0, 0], &[1, 1, 1, 1, 0, 0], &[1; 6]];
    assert_eq!(firsts(&found, &[6, 7, 8, 15, 16, 17]), set(&expected));
}

#[test]
fn with_saved_caches_a_fence_of_the_thread_is_enough_and_lines_are_in_no_order() {
    let domain = Domain::CpuCache;
    let mut log = Log::default();
    log.store(0, 0, &[1]).store(0, 64, &[2]).store(0, 64, &[3]);
    let unfenced = images(&log, 256, &exhaustive(domain), None);
    let all: [&[u8]; 6] = [&[0, 0], &[1, 0], &[0, 2], &[1, 2], &[0, 3], &[1, 3]];
    assert_eq!(firsts(&unfenced, &[0, 64]), set(&all));
    let mut log = Log::default();
    log.stream(0, 0, &[1]).store(0, 64, &[2]).store(1, 192, &[4]).fence(0).mark(9).store(1, 128, &[3]);
    let found = images(&log, 256, &exhaustive(domain), Some(9));
    let all: [&[u8]; 4] = [&[1, 2, 0, 0], &[1, 2, 3, 0], &[1, 2, 0, 4], &[1, 2, 3, 4]];
    assert_eq!(firsts(&found, &[0, 64, 128, 192]), set(&all));
}

#[test]
fn with_saved_caches_a_fence_serves_what_others_have_cached_before_a_mark() {
    let mut log = Log::default();
    log.store(0, 0, &[1]).stream(0, 64, &[2]).mark(8).store(0, 128, &[3]).fence(1).mark(9);
    let found = images(&log, 256, &exhaustive(Domain::CpuCache), Some(9));
    let all: [&[u8]; 4] = [&[1, 0, 0], &[1, 2, 0], &[1, 0, 3], &[1, 2, 3]];
    assert_eq!(firsts(&found, &[0, 64, 128]), set(&all));
}

#[test]
fn of_two_threads_stores_to_one_word_the_later_one_wins() {
    let mut log = Log::default();
    log.store(1, 0, &[1, 1]).store(0, 0, &[2]).mark(8).sync().mark(9);
    let options = exhaustive(Domain::CpuCache);
    let expected = set(&[&[0, 0], &[1, 1], &[2, 1]]);
    assert_eq!(firsts(&images(&log, 64, &options, Some(8)), &[0, 1]), expected);
    assert_eq!(firsts(&images(&log, 64, &options, Some(9)), &[0, 1]), set(&[&[2, 1]]));
}

#[test]
fn pages_are_written_whenever_the_host_likes_and_for_certain_at_a_sync() {
    let mut log = Log::default();
    log.store(0, 0, &[1]).store(0, 4096, &[2]).flush(0, 0, 4097).fence(0).mark(8).sync().mark(9);
    let all: [&[u8]; 4] = [&[0, 0], &[1, 0], &[0, 2], &[1, 2]];
    let options = exhaustive(Domain::Page);
    assert_eq!(firsts(&images(&log, 8192, &options, Some(8)), &[0, 4096]), set(&all));
    assert_eq!(firsts(&images(&log, 8192, &options, Some(9)), &[0, 4096]), set(&[&[1, 2]]));
}

#[test]
fn pages_are_torn_at_sectors() {
    let mut log = Log::default();
    log.store(0, 0, &[1]).store(0, 512, &[2]);
    let found = images(&log, 4096, &exhaustive(Domain::Page), None);
    assert_eq!(firsts(&found, &[0, 512]), set(&[&[0, 0], &[1, 0], &[0, 2], &[1, 2]]));
}

#[test]
fn a_dying_process_leaves_a_prefix_of_its_stores() {
    let mut log = Log::default();
    log.store(0, 64, &[1]).stream(0, 0, &[2]).store(1, 128, &[3]);
    let found = images(&log, 192, &exhaustive(Domain::Volatile), None);
    let expected: [&[u8]; 4] = [&[0, 0, 0], &[1, 0, 0], &[1, 2, 0], &[1, 2, 3]];
    assert_eq!(firsts(&found, &[64, 0, 128]), set(&expected));
}

/// A record and then, once it is durable, a flag that says so.
fn commit_protocol() -> Log {
    let mut log = Log::default();
    log.stream(0, 0, &[7; 128]).fence(0);
    log.store(0, 256, &[1]).flush(0, 256, 1).fence(0);
    log.mark(1);
    log
}

/// Whether some image breaks the protocol: a flag without its record, or no flag after the mark.
fn is_broken(log: &Log, options: &Options) -> bool {
    for_each_crash_image(&Snapshot::new(vec![0; 512], 0), &[&log.0], options, |image| {
        let committed = image.bytes()[256] == 1;
        let recorded = image.bytes()[..128] == [7; 128];
        let right = if image.last_mark == Some(1) { committed && recorded } else { !committed || recorded };
        if right { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .is_break()
}

#[test]
fn leaving_out_any_call_of_a_protocol_breaks_it() {
    let log = commit_protocol();
    for options in [Options::new(Domain::MemoryController), exhaustive(Domain::MemoryController)] {
        assert!(!is_broken(&log, &options));
        let calls = durability_calls(&log.0);
        assert_eq!(calls.len(), 3);
        for call in calls {
            assert!(is_broken(&log, &Options { drop_at: Some(call), ..options }), "{call}");
        }
    }
}

#[test]
fn a_sample_has_the_extremes_and_is_no_larger_than_asked() {
    let mut log = Log::default();
    for line in 0..100 {
        log.store(0, line * 64, &[1; 64]);
    }
    let options =
        Options { stores_between: 0, singles_max: 5, random: 7, ..Options::new(Domain::MemoryController) };
    let found = images(&log, 6400, &options, None);
    assert!((2 + 2 * 5..=2 + 2 * 5 + 7).contains(&found.len()), "{}", found.len());
    let full_lines = |image: &Vec<u8>| image.chunks(64).filter(|line| **line == [1; 64]).count();
    for count in [0, 1, 99, 100] {
        assert!(found.iter().any(|image| full_lines(image) == count), "none has {count} lines");
    }
}

/// The images of a crash before event `end`, found by looking at the log from the start for each store.
fn by_definition(log: &[Event], size: usize, end: usize, found: &mut BTreeSet<Vec<u8>>) {
    // Every store has one byte here, so nothing is torn.
    let mut lines: Vec<Vec<(usize, bool)>> = vec![Vec::new(); size / 64];
    for (index, event) in log[..end].iter().enumerate() {
        if let What::Store { at, non_temporal, .. } = &event.what {
            let fenced_after = |from: usize, by: u64| {
                log[from..end].iter().any(|it| it.thread == by && matches!(it.what, What::Fence { .. }))
            };
            let flushed = (index..end).any(|flush| {
                matches!(&log[flush].what, What::Flush { at: start, .. } if start / 64 == at / 64)
                    && fenced_after(flush, log[flush].thread)
            });
            let durable = flushed || (*non_temporal && fenced_after(index, event.thread));
            lines[*at as usize / 64].push((index, durable));
        }
    }
    let open = |line: &Vec<(usize, bool)>| line.iter().filter(|(_, durable)| !durable).count();
    let combinations: usize = lines.iter().map(|line| open(line) + 1).product();
    for mut combination in 0..combinations {
        let mut image = vec![0; size];
        for line in &lines {
            let mut kept = combination % (open(line) + 1);
            combination /= open(line) + 1;
            for (index, durable) in line {
                let there = *durable || kept > 0;
                kept -= usize::from(!durable && kept > 0);
                if let (true, What::Store { at, bytes, .. }) = (there, &log[*index].what) {
                    image[*at as usize] = bytes[0];
                }
            }
        }
        found.insert(image);
    }
}

#[test]
fn all_images_of_random_logs_are_those_of_the_definition() {
    const SIZE: usize = 192;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut log = Log::default();
        for number in 1..=16 {
            let (thread, at) = (rng.below(2), rng.below(3) * 64 + rng.below(2) * 8);
            match rng.below(5) {
                0..=1 => log.store(thread, at, &[number]),
                2 => log.stream(thread, at, &[number]),
                3 => log.flush(thread, at, 1),
                _ => log.fence(thread),
            };
        }
        let mut expected = BTreeSet::new();
        for end in 0..=log.0.len() {
            by_definition(&log.0, SIZE, end, &mut expected);
        }
        assert_eq!(images(&log, SIZE, &exhaustive(Domain::MemoryController), None), expected, "seed {seed}");
    }
}
