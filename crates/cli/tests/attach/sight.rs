//! What do programs see that have mapped a file?

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use lodefs_direct::{MapOptions, MappingKind};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::program::Program;
use crate::stage::{PAGE, Stage, byte, map, open};

#[test]
fn a_mapping_and_the_mount_show_one_file() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(64);
    let blocks = || fs::metadata(&path).unwrap().len();
    let mapping = map(&file, 64 * 4096).unwrap();
    assert_eq!(mapping.kind(), MappingKind::Direct);
    let mut bytes = [9; 3];
    mapping.read(5 * 4096, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 3]);
    mapping.write(5 * 4096 + 1, b"ab").unwrap();
    mapping.persist(5 * 4096 + 1..5 * 4096 + 3).unwrap();
    let mut read = [9; 4];
    file.read_exact_at(&mut read, 5 * PAGE).unwrap();
    assert_eq!(&read, b"\0ab\0");
    file.write_all_at(b"from the mount", 5 * PAGE + 2).unwrap();
    let mut read = [0; 16];
    mapping.read(5 * 4096, &mut read).unwrap();
    assert_eq!(&read, b"\0afrom the mount");
    // A hole that was read through the mapping, and is filled through the mount.
    mapping.read(7 * 4096, &mut read).unwrap();
    file.write_all_at(b"x", 7 * PAGE).unwrap();
    mapping.read(7 * 4096, &mut read[..1]).unwrap();
    assert_eq!(read[0], b'x');
    mapping.sync().unwrap();
    assert_eq!(blocks(), 64 * PAGE);
    drop(mapping);
    assert_eq!(byte(&file, 7 * PAGE), b'x');
    drop(file);
    stage.tear_down();
}

#[test]
fn system_calls_may_use_a_mapping_as_their_buffer() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (_, file) = stage.hole(64);
    let mapping = map(&file, 64 * 4096).unwrap();
    let page = |number: usize| {
        // SAFETY: within the mapping; nobody else uses these pages now.
        unsafe { std::slice::from_raw_parts_mut(mapping.as_ptr().add(number * 4096), 4096) }
    };
    // The same file, from and to pages that are not there yet.
    for round in 0..20 {
        file.write_all_at(page(round), (40 + round as u64) * PAGE).unwrap();
        file.read_exact_at(page(20 + round), round as u64 * PAGE).unwrap();
    }
    page(0).fill(7);
    file.write_all_at(page(0), 0).unwrap();
    assert_eq!(byte(&file, 4095), 7);
    drop(mapping);
    drop(file);
    stage.tear_down();
}

#[test]
fn beyond_the_end_there_is_sigbus_until_the_file_is_longer() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let mut program = Program::start(&path, 16 * 4096, MappingKind::Direct);
    for page in 0..8 {
        program.write(page * PAGE, 1);
    }
    file.set_len(2 * PAGE).unwrap();
    let mut other = Program::start(&path, 16 * 4096, MappingKind::Direct);
    assert_eq!(other.tell("read 8192"), "", "it dies");
    assert_eq!(other.death(), Some(Signal::BUS.as_raw()));
    file.set_len(12 * PAGE).unwrap();
    assert_eq!(program.read(2 * PAGE), 0, "not what was there before");
    program.write(11 * PAGE, 5);
    assert_eq!(byte(&file, 11 * PAGE), 5);
    file.set_len(PAGE).unwrap();
    assert_eq!(program.tell("write 8192 1"), "");
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    drop(file);
    stage.tear_down();
}

#[test]
fn where_there_is_no_room_there_is_sigbus_and_nothing_else_is_lost() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(1 << 20);
    let mut program = Program::start(&path, 1 << 30, MappingKind::Direct);
    program.write(0, 1);
    let other = open(&stage.mounted.path("other"));
    let mut size = 64 << 20;
    while size >= PAGE {
        if fallocate(&other, FallocateFlags::empty(), other.metadata().unwrap().len(), size).is_err() {
            size /= 2;
        }
    }
    let mut page = 1;
    while program.tell(&format!("write {} 1", page * PAGE)) == "done" {
        page += 1;
    }
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    assert_eq!((byte(&file, 0), byte(&file, page * PAGE)), (1, 0));
    drop((file, other));
    stage.tear_down();
}

#[test]
fn the_end_of_the_largest_file_can_be_mapped_and_nothing_behind_it() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let file = open(&stage.mounted.path("f"));
    file.set_len(i64::MAX as u64).unwrap();
    let last = (1 << 63) - PAGE;
    let options = |offset, size| MapOptions { offset, size, writable: true, sync: false };
    let mapping = lodefs_direct::map(&file, &options(last, 4096)).unwrap();
    mapping.write(4090, b"last").unwrap();
    let mut read = [0; 4];
    file.read_exact_at(&mut read, last + 4090).unwrap();
    assert_eq!(&read, b"last");
    for (offset, size) in
        [(last, 8192), (last + PAGE, 4096), (u64::MAX - 4095, 4096), (last - PAGE, usize::MAX)]
    {
        let refused = lodefs_direct::map(&file, &options(offset, size)).map(|_| ());
        assert!(
            matches!(refused, Err(Errno::INVAL | Errno::OVERFLOW | Errno::NOMEM)),
            "{offset}: {refused:?}"
        );
    }
    drop((mapping, file));
    stage.tear_down();
}

#[test]
fn sixteen_threads_of_four_processes_fill_one_hole_once() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(256);
    let mut programs: Vec<Program> =
        (0..4).map(|_| Program::start(&path, 256 * 4096, MappingKind::Direct)).collect();
    for (program, number) in programs.iter_mut().zip(0..) {
        program.begin(&format!("race 256 {number}"));
    }
    for program in &mut programs {
        assert_eq!(program.answer(), "done");
    }
    let content = fs::read(&path).unwrap();
    for page in content.chunks(4096) {
        assert!(page[..64].iter().all(|byte| *byte == 1) && page[64..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 256 * 8);
    drop((file, programs));
    stage.tear_down();
}

#[test]
fn threads_that_map_for_the_first_time_at_once_share_an_attachment() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (_, file) = stage.hole(8);
    for round in 0..100_usize {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    let mapping = map(file, 8 * 4096).unwrap();
                    mapping.write(thread * 4096, &[round as u8]).unwrap();
                });
            }
        });
        assert_eq!(byte(&file, 7 * PAGE), round as u8);
    }
    drop(file);
    stage.tear_down();
}

/// The kernel would remember what it was told before.
#[test]
fn times_show_what_was_stored() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, file) = stage.hole(2);
    let time = || file.metadata().unwrap().modified().unwrap();
    let before = time();
    let mapping = map(&file, 2 * PAGE as usize).unwrap();
    let mapped = time();
    assert!(mapped > before, "when it is mapped");
    mapping.write(0, &[1]).unwrap();
    let faulted = time();
    assert!(faulted > mapped, "when a page of it is written to first");
    mapping.write(0, &[2]).unwrap();
    mapping.sync().unwrap();
    let synced = time();
    assert!(synced > faulted, "when it is made durable");
    mapping.write(0, &[3]).unwrap();
    drop(mapping);
    assert!(time() > synced, "and when it goes");
    drop(file);
    stage.tear_down();
}
