//! The log holds what the code did, in order, with the places of the calls.

use std::panic::Location;

use lodefs_pmem::{Access, DirtyRanges, Domain, Event, Medium, Recording, What};

const SIZE: u64 = 16 << 10;

fn recorded(domain: Domain) -> (Medium, Recording) {
    Medium::recording(SIZE, domain).unwrap()
}

/// A short form of an event that leaves out thread and location.
fn short(event: &Event) -> String {
    match &event.what {
        What::Store { at, bytes, non_temporal: true } => format!("stream {at}+{}", bytes.len()),
        What::Store { at, bytes, non_temporal: false } => format!("store {at}+{}", bytes.len()),
        What::Flush { at, size, .. } => format!("flush {at}+{size}"),
        What::Fence { .. } => "fence".to_owned(),
        What::Sync { .. } => "sync".to_owned(),
        What::Mark(number) => format!("mark {number}"),
        What::Read { at, size } => format!("read {at}+{size}"),
    }
}

fn log(recording: &Recording) -> Vec<String> {
    recording.take().iter().map(short).collect()
}

/// Writes, changes metadata, makes a checkpoint.
fn one_operation(medium: &Medium) {
    medium.mark(1);
    let small = medium.write(3, b"abc").unwrap();
    let large = medium.write(4096, &[7; 100]).unwrap();
    let zeroes = medium.zero(8192, 64).unwrap();
    let ordered = medium.fence(small.and(large).and(zeroes)).unwrap();
    let mut dirty = DirtyRanges::default();
    dirty.push(medium.store_meta(12_300, b"later", &ordered).unwrap());
    dirty.push(medium.store_meta(12_288, b"metadata", &ordered).unwrap());
    medium.mark(2);
    let durable = medium.sync(Medium::nothing_flushed()).unwrap();
    let staged = medium.stage(dirty);
    let (settled, _durable) = medium.settle(staged, &durable).unwrap();
    medium.release(settled, &DirtyRanges::default());
}

#[test]
fn with_write_back_small_stores_are_flushed_and_metadata_when_it_settles() {
    let (medium, recording) = recorded(Domain::MemoryController);
    one_operation(&medium);
    assert_eq!(
        log(&recording),
        [
            "mark 1",
            "store 3+3",
            "flush 3+3",
            "stream 4096+100",
            "stream 8192+64",
            "fence",
            "store 12300+5",
            "store 12288+8",
            "mark 2",
            "flush 12288+64",
            "fence",
        ]
    );
    assert_eq!(log(&recording), [""; 0], "events are taken once");
}

#[test]
fn with_saved_caches_there_are_only_fences() {
    let (medium, recording) = recorded(Domain::CpuCache);
    one_operation(&medium);
    assert_eq!(
        log(&recording),
        [
            "mark 1",
            "store 3+3",
            "store 4096+100",
            "store 8192+64",
            "fence",
            "store 12300+5",
            "store 12288+8",
            "mark 2",
            "fence",
        ]
    );
}

#[test]
fn with_pages_metadata_is_stored_when_it_settles_and_then_synced() {
    let (medium, recording) = recorded(Domain::Page);
    one_operation(&medium);
    assert_eq!(
        log(&recording),
        [
            "mark 1",
            "store 3+3",
            "store 4096+100",
            "store 8192+64",
            "mark 2",
            "sync",
            "store 12288+4096",
            "sync",
        ]
    );
}

#[test]
fn the_log_reproduces_the_medium() {
    for domain in Domain::ALL {
        let image: Vec<u8> = (0..SIZE).map(|at| at as u8).collect();
        let (medium, recording) = Medium::recording_from_image(&image, domain, Access::ReadWrite).unwrap();
        one_operation(&medium);
        let mut replayed = image;
        for event in recording.take() {
            if let What::Store { at, bytes, .. } = event.what {
                replayed[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let mut found = vec![0; SIZE as usize];
        medium.read(0, &mut found).unwrap();
        assert_eq!(found, replayed, "{domain}");
    }
}

#[test]
fn flushes_fences_and_syncs_name_the_call() {
    let location = |event: &Event| match event.what {
        What::Flush { location, .. } | What::Fence { location } | What::Sync { location } => Some(location),
        What::Store { .. } | What::Read { .. } | What::Mark(_) => None,
    };
    let (medium, recording) = recorded(Domain::MemoryController);
    let line = Location::caller().line();
    let flushed = medium.write(0, b"abc").unwrap();
    let _ordered = medium.fence(flushed).unwrap();
    let flushed = medium.write(128, b"abc").unwrap();
    let durable = medium.sync(flushed).unwrap();
    let mut dirty = DirtyRanges::default();
    let ordered = medium.fence(Medium::nothing_flushed()).unwrap();
    dirty.push(medium.store_meta(64, b"abc", &ordered).unwrap());
    let _settled = medium.settle(medium.stage(dirty), &durable).unwrap();
    let places: Vec<_> = recording.take().iter().filter_map(location).collect();
    assert!(places.iter().all(|place| place.file() == file!()));
    let lines: Vec<_> = places.iter().map(|place| place.line() - line).collect();
    // write: flush; fence; write: flush; sync: fence; nothing to fence; settle: flush and fence.
    assert_eq!(lines, [1, 2, 3, 4, 8, 8]);

    let (medium, recording) = recorded(Domain::Page);
    let line = Location::caller().line();
    let durable = medium.sync(Medium::nothing_flushed()).unwrap();
    let _settled = medium.settle(medium.stage(DirtyRanges::default()), &durable).unwrap();
    let lines: Vec<_> =
        recording.take().iter().filter_map(location).map(|place| place.line() - line).collect();
    assert_eq!(lines, [1, 2]);
}

#[test]
fn events_tell_their_threads_apart() {
    let (medium, recording) = recorded(Domain::MemoryController);
    medium.mark(0);
    std::thread::scope(|scope| {
        scope.spawn(|| medium.mark(1));
    });
    medium.mark(2);
    let threads: Vec<_> = recording.take().iter().map(|event| event.thread).collect();
    assert_eq!(threads[0], threads[2]);
    assert_ne!(threads[0], threads[1]);
}

#[test]
fn the_log_of_many_threads_is_in_the_order_of_what_they_did() {
    let (medium, recording) = recorded(Domain::MemoryController);
    std::thread::scope(|scope| {
        for number in 0..4u8 {
            let medium = &medium;
            scope.spawn(move || {
                for _ in 0..200 {
                    let _ordered = medium.fence(medium.write(0, &[number; 64]).unwrap()).unwrap();
                }
            });
        }
    });
    let events = recording.take();
    assert_eq!(events.len(), 4 * 200 * 2);
    let last = events.iter().rev().find_map(|event| match &event.what {
        What::Store { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    let mut found = vec![0; 64];
    medium.read(0, &mut found).unwrap();
    assert_eq!(Some(found), last);
}
