//! Files in memory: what mappings show, beside reads and writes of the same files.

use std::os::fd::AsRawFd;
use std::thread;

mod bench;
mod child;
mod ends;
mod refused;
mod threads;

use bench::{PAGE, PAGE_SIZE, allocated, byte, file, map, map_at, volume};
use lodefs::maps::{FileId, Kind};
use lodefs::{File, Flags, MapOptions, MappingKind};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

/// The program that other tests start.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    child::run();
}

#[test]
fn a_mapping_and_the_file_are_one() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    let mapping = map(&file, 64);
    assert_eq!((mapping.kind(), mapping.size()), (MappingKind::Direct, 64 * PAGE_SIZE));
    mapping.write(5 * PAGE_SIZE + 1, b"ab").unwrap();
    mapping.persist(5 * PAGE_SIZE + 1..5 * PAGE_SIZE + 3).unwrap();
    let mut read = [9; 4];
    file.read_exact_at(&mut read, 5 * PAGE).unwrap();
    assert_eq!(&read, b"\0ab\0");
    file.write_all_at(b"from the file", 5 * PAGE + 2).unwrap();
    let mut read = [0; 15];
    mapping.read(5 * PAGE_SIZE, &mut read).unwrap();
    assert_eq!(&read, b"\0afrom the file");
    let other = map_at(&file, 4 * PAGE, 2 * PAGE_SIZE);
    assert_eq!(byte(&other, PAGE_SIZE + 1), b'a');
}

#[test]
fn a_program_can_ask_what_it_has_mapped() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    file.write_all_at(&[1; 3 * PAGE_SIZE], 2 * PAGE).unwrap();
    let mapping = map_at(&file, PAGE, 16 * PAGE_SIZE);
    byte(&mapping, PAGE_SIZE);
    byte(&mapping, 10 * PAGE_SIZE);
    let census = lodefs::census();
    let start = mapping.as_ptr().addr() as u64;
    let own: Vec<_> =
        census.ranges.iter().filter(|range| range.start >= start && range.end <= start + 16 * PAGE).collect();
    let kind = |page: u64| {
        let range = own.iter().find(|range| {
            range.offset <= page * PAGE && page * PAGE < range.offset + range.end - range.start
        });
        range.unwrap().kind
    };
    assert_eq!([1, 2, 11].map(kind), [Kind::Untouched, Kind::Direct, Kind::Hole]);
    assert!(own.windows(2).all(|two| two[0].end == two[1].start && two[0].durable_by == two[1].durable_by));
    let FileId::Volume { volume: uuid, .. } = census.files[own[0].file as usize].id else {
        panic!("no volume")
    };
    assert_eq!(uuid, volume.info().uuid);
}

#[test]
fn system_calls_find_all_of_it_where_the_kernel_lets_nobody_serve_them() {
    let volume = volume();
    let (file, vast) = (file(&volume, "f", 64), file(&volume, "vast", 1 << 30));
    let both = thread::scope(|scope| {
        let as_nobody = || {
            // Of this thread only, which is the one that maps first.
            let nobody = Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
            (map(&file, 64), map(&vast, 1 << 20))
        };
        scope.spawn(as_nobody).join().unwrap()
    });
    let source = tempfile::tempfile().unwrap();
    source.set_len(64 * PAGE).unwrap();
    let buffer = both.0.as_ptr().cast();
    // SAFETY: the buffer is mapped, and nobody uses it otherwise meanwhile.
    let read = unsafe { libc::pread(source.as_raw_fd(), buffer, 64 * PAGE_SIZE, 0) };
    assert_eq!(read, (64 * PAGE_SIZE).cast_signed());
    // There is no room for all of the other one, so nothing of it was filled.
    assert_eq!((allocated(&file), allocated(&vast)), (64 * PAGE, 0));
}

#[test]
fn a_hole_that_is_read_takes_no_space_and_is_filled_by_a_store() {
    let volume = volume();
    let file = file(&volume, "f", 1 << 20);
    let mapping = map(&file, 1 << 20);
    let blocks = || allocated(&file);
    for page in (0..1 << 20).step_by(5000) {
        assert_eq!(byte(&mapping, page * PAGE_SIZE), 0);
    }
    assert_eq!(blocks(), 0);
    mapping.write(5000 * PAGE_SIZE, &[1]).unwrap();
    assert_eq!(blocks(), PAGE);
    // Zeroes that are mapped are taken back when there is something else.
    file.write_all_at(b"x", 10_000 * PAGE).unwrap();
    assert_eq!(byte(&mapping, 10_000 * PAGE_SIZE), b'x');
    file.allocate(0, 16 * PAGE).unwrap();
    mapping.write(0, &[7; 3]).unwrap();
    let mut read = [0; 4];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!((read, blocks()), ([7, 7, 7, 0], 18 * PAGE));
}

