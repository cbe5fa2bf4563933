//! One copy of the bytes, for whoever looks at them in whatever way.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use libc::PROT_READ;

use crate::common::programs::{open, play_on_stage};
use crate::{BOTH, PAGE, byte, in_child, load, map, map_at, store, unmap};

/// One copy of the bytes, whoever looks at them.
pub(crate) fn shares(place: &Path) {
    let file = open(&place.join("f"));
    file.set_len(4 * PAGE as u64).unwrap();
    let (one, other) = (map(&file, 8, BOTH), map(&file, 4, PROT_READ));
    store(one, 5000, 7);
    assert_eq!((byte(&file, 5000), load(other, 5000)), (7, 7));
    file.write_all_at(b"written", 100).unwrap();
    assert_eq!((load(one, 100), load(other, 106)), (b'w', b'n'));
    // SAFETY: the ranges are mapped.
    unsafe {
        assert_eq!(libc::msync(one.cast(), 4 * PAGE, libc::MS_SYNC), 0);
        assert_eq!(libc::msync(one.cast(), PAGE, libc::MS_SYNC | libc::MS_ASYNC), -1);
        assert_eq!(libc::madvise(one.cast(), 4 * PAGE, libc::MADV_DONTNEED), 0);
        assert_eq!(load(one, 5000), 7, "what is in a file stays there");
        assert_eq!(libc::madvise(one.add(PAGE).cast(), PAGE, libc::MADV_REMOVE), 0);
        let mut there = [0; 4];
        assert_eq!(libc::mincore(one.cast(), 4 * PAGE, there.as_mut_ptr()), 0);
        assert_eq!(there, [1; 4]);
    }
    assert_eq!((load(one, 5000), byte(&file, 5000), load(one, 100)), (0, 0, b'w'));
    file.set_len(8 * PAGE as u64).unwrap();
    store(one, 7 * PAGE, 8);
    assert_eq!(byte(&file, 7 * PAGE), 8);
    let ended = in_child(|| {
        store(one, 200, if (load(one, 100), load(other, 106)) == (b'w', b'n') { 9 } else { 1 });
    });
    assert!(ended.success());
    assert_eq!((load(other, 200), byte(&file, 200)), (9, 9));
    // The rest of what has a hole in it.
    unmap(one.wrapping_add(2 * PAGE), 3 * PAGE);
    store(one, 201, 10);
    store(one, 7 * PAGE + 1, 11);
    assert_eq!((load(other, 201), byte(&file, 7 * PAGE + 1)), (10, 11));
    drop(file);
    fs::remove_file(place.join("f")).unwrap();
    store(one, 202, 12);
    assert_eq!(load(other, 202), 12);
    unmap(one, 8 * PAGE);
    unmap(other, 4 * PAGE);
    let private = open(&place.join("g"));
    private.write_all_at(&[1; PAGE], 0).unwrap();
    // SAFETY: nothing that is there is replaced.
    let own = unsafe { map_at(ptr::null_mut(), &private, (0, 1), BOTH, libc::MAP_PRIVATE) }.unwrap();
    store(own, 0, 2);
    assert_eq!(byte(&private, 0), 1);
}

#[test]
fn a_mapping_shows_what_everybody_else_sees() {
    play_on_stage("shares");
}

/// Who has the kernel send a file keeps pages of it in the kernel's cache.
pub(crate) fn spliced(place: &Path) {
    let file = open(&place.join("f"));
    file.set_len(2 * PAGE as u64).unwrap();
    let out = tempfile::tempfile().unwrap();
    let (mapped, private) = (map(&file, 2, BOTH), {
        // SAFETY: nothing that is there is replaced.
        unsafe { map_at(ptr::null_mut(), &file, (0, 2), PROT_READ, libc::MAP_PRIVATE) }.unwrap()
    });
    for round in 0..200_u8 {
        let byte = round | 1;
        if round % 3 == 0 {
            file.write_all_at(&[byte], PAGE as u64).unwrap();
        } else {
            store(mapped, PAGE, byte);
        }
        let mut offset = 0;
        // SAFETY: the offset has room.
        let sent = unsafe {
            libc::lseek(out.as_raw_fd(), 0, libc::SEEK_SET);
            libc::sendfile(out.as_raw_fd(), file.as_raw_fd(), &raw mut offset, 2 * PAGE)
        };
        assert_eq!(sent, (2 * PAGE).cast_signed());
        assert_eq!((self::byte(&out, PAGE), load(private, PAGE)), (byte, byte), "round {round}");
    }
}

#[test]
fn what_is_spliced_or_mapped_privately_is_what_was_stored_last() {
    play_on_stage("spliced");
}

/// Many mappings of many files, by a program that closes all descriptors that it does not know, and executes another one.
pub(crate) fn tidy(place: &Path) {
    let all: Vec<*mut u8> = (0..500)
        .map(|number: usize| {
            let file = open(&place.join((number % 100).to_string()));
            file.set_len(8 * PAGE as u64).unwrap();
            map(&file, 8, BOTH)
        })
        .collect();
    for descriptor in 3..5000 {
        // SAFETY: what is this program's own is not used any more; the rest is not there for it.
        unsafe { libc::close(descriptor) };
    }
    for (number, mapped) in all.iter().enumerate() {
        store(*mapped, number / 100 * PAGE, 1 + (number / 100) as u8);
    }
    for number in 0..100 {
        let content = fs::read(place.join(number.to_string())).unwrap();
        assert!((0..5_usize).all(|page| usize::from(content[page * PAGE]) == page + 1), "file {number}");
    }
    for mapped in all {
        unmap(mapped, 8 * PAGE);
    }
    assert!(Command::new("true").status().unwrap().success());
}

#[test]
fn mappings_need_no_descriptor_of_the_program() {
    play_on_stage("tidy");
}
