//! Many threads, and nobody who waits for ever.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;

use lodefs::{File, Mapping};

use crate::bench::{PAGE, PAGE_SIZE, allocated, byte, file, in_time, map, volume};

/// The number at the beginning of a page.
fn number(mapping: &Mapping, page: usize) -> &AtomicU32 {
    assert!(page * PAGE_SIZE < mapping.size());
    // SAFETY: the page is mapped as long as the mapping lives, and these four bytes are accessed with atomic numbers only.
    unsafe { AtomicU32::from_ptr(mapping.as_ptr().add(page * PAGE_SIZE).cast()) }
}

/// A page as a buffer.
#[expect(clippy::mut_from_ref, reason = "the memory is not the mapping's own")]
fn page(mapping: &Mapping, page: usize) -> &mut [u8] {
    assert!(page * PAGE_SIZE < mapping.size());
    // SAFETY: the page is mapped as long as the mapping lives; the tests use each by one thread.
    unsafe { std::slice::from_raw_parts_mut(mapping.as_ptr().add(page * PAGE_SIZE), PAGE_SIZE) }
}

#[test]
fn sixteen_threads_fill_the_same_holes() {
    const PAGES: usize = 500;
    let volume = volume();
    let free = volume.space().blocks_free;
    let file = file(&volume, "f", PAGES as u64);
    let mapping = map(&file, PAGES);
    let start = Barrier::new(16);
    in_time(|| {
        thread::scope(|scope| {
            for thread in 0..16 {
                let (mapping, start) = (&mapping, &start);
                scope.spawn(move || {
                    start.wait();
                    for at in 0..PAGES {
                        // Some together, some each at its own place; some read first.
                        let at = if thread % 2 == 0 { at } else { (at * 7 + thread) % PAGES };
                        if thread % 4 == 0 {
                            number(mapping, at).load(Relaxed);
                        }
                        number(mapping, at).fetch_add(1, Relaxed);
                    }
                });
            }
        });
    });
    for at in 0..PAGES {
        assert_eq!(number(&mapping, at).load(Relaxed), 16, "page {at}");
    }
    let before = allocated(&file);
    file.allocate(0, PAGES as u64 * PAGE).unwrap();
    assert_eq!(allocated(&file), before, "every page had its block");
    drop((mapping, file));
    volume.remove_file("f").unwrap();
    assert_eq!(volume.space().blocks_free, free, "and no other");
}

/// Runs `what` again and again in another thread, as long as `meanwhile` lasts.
fn beside(what: impl Fn(u64) + Sync, meanwhile: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    in_time(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    what(round);
                    if is_over.load(Relaxed) {
                        break;
                    }
                }
            });
            // Even if it fails, the other is to end.
            let result = catch_unwind(AssertUnwindSafe(meanwhile));
            is_over.store(true, Relaxed);
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        });
    });
}

#[test]
fn a_file_is_cut_and_grows_under_readers_and_writers() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    let mapping = map(&file, 64);
    let cut = |round| {
        file.set_len((32 + round % 16) * PAGE + round % 3).unwrap();
        file.set_len(64 * PAGE).unwrap();
        // Takes what was cut off.
        volume.write("other", vec![77; 64 * PAGE_SIZE]).unwrap();
    };
    beside(cut, || {
        for round in 0..3000_u32 {
            for at in [0, 10, 31] {
                number(&mapping, at).fetch_add(1, Relaxed);
                assert_eq!(number(&mapping, at).load(Relaxed), round + 1);
            }
        }
    });
    assert!(volume.read("other").unwrap().iter().all(|byte| *byte == 77));
}

#[test]
fn writes_and_holes_come_from_elsewhere_while_pages_are_touched() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    let mapping = map(&file, 64);
    let change = |round: u64| {
        let at = round * 13 % 64;
        match round % 3 {
            0 => file.punch_hole(at * PAGE, 4 * PAGE).unwrap(),
            1 => file.write_all_at(&[1; 9000], at.min(60) * PAGE).unwrap(),
            _ => file.zero_range(at.min(60) * PAGE, 3 * PAGE).unwrap(),
        }
        file.set_len(64 * PAGE).unwrap();
    };
    beside(change, || {
        let mut sum = 0_u64;
        for round in 0..30_000 {
            let at = round * 7 % 64;
            if round % 3 == 0 {
                number(&mapping, at).store(5, Relaxed);
            } else {
                sum += u64::from(number(&mapping, at).load(Relaxed));
            }
        }
        assert!(sum > 0);
    });
    for at in 0..64 {
        let mut read = [0; PAGE_SIZE];
        file.read_exact_at(&mut read, at as u64 * PAGE).unwrap();
        assert_eq!(read, page(&mapping, at), "page {at}");
    }
}