#[test]
fn what_is_punched_or_cut_off_is_zeroes_and_nobody_elses() {
    let volume = volume();
    let file = file(&volume, "f", 64);
    let mapping = map(&file, 64);
    for page in 0..64 {
        mapping.write(page * PAGE_SIZE, &[page as u8 + 1]).unwrap();
    }
    file.punch_hole(10 * PAGE, 10 * PAGE).unwrap();
    file.set_len(32 * PAGE + 1).unwrap();
    file.set_len(64 * PAGE).unwrap();
    // Whoever gets the blocks now keeps what it writes.
    volume.write("other", vec![99; 60 << 20]).unwrap_or_default();
    let size = volume.metadata("other").unwrap().len();
    assert!(size > 0);
    for page in 0..64 {
        let is_there = page < 10 || (20..33).contains(&page);
        assert_eq!(
            byte(&mapping, page * PAGE_SIZE),
            if is_there { page as u8 + 1 } else { 0 },
            "page {page}"
        );
    }
    mapping.write(0, &[50]).unwrap();
    assert!(volume.read("other").unwrap().iter().all(|byte| *byte == 99));
    assert_eq!(byte(&mapping, 32 * PAGE_SIZE + 1), 0, "the rest of the last page is zeroes");
}

#[test]
fn behind_the_end_in_the_last_page_there_are_zeroes_and_stores_are_lost() {
    let volume = volume();
    let file = file(&volume, "f", 1);
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.set_len(100).unwrap();
    let mapping = map(&file, 1);
    assert_eq!((byte(&mapping, 99), byte(&mapping, 100)), (1, 0));
    mapping.write(100, &[2]).unwrap();
    file.set_len(PAGE).unwrap();
    let mut read = [9];
    file.read_exact_at(&mut read, 100).unwrap();
    assert_eq!(read, [0]);
}

#[test]
fn huge_pages_fit() {
    const HUGE: usize = 2 << 20;
    let volume = volume();
    let file = file(&volume, "f", 2048);
    for offset in [0, PAGE, 5 * PAGE, 2 << 20, (2 << 20) + 7 * PAGE] {
        let mapping = map_at(&file, offset, 3 << 20);
        assert_eq!(mapping.as_ptr().addr() % HUGE, offset as usize % HUGE, "{offset}");
    }
}

#[test]
fn what_was_stored_is_made_durable_in_every_way() {
    let volume = volume();
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    mapping.write(0, &[1; 100]).unwrap();
    mapping.flush(0..50).unwrap();
    mapping.flush(50..100).unwrap();
    mapping.drain();
    mapping.persist(0..8 * PAGE_SIZE).unwrap();
    mapping.persist(8 * PAGE_SIZE..8 * PAGE_SIZE).unwrap();
    let before = file.metadata().unwrap().modified();
    while file.metadata().unwrap().modified() == before {
        mapping.sync().unwrap();
    }
    let einval = |result: std::io::Result<()>| assert_eq!(lodefs::errno(&result.unwrap_err()), Some(22));
    einval(mapping.persist(0..8 * PAGE_SIZE + 1));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
    einval(mapping.flush(2..1));
    einval(mapping.read(usize::MAX, &mut [0; 2]));
    einval(mapping.write(8 * PAGE_SIZE, &[0]));
}

#[test]
fn a_file_that_has_no_name_any_more_stays_mapped() {
    let volume = volume();
    let before = volume.space().blocks_free;
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    mapping.write(0, &[1]).unwrap();
    volume.remove_file("f").unwrap();
    drop(file);
    mapping.write(4 * PAGE_SIZE, &[2]).unwrap();
    assert_eq!((byte(&mapping, 0), byte(&mapping, 4 * PAGE_SIZE)), (1, 2));
    drop(mapping);
    assert_eq!(volume.space().blocks_free, before);
}

#[test]
fn the_flag_for_mounts_changes_nothing_here() {
    let volume = volume();
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    for flags in [Flags::DAX, Flags::empty()] {
        file.set_flags(flags).unwrap();
        mapping.write(0, &[3]).unwrap();
        assert_eq!(map(&file, 1).kind(), MappingKind::Direct);
    }
}

#[test]
fn a_file_may_be_mapped_to_be_read_only() {
    let volume = volume();
    let written = file(&volume, "f", 8);
    written.write_all_at(b"text", 0).unwrap();
    let read_only = File::open(&volume, "f").unwrap();
    let options = MapOptions { offset: 0, size: 4096, writable: false, sync: false };
    let mapping = read_only.map(&options).unwrap();
    let mut read = [0; 4];
    mapping.read(0, &mut read).unwrap();
    assert_eq!(&read, b"text");
    assert_eq!(lodefs::errno(&mapping.write(0, b"x").unwrap_err()), Some(13));
    mapping.sync().unwrap();
}
