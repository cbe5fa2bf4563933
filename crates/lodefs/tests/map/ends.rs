//! When the volume is closed, the process forks, or a page cannot be had.

use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use lodefs::{Domain, File, Mapping, OpenOptions, Volume};

use crate::bench::{PAGE_SIZE, byte, file, map, volume};
use crate::child::{Death, start};

fn on_disk(directory: &Path) -> (PathBuf, Volume) {
    let path = directory.join("vol");
    let volume =
        Volume::options().size(16 << 20).force_domain(Domain::MemoryController).create(&path).unwrap();
    (path, volume)
}

fn open(path: &Path) -> std::io::Result<Volume> {
    Volume::options().force_domain(Domain::MemoryController).open(path)
}

#[test]
fn a_mapping_keeps_the_volume_open_and_no_longer() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, mut volume) = on_disk(scratch.path());
    drop(file(&volume, "f", 64));
    for round in 1..50 {
        let mapping = map(&OpenOptions::new().read(true).write(true).open(&volume, "f").unwrap(), 64);
        mapping.write(round * PAGE_SIZE, &[1]).unwrap();
        volume.close().unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(byte(&mapping, (round + 1) * PAGE_SIZE), 0, "a hole can still be read");
        mapping.write(round * PAGE_SIZE, &[round as u8]).unwrap();
        mapping.persist(0..64 * PAGE_SIZE).unwrap();
        drop(mapping);
        // At once: whatever else had the medium is gone, or has no lock.
        volume = open(&path).unwrap();
        assert!(volume.recovery().was_clean);
        assert_eq!(volume.read("f").unwrap()[round * PAGE_SIZE], round as u8);
    }
}

#[test]
fn when_the_volume_is_dropped_the_last_mapping_closes_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, volume) = on_disk(scratch.path());
    let mapping = map(&file(&volume, "f", 8), 8);
    drop(volume);
    mapping.write(5 * PAGE_SIZE, b"after").unwrap();
    drop(mapping);
    let volume = open(&path).unwrap();
    assert!(volume.recovery().was_clean);
    assert_eq!(volume.read("f").unwrap()[5 * PAGE_SIZE..5 * PAGE_SIZE + 5], *b"after");
}

#[test]
fn files_of_a_read_only_volume_can_be_mapped_to_be_read() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, volume) = on_disk(scratch.path());
    volume.write("f", b"text").unwrap();
    volume.close().unwrap();
    let volume =
        Volume::options().read_only(true).force_domain(Domain::MemoryController).open(&path).unwrap();
    let file = File::open(&volume, "f").unwrap();
    let options = lodefs::MapOptions { offset: 0, size: 4096, writable: false, sync: true };
    let mapping = file.map(&options).unwrap();
    assert_eq!((byte(&mapping, 0), byte(&mapping, 4)), (b't', 0));
}

#[test]
fn what_cannot_be_had_raises_sigbus() {
    // With a page that has been stored to before, and what is there.
    for (what, page, content) in [("beyond", 0, 1), ("cut", 6, 1), ("closed", 0, 2)] {
        let scratch = tempfile::tempdir().unwrap();
        let (path, volume) = on_disk(scratch.path());
        drop(file(&volume, "f", 8));
        volume.close().unwrap();
        assert_eq!(start(what, &path), Death::Signal(libc::SIGBUS), "{what}");
        assert_eq!(open(&path).unwrap().read("f").unwrap()[page * PAGE_SIZE], content, "{what}");
    }
}

#[test]
fn where_there_is_no_room_there_is_sigbus_and_nothing_else_is_lost() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, volume) = on_disk(scratch.path());
    drop(file(&volume, "f", 1 << 20));
    volume.close().unwrap();
    assert_eq!(start("full", &path), Death::Signal(libc::SIGBUS));
    let volume = open(&path).unwrap();
    assert!(!volume.recovery().was_clean);
    let other = volume.read("other").unwrap();
    assert!(!other.is_empty() && other.iter().all(|byte| *byte == 8));
    let file = File::open(&volume, "f").unwrap();
    let mut page = 0;
    while let Some(data) = file.seek_data(page * 4096).unwrap() {
        let mut read = [0];
        file.read_exact_at(&mut read, data).unwrap();
        assert_eq!((data, read), (page * 4096, [1]));
        page += 1;
    }
    assert!(page > 0, "the first stores had room");
}

#[test]
fn what_was_stored_survives_the_program() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, volume) = on_disk(scratch.path());
    drop(file(&volume, "f", 8));
    volume.close().unwrap();
    assert_eq!(start("killed", &path), Death::Signal(libc::SIGKILL));
    let content = open(&path).unwrap().read("f").unwrap();
    // The first page says where the data is, which came to be by a fault.
    let at = usize::from(content[0]) * PAGE_SIZE;
    assert_eq!(content[at..at + 4], *b"data");
}

/// How a forked child ends that does this with a mapping.
fn in_child(what: impl FnOnce()) -> Death {
    // SAFETY: the child does what it is given, which uses no lock that another thread could hold, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        what();
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    Death::of(std::os::unix::process::ExitStatusExt::from_raw(status))
}

fn first_byte(mapping: &Mapping) {
    std::hint::black_box(byte(mapping, 0));
}

#[test]
fn a_forked_child_has_nothing_of_it() {
    let volume = volume();
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    mapping.write(0, &[1]).unwrap();
    assert_eq!(in_child(|| first_byte(&mapping)), Death::Signal(libc::SIGSEGV));
    assert_eq!(in_child(|| mapping.write(PAGE_SIZE, &[1]).unwrap()), Death::Signal(libc::SIGSEGV));
    assert_eq!(in_child(|| ()), Death::Exit(0));
    assert_eq!((byte(&mapping, 0), byte(&mapping, PAGE_SIZE)), (1, 0), "the parent has all of it");
    file.punch_hole(0, 4096).unwrap();
    assert_eq!(byte(&mapping, 0), 0);
}

#[test]
fn a_child_that_drops_a_mapping_touches_nothing_of_the_parents() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, volume) = on_disk(scratch.path());
    let file = file(&volume, "f", 8);
    let mapping = map(&file, 8);
    mapping.write(0, &[1]).unwrap();
    let before = std::fs::read(&path).unwrap();
    // Moved to the child, and kept by the parent: each has its own copy of the value.
    // SAFETY: the copy is dropped in the child only, which is another process.
    let copy = ManuallyDrop::new(unsafe { std::ptr::read(&raw const mapping) });
    assert_eq!(in_child(|| drop(ManuallyDrop::into_inner(copy))), Death::Exit(0));
    assert!(std::fs::read(&path).unwrap() == before, "the child has changed the volume");
    mapping.write(PAGE_SIZE, &[2]).unwrap();
    assert_eq!((byte(&mapping, 0), byte(&mapping, PAGE_SIZE)), (1, 2));
}