#[test]
fn who_has_changed_a_page_sees_it_whoever_touches_it_meanwhile() {
    let volume = volume();
    let file = file(&volume, "f", 4);
    let mapping = map(&file, 4);
    let touch = |round| {
        number(&mapping, round as usize % 4).load(Relaxed);
    };
    beside(touch, || {
        for round in 1..5000_u32 {
            let at = round as usize % 4;
            file.write_all_at(&round.to_ne_bytes(), at as u64 * PAGE).unwrap();
            assert_eq!(number(&mapping, at).load(Relaxed), round);
            file.punch_hole(at as u64 * PAGE, PAGE).unwrap();
            assert_eq!(number(&mapping, at).load(Relaxed), 0);
        }
    });
}

/// Reads and writes files with buffers that are pages of them, not yet mapped.
fn exchange(from: (&File, &Mapping), to: (&File, &Mapping), pages: std::ops::Range<usize>) {
    for at in pages {
        let offset = at as u64 * PAGE;
        from.0.write_all_at(&[at as u8; 10], offset).unwrap();
        to.0.write_all_at(page(from.1, at), offset).unwrap();
        from.0.read_exact_at(page(to.1, at), offset).unwrap();
        from.0.punch_hole(offset, PAGE).unwrap();
        from.0.read_exact_at(page(from.1, at), offset).unwrap();
        from.0.write_all_at(page(from.1, at), offset + 1).unwrap();
        let left = if std::ptr::eq(from.0, to.0) { 0 } else { at as u8 };
        assert_eq!(byte(to.1, at * PAGE_SIZE), left);
    }
}

#[test]
fn a_mapping_may_be_the_buffer_of_its_own_file_and_of_another() {
    let (volume, volume2) = (volume(), volume());
    let files = [file(&volume, "a", 400), file(&volume, "b", 400), file(&volume2, "c", 400)];
    let mappings = [0, 1, 2].map(|at| map(&files[at], 400));
    in_time(|| {
        thread::scope(|scope| {
            for (thread, (from, to)) in [(0, 0), (0, 1), (1, 0), (1, 2)].into_iter().enumerate() {
                let both = |at: usize| (&files[at], &mappings[at]);
                let pages = thread * 100..thread * 100 + 98;
                let (from, to) = (both(from), both(to));
                scope.spawn(move || {
                    exchange(from, to, pages.clone());
                    exchange(to, from, pages);
                });
            }
        });
    });
}

#[test]
fn names_and_values_may_be_in_a_mapping() {
    let volume = volume();
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    let fresh = |at: usize, text: &[u8]| {
        file.write_all_at(text, at as u64 * PAGE).unwrap();
        // Not touched before the library does.
        &page(&mapping, at)[..text.len()]
    };
    in_time(|| {
        let name = |at, text| OsStr::from_bytes(fresh(at, text));
        file.set_xattr(name(0, b"user.name"), fresh(1, b"value")).unwrap();
        assert_eq!(file.xattr(name(2, b"user.name")).unwrap().unwrap(), b"value");
        volume.symlink(name(3, b"to"), name(4, b"link")).unwrap();
        volume.rename(name(5, b"f"), "g").unwrap();
        file.append(page(&mapping, 6)).unwrap();
        volume.write("h", page(&mapping, 7)).unwrap();
    });
    assert_eq!(volume.read("g").unwrap().len(), 9 * PAGE_SIZE);
}

#[test]
fn mappings_come_and_go_while_others_are_used() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    in_time(|| {
        thread::scope(|scope| {
            for thread in 0..4_usize {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..100 {
                        let mapping = map(file, 64);
                        for at in 0..4 {
                            number(&mapping, thread * 16 + (at + round) % 16).fetch_add(1, Relaxed);
                        }
                        drop(mapping);
                        file.write_all_at(&[0; 4], (thread as u64 * 16 + 15) * PAGE + 100).unwrap();
                    }
                });
            }
        });
    });
    let sum: u32 = (0..64).map(|at| number(&map(&file, 64), at).load(Relaxed)).sum();
    assert_eq!(sum, 4 * 100 * 4);
}
