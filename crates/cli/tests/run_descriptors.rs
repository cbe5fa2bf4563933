//! `lodefs run`: descriptors that become other files unseen, and several of one file.

mod common;

use std::ffi::{CString, c_int};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use common::programs::{open, play_on_stage, playing, stage, system_calls, told};
use common::{Mounted, lodefs, on_memory, succeed, unseen};

/// The variable that says where another volume is mounted.
const OTHER: &str = "LODEFS_TEST_OTHER";

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "closed" => closed_unseen(&place),
        "copies" => copies(&place),
        "siblings" => siblings(&place),
        "volumes" => volumes(&place),
        part => panic!("{part}"),
    }
}

/// Whether the kernel is asked to write.
fn needs_system_call(write: impl FnOnce()) -> bool {
    let (_, before) = system_calls();
    write();
    system_calls().1 > before
}

/// Opens a file as nobody sees it who replaces functions of the C library.
fn open_unseen(path: &Path) -> c_int {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends.
    let file = unsafe {
        let (at, flags) = (unseen::int(libc::AT_FDCWD), unseen::int(libc::O_RDWR));
        unseen::call(libc::SYS_openat, [at, path.as_ptr().addr(), flags, 0, 0, 0])
    };
    c_int::try_from(file.unwrap()).unwrap()
}

fn closed_unseen(place: &Path) {
    fs::write(place.join("other"), [9; 4096]).unwrap();
    for _ in 0..50 {
        let file = open(&place.join("f"));
        let mut page = [0; 4096];
        for _ in 0..20 {
            file.write_all_at(&[1; 4096], 0).unwrap();
            file.read_exact_at(&mut page, 0).unwrap();
        }
        let number = file.as_raw_fd();
        std::mem::forget(file);
        // SAFETY: nobody uses the descriptor any more.
        unsafe { unseen::call(libc::SYS_close, [unseen::int(number), 0, 0, 0, 0, 0]).unwrap() };
        assert_eq!(open_unseen(&place.join("other")), number);
        // SAFETY: it has just been opened.
        let other = unsafe { File::from_raw_fd(number) };
        // Until the server is asked again.
        sleep(Duration::from_millis(20));
        other.read_exact_at(&mut page, 0).unwrap();
        assert!(page == [9; 4096], "{} of the other file", page[0]);
        other.write_all_at(&[9; 4096], 0).unwrap();
    }
    assert!(fs::read(place.join("f")).unwrap() == [1; 4096]);
}

#[test]
fn a_descriptor_that_was_closed_unseen_is_another_file() {
    play_on_stage("closed");
}

fn copies(place: &Path) {
    fs::write(place.join("other"), [9; 4096]).unwrap();
    for _ in 0..20 {
        let file = open(&place.join("f"));
        let number = file.try_clone().unwrap().into_raw_fd();
        let other = || {
            // SAFETY: the descriptor is open, and stays so.
            ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
        };
        let mut page = [0; 4096];
        while needs_system_call(|| other().write_all_at(&[1; 4096], 0).unwrap()) {
            sleep(Duration::from_millis(1));
        }
        // SAFETY: nobody uses the descriptor any more.
        unsafe { unseen::call(libc::SYS_close, [unseen::int(number), 0, 0, 0, 0, 0]).unwrap() };
        // Until what was taken back at the close is there again.
        while needs_system_call(|| file.write_all_at(&[3; 4096], 0).unwrap()) {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(open_unseen(&place.join("other")), number);
        other().read_exact_at(&mut page, 0).unwrap();
        assert!(page == [9; 4096], "{} of the other file", page[0]);
        // SAFETY: nobody uses the descriptor any more.
        unsafe { unseen::call(libc::SYS_close, [unseen::int(number), 0, 0, 0, 0, 0]).unwrap() };
        assert!(fs::read(place.join("f")).unwrap() == [3; 4096]);
    }
}

#[test]
fn a_copy_that_was_closed_unseen_is_another_file() {
    play_on_stage("copies");
}

/// Descriptors of one file: some were opened, one was copied, one appends.
fn siblings(place: &Path) {
    let path = place.join("f");
    let file = open(&path);
    file.write_all_at(&[0; 4096], 0).unwrap();
    let files = [file.try_clone().unwrap(), open(&path), file];
    let mut log = OpenOptions::new().append(true).read(true).open(&path).unwrap();
    let before = system_calls();
    for number in 0..1000_u64 {
        log.write_all(&number.to_ne_bytes()).unwrap();
        for (index, writer) in files.iter().enumerate() {
            let bytes = (number * 3 + index as u64).to_ne_bytes();
            writer.write_all_at(&bytes, index as u64 * 8).unwrap();
            let mut read = [0; 8];
            files[(index + 1) % 3].read_exact_at(&mut read, index as u64 * 8).unwrap();
            assert_eq!(read, bytes);
            files[index].read_exact_at(&mut read, 4096 + number * 8).unwrap();
            assert_eq!(read, number.to_ne_bytes());
        }
    }
    let after = system_calls();
    assert!(after.0 - before.0 < 400 && after.1 - before.1 < 400, "{before:?}, {after:?}");
}

#[test]
fn descriptors_of_one_file_do_not_take_it_from_each_other() {
    play_on_stage("siblings");
}

/// A number that becomes a file of another volume, with the same number of inode, while another descriptor of the first one is there.
fn volumes(place: &Path) {
    let paths = [place.join("f"), Path::new(&std::env::var_os(OTHER).unwrap()).join("f")];
    let [first, second] = [open(&paths[0]), open(&paths[1])];
    first.write_all_at(&[b'A'; 4096], 0).unwrap();
    second.write_all_at(&[b'B'; 4096], 0).unwrap();
    assert_eq!(first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
    let same = open(&paths[0]);
    // SAFETY: both are descriptors of this test's.
    let replaced = unsafe {
        let (from, to) = (unseen::int(second.as_raw_fd()), unseen::int(first.as_raw_fd()));
        unseen::call(libc::SYS_dup3, [from, to, 0, 0, 0, 0])
    };
    assert_eq!(replaced, Ok(first.as_raw_fd() as isize));
    let mut byte = [0];
    for _ in 0..200 {
        first.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, *b"B");
        same.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, *b"A");
    }
    while needs_system_call(|| same.write_all_at(b"Z", 100).unwrap()) {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(paths.map(|path| fs::read(path).unwrap()[100]), *b"ZB");
}

#[test]
fn files_of_different_volumes_are_not_taken_for_each_other() {
    let Some((bench, mounted)) = stage() else { return };
    let other = Mounted { directory: bench.path("other") };
    fs::create_dir(&other.directory).unwrap();
    let mut mount = lodefs(["mount", "--create", "64M", "-o", "dax=always"]);
    succeed(on_memory(mount.arg(bench.path("other.vol")).arg(&other.directory)));
    let mut playing = playing(&[], "volumes", &mounted.directory);
    assert!(succeed(playing.env(OTHER, &other.directory)).contains("1 passed"));
    mounted.unmount();
    other.unmount();
}
