//! What is read and written through a region.

mod common;

use std::sync::Barrier;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use common::{FakeFile, PAGE, byte, in_child, mappings_within, number, region};
use lodefs_mapping::{Mapper, Part, Region, Request, Shown, What};

#[test]
fn armed_pages_lead_to_the_medium() {
    let file = FakeFile::new();
    file.lay_out(0..8, 100);
    file.set_number_at(103, 7);
    let mapper = file.mapper();
    let region = region(&mapper, 8);
    assert!(mapper.serves_system_calls());
    assert_eq!(number(&region, 3).load(SeqCst), 7);
    number(&region, 5).store(8, SeqCst);
    assert_eq!(file.number_at(105), 8);
    // Those that were touched are as they were, whoever writes.
    file.set_number_at(103, 9);
    assert_eq!(number(&region, 3).load(SeqCst), 9);
    assert_eq!(file.faults.load(SeqCst), 2);
}

#[test]
fn regions_of_one_file_see_each_other() {
    let file = FakeFile::new();
    file.lay_out(0..2, 0);
    let mapper = file.mapper();
    let (one, other) = (region(&mapper, 2), region(&mapper, 2));
    number(&one, 1).store(5, SeqCst);
    assert_eq!(number(&other, 1).load(SeqCst), 5);
}

#[test]
fn a_hole_reads_as_zeroes_and_is_allocated_once() {
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 4);
    assert_eq!(number(&region, 1).load(SeqCst), 0);
    assert_eq!((file.allocations.load(SeqCst), region.parts()[1].shown), (0, Shown::Zeroes));
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                for page in 0..4 {
                    number(&region, page).fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(file.allocations.load(SeqCst), 4);
    for page in 0..4 {
        let place = file.lock().places[&page];
        assert_eq!(file.number_at(place), 16, "page {page}");
    }
}

#[test]
fn what_nobody_has_read_is_allocated_at_once() {
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 1);
    number(&region, 0).store(3, SeqCst);
    assert_eq!((file.faults.load(SeqCst), file.number_at(0)), (1, 3));
}

#[test]
fn a_region_that_may_not_be_written_is_not() {
    let file = FakeFile::new();
    file.lay_out(1..2, 0);
    let mapper = Mapper::new(file.medium(true), file.clone()).unwrap();
    let read_only = Mapper::new(file.medium(false), file.clone()).unwrap();
    for (mapper, writable) in [(&mapper, false), (&read_only, true)] {
        let size = 3 * PAGE as usize;
        let region = Region::new(mapper, &Request { offset: 0, size, writable }).unwrap();
        // A hole, the medium, and what is armed.
        assert_eq!((number(&region, 0).load(SeqCst), number(&region, 1).load(SeqCst)), (0, 0));
        let kinds: Vec<_> = region.parts().iter().map(|part| part.shown).collect();
        assert_eq!(kinds, [Shown::Zeroes, Shown::Medium(0), Shown::Armed]);
        let lines = mappings_within(common::addresses(&region));
        assert!(lines.iter().all(|line| line.contains(" r--")), "{lines:#?}");
        region.recall(0, u64::MAX, 1);
        let lines = mappings_within(common::addresses(&region));
        assert!(lines.iter().all(|line| line.contains(" r--")), "{lines:#?}");
    }
}

#[test]
fn answers_may_be_wide_and_reach_over_the_region() {
    let file = FakeFile::new();
    file.set_number_at(13, 1);
    let mapper = file.mapper();
    let request = Request { offset: 8 * PAGE, size: 4 * PAGE as usize, writable: true };
    let region = Region::new(&mapper, &request).unwrap();
    let medium = |offset: u64, size: u64, at: u64| Part {
        offset: offset * PAGE,
        size: size * PAGE,
        what: What::Medium(at * PAGE),
    };
    assert!(region.install(0, &[medium(0, 5, 100), medium(5, 5, 9), medium(20, 5, 0)]).unwrap());
    assert_eq!(number(&region, 0).load(SeqCst), file.number_at(12));
    number(&region, 1).store(77, SeqCst);
    assert_eq!(file.number_at(13), 77);
    let shown: Vec<_> = region.parts().iter().map(|p| (p.offset / PAGE, p.size / PAGE, p.shown)).collect();
    assert_eq!(shown, [(8, 2, Shown::Medium(12 * PAGE)), (10, 2, Shown::Armed)]);
    // What is the same stays; what differs is replaced.
    assert!(region.install(0, &[medium(8, 4, 12)]).unwrap());
    assert!(region.install(0, &[medium(9, 1, 200)]).unwrap());
    assert_eq!((number(&region, 1).load(SeqCst), region.parts().len()), (0, 3));
    // Zeroes do not hide what is there.
    assert!(region.install(0, &[Part { offset: 0, size: 20 * PAGE, what: What::Zeroes }]).unwrap());
    assert_eq!(region.parts().len(), 3);
    assert!(region.install(0, &[Part { offset: 1, size: PAGE, what: What::Zeroes }]).is_err());
}

/// Page faults of this thread that needed no reading.
fn faults_so_far() -> i64 {
    // SAFETY: all zero is a valid value, and has room for the answer.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_minflt
    }
}

#[test]
fn what_is_mapped_already_stays() {
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 512);
    let all = [Part { offset: 0, size: 512 * PAGE, what: What::Medium(0) }];
    let touch_all = || (0..512).map(|page| number(&region, page).load(SeqCst)).sum::<u32>();
    assert!(region.install(0, &all).unwrap());
    assert_eq!(touch_all(), 0);
    assert!(region.install(0, &all).unwrap());
    assert!(
        region.install(0, &[Part { offset: 9 * PAGE, size: PAGE, what: What::Medium(9 * PAGE) }]).unwrap()
    );
    let before = faults_so_far();
    assert_eq!(touch_all(), 0);
    assert!(faults_so_far() - before < 16, "mapped anew");
}

#[test]
fn the_last_page_of_the_longest_file() {
    let file = FakeFile::new();
    let last = (1 << 63) / PAGE - 1;
    file.lay_out(last..last + 1, 4);
    let mapper = file.mapper();
    let request = Request { offset: last * PAGE, size: 4095, writable: true };
    let region = Region::new(&mapper, &request).unwrap();
    byte(&region, 4095).store(1, SeqCst);
    region.recall(u64::MAX - 1, u64::MAX, 1);
    assert_eq!(region.parts()[0].shown, Shown::Medium(4 * PAGE));
    region.recall(0, u64::MAX, 2);
    assert_eq!((region.parts()[0].shown, region.epoch()), (Shown::Armed, 2));
    let beyond = Request { offset: last * PAGE, size: 4097, writable: true };
    assert!(Region::new(&mapper, &beyond).is_err());
}

#[test]
fn a_process_that_locks_its_memory_is_served() {
    let file = FakeFile::new();
    file.set_number_at(3, 9);
    file.lay_out(0..2, 3);
    let result = in_child(|| {
        // SAFETY: changes no contents.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
        let mapper = file.mapper();
        let region = region(&mapper, 4);
        assert_eq!(number(&region, 0).load(SeqCst), 9);
        assert_eq!(number(&region, 2).load(SeqCst), 0);
        region.recall(0, u64::MAX, 1);
        file.lock().epoch = 1;
        file.lay_out(2..3, 3);
        assert_eq!((number(&region, 2).load(SeqCst), number(&region, 0).load(SeqCst)), (9, 9));
        0
    });
    assert_eq!(result, 0);
}
