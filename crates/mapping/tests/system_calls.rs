//! System calls with buffers in regions.

mod common;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

use common::{FakeFile, PAGE, PAGES, byte, in_child, number, region};

/// Reads into a range of the region, or writes from it.
fn transfer(file: &FakeFile, region: &lodefs_mapping::Region, write: bool, from: u64, size: usize) -> isize {
    let buffer = region.base().as_ptr().cast();
    let (medium, at) = (file.medium.as_raw_fd(), (from * PAGE).cast_signed());
    // SAFETY: the buffer is mapped, and not used otherwise meanwhile.
    unsafe {
        if write { libc::pwrite(medium, buffer, size, at) } else { libc::pread(medium, buffer, size, at) }
    }
}

#[test]
fn armed_buffers_are_filled_and_read() {
    let file = FakeFile::new();
    file.lay_out(0..8, 0);
    for place in 20..24 {
        file.set_number_at(place, 5);
    }
    let mapper = file.mapper();
    let region = region(&mapper, 8);
    let size = 4 * PAGE as usize;
    assert_eq!(transfer(&file, &region, false, 20, size), size.cast_signed());
    assert_eq!((file.number_at(0), file.number_at(3), file.number_at(4)), (5, 5, 0));
    region.recall(0, u64::MAX, 0);
    assert_eq!(transfer(&file, &region, true, 40, size), size.cast_signed());
    assert_eq!((file.number_at(40), file.number_at(43)), (5, 5));
    // With holes' zeroes as the buffer.
    file.lock().places.clear();
    file.lock().next_free = 60;
    region.recall(0, u64::MAX, 0);
    assert_eq!(number(&region, 1).load(SeqCst), 0);
    assert_eq!(transfer(&file, &region, false, 20, size), size.cast_signed());
    assert_eq!((file.allocations.load(SeqCst), file.number_at(60)), (4, 5));
}

#[test]
fn direct_transfers_reach_the_medium() {
    let path = std::env::temp_dir().join(format!("lodefs-mapping-direct-{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
    let source = options.open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    source.set_len(PAGE).unwrap();
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 1);
    byte(&region, 0).store(7, SeqCst);
    region.recall(0, u64::MAX, 0);
    let buffer = region.base().as_ptr().cast();
    // SAFETY: the buffer is mapped, and not used otherwise meanwhile.
    unsafe { assert_eq!(libc::pwrite(source.as_raw_fd(), buffer, 4096, 0), 4096) };
    byte(&region, 0).store(1, SeqCst);
    region.recall(0, u64::MAX, 0);
    // SAFETY: as above.
    unsafe { assert_eq!(libc::pread(source.as_raw_fd(), buffer, 4096, 0), 4096) };
    assert_eq!(file.number_at(0), 7);
}

/// Gives up the right to serve the faults of system calls.
fn become_nobody() {
    // SAFETY: gives up rights, which nobody here needs.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(65534) | libc::setuid(65534), 0);
    }
}

/// Waits until a transfer finds all of its buffer.
fn transfer_in_the_end(
    file: &FakeFile,
    region: &lodefs_mapping::Region,
    write: bool,
    from: u64,
    size: usize,
) {
    while transfer(file, region, write, from, size) != size.cast_signed() {
        std::thread::yield_now();
    }
}

#[test]
fn without_the_right_to_that_they_find_what_is_populated() {
    let result = in_child(|| {
        become_nobody();
        let file = FakeFile::new();
        file.lay_out(2..4, 0);
        file.lock().end = 8;
        let mapper = file.mapper();
        let writable = region(&mapper, 10);
        writable.populate(true);
        assert_eq!(file.allocations.load(SeqCst), 6);
        file.set_number_at(50, 7);
        let all = 8 * PAGE as usize;
        assert_eq!(transfer(&file, &writable, false, 50, all), all.cast_signed());
        assert_eq!(file.number_at(2), 7, "page 0 was filled after the two that were there");
        // Behind the end.
        assert_eq!(transfer(&file, &writable, false, 50, all + 1), all.cast_signed());
        // Nobody has touched what is there, so it does not fail when it is in the file.
        file.lock().end = 9;
        number(&writable, 8).store(1, SeqCst);

        // What was recalled comes again, and holes are not filled then.
        file.lock().places.remove(&5);
        file.lock().epoch += 1;
        writable.recall(2 * PAGE, 5 * PAGE, file.lock().epoch);
        transfer_in_the_end(&file, &writable, true, 60, all);
        assert_eq!(file.allocations.load(SeqCst), 7);
        assert_eq!(transfer(&file, &writable, false, 50, all), 5 * PAGE.cast_signed() as isize);
        0
    });
    assert_eq!(result, 0);
}

#[test]
fn population_fills_no_holes_where_nobody_stores() {
    let result = in_child(|| {
        become_nobody();
        let file = FakeFile::new();
        file.lay_out(1..2, 3);
        file.lock().end = 4;
        let mapper = file.mapper();
        let size = 4 * PAGE as usize;
        let request = lodefs_mapping::Request { offset: 0, size, writable: false };
        let region = lodefs_mapping::Region::new(&mapper, &request).unwrap();
        region.populate(true);
        assert_eq!(transfer(&file, &region, true, 20, size), size.cast_signed());
        assert_eq!((file.allocations.load(SeqCst), file.faults.load(SeqCst)), (0, 4));
        0
    });
    assert_eq!(result, 0);
}

#[test]
fn whoever_waits_for_population_hears_of_the_end() {
    let result = in_child(|| {
        become_nobody();
        let file = FakeFile::new();
        file.lock().is_silent = true;
        let mapper = file.mapper();
        let region = region(&mapper, 4);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| region.populate(true));
            while file.faults.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            mapper.shut_down();
            waiting.join().unwrap();
        });
        0
    });
    assert_eq!(result, 0);
}

#[test]
fn with_the_right_to_that_nothing_is_populated() {
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 4);
    region.populate(true);
    assert_eq!(file.faults.load(SeqCst), 0);
}

#[test]
fn without_the_right_to_that_they_fail() {
    let result = in_child(|| {
        become_nobody();
        let file = FakeFile::new();
        file.lay_out(0..2, 0);
        let mapper = file.mapper();
        let region = region(&mapper, 2);
        assert!(!mapper.serves_system_calls());
        assert_eq!(transfer(&file, &region, false, PAGES - 1, 4), -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
        number(&region, 0).store(3, SeqCst);
        assert_eq!((transfer(&file, &region, false, PAGES - 1, 4), file.number_at(0)), (4, 0));
        region.recall(0, u64::MAX, 0);
        assert_eq!(number(&region, 0).load(SeqCst), 0);
        0
    });
    assert_eq!(result, 0);
}
