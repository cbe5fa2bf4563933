//! What is taken back, is.

mod common;

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use common::{FakeFile, PAGE, number, region};
use lodefs_mapping::{Part, Shown, What};

const PAGES: u64 = 4;
/// Recalls of the long test.
const RECALLS: u64 = 200;

#[test]
fn a_page_that_was_recalled_is_asked_for_again() {
    let file = FakeFile::new();
    file.lay_out(0..PAGES, 0);
    let mapper = file.mapper();
    let region = region(&mapper, PAGES);
    for page in 0..PAGES {
        number(&region, page).store(1, SeqCst);
    }
    file.lay_out(1..3, 50);
    file.lock().epoch = 1;
    region.recall(PAGE, 2 * PAGE, 1);
    let shown: Vec<_> = region.parts().iter().map(|p| (p.offset / PAGE, p.shown)).collect();
    assert_eq!(shown, [(0, Shown::Medium(0)), (1, Shown::Armed), (3, Shown::Medium(3 * PAGE))]);
    for page in 0..PAGES {
        number(&region, page).store(2, SeqCst);
    }
    let numbers: Vec<_> = [0, 1, 2, 3, 50, 51].iter().map(|&place| file.number_at(place)).collect();
    assert_eq!(numbers, [2, 1, 1, 2, 2, 2]);
}

#[test]
fn an_answer_from_before_a_recall_is_dropped() {
    let file = FakeFile::new();
    file.lay_out(0..1, 0);
    let mapper = file.mapper();
    let region = region(&mapper, 1);
    let late = [Part { offset: 0, size: PAGE, what: What::Medium(0) }];
    region.recall(0, PAGE, 3);
    assert!(!region.install(2, &late).unwrap());
    // A recall of something else counts, too: who gave the answer counts them all.
    region.recall(100 * PAGE, PAGE, 4);
    assert!(!region.install(3, &late).unwrap());
    assert_eq!(region.parts()[0].shown, Shown::Armed);
    // Recalls that arrive in another order do not make an older answer count.
    region.recall(0, PAGE, 2);
    assert_eq!(region.epoch(), 4);
    assert!(region.install(4, &late).unwrap());
}

#[test]
fn whoever_waits_for_a_late_answer_asks_again() {
    let file = FakeFile::new();
    file.lay_out(0..1, 0);
    file.set_number_at(0, 5);
    file.lock().is_silent = true;
    let mapper = file.mapper();
    let region = region(&mapper, 1);
    thread::scope(|scope| {
        let reader = scope.spawn(|| number(&region, 0).load(SeqCst));
        while file.faults.load(SeqCst) == 0 {
            thread::yield_now();
        }
        region.recall(0, PAGE, 1);
        (file.lock().epoch, file.lock().is_silent) = (1, false);
        let late = [Part { offset: 0, size: PAGE, what: What::Medium(9 * PAGE) }];
        assert!(!region.install(0, &late).unwrap());
        assert_eq!(reader.join().unwrap(), 5);
    });
}

/// Two threads count in each page; pages move all the time. Every count must arrive in the block that the page had then.
#[test]
fn nothing_that_is_stored_during_a_recall_is_lost() {
    let file = FakeFile::new();
    file.lay_out(0..PAGES, 0);
    let mapper = file.mapper();
    let region = region(&mapper, PAGES);
    let is_over = AtomicBool::new(false);
    let counts: Vec<AtomicU32> = (0..PAGES).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    for page in 0..PAGES {
                        number(&region, page).fetch_add(1, SeqCst);
                        counts[page as usize].fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let mut left = Vec::new();
        for i in 0..RECALLS {
            left.push(move_page(&file, &region, i % PAGES));
            let seen = counts[(i % PAGES) as usize].load(SeqCst);
            while counts[(i % PAGES) as usize].load(SeqCst) == seen {
                thread::yield_now();
            }
        }
        is_over.store(true, SeqCst);
        for (place, last) in left {
            assert_eq!(file.number_at(place), last, "stored to block {place} after it was taken back");
        }
    });
    for (page, count) in counts.iter().enumerate() {
        let place = file.lock().places[&(page as u64)];
        assert_eq!(file.number_at(place), count.load(SeqCst), "page {page}");
    }
}

/// Gives a page another block; the old one and its number.
fn move_page(file: &FakeFile, region: &lodefs_mapping::Region, page: u64) -> (u64, u32) {
    let mut state = file.lock();
    state.epoch += 1;
    let (old, new) = (state.places[&page], state.next_free);
    region.recall(page * PAGE, PAGE, state.epoch);
    let last = file.number_at(old);
    file.medium.write_all_at(&last.to_ne_bytes(), new * PAGE).unwrap();
    state.places.insert(page, new);
    state.next_free += 1;
    (old, last)
}

#[test]
fn recalls_by_several_threads_and_of_several_regions() {
    let file = FakeFile::new();
    file.lay_out(0..64, 0);
    let mapper = file.mapper();
    let regions: Vec<_> = (0..4).map(|_| region(&mapper, 64)).collect();
    thread::scope(|scope| {
        for (i, region) in regions.iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..100 {
                    for page in 0..64 {
                        number(region, page).fetch_add(1, SeqCst);
                    }
                }
            });
            let other = &regions[(i + 1) % regions.len()];
            scope.spawn(move || {
                for turn in 0..100 {
                    other.recall((turn % 64) * PAGE, 3 * PAGE, 0);
                }
            });
        }
    });
    for page in 0..64 {
        assert_eq!(file.number_at(page), 400);
    }
}
