//! `lodefs run`: programs as they are, with direct access.

mod common;

use std::ffi::{CString, c_int};
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::programs::{open, play, play_on_stage, playing, run, stage, stage_with, system_calls, told};
use common::unseen::{call, int};
use common::{Mounted, Workbench, lodefs, succeed};

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "calls" => without_system_calls(&place),
        "offsets" => offsets(&place),
        "flags" => flags(&place),
        "forks" => forks(&place),
        "forks-beside" => forks_beside(&place),
        "elsewhere" => elsewhere(&place),
        "tidy" => tidy(&place),
        "parts" => parts(&place),
        "executes" => executes(&place),
        "counted" => counted(&place),
        "attributes" => attributes(&place),
        part => panic!("{part}"),
    }
}

/// `O_LARGEFILE` of the kernel, which the C library does not tell.
const LARGE_FILE: c_int = 0o100_000;

fn without_system_calls(place: &Path) {
    let mut file = open(&place.join("f"));
    file.write_all(&vec![7; 8 * 4096]).unwrap();
    let (reads, writes) = system_calls();
    let mut page = [0; 4096];
    file.rewind().unwrap();
    for number in 0..2000_u64 {
        file.write_all_at(&number.to_ne_bytes(), number % 8 * 4096).unwrap();
        file.read_exact_at(&mut page, number % 8 * 4096).unwrap();
        assert_eq!(page[..8], number.to_ne_bytes());
        if number % 8 == 0 {
            file.rewind().unwrap();
        }
        file.read_exact(&mut page).unwrap();
        assert_eq!(page[9], 7);
    }
    let (reads_after, writes_after) = system_calls();
    // Some at first, and each time that the kernel is asked for ten milliseconds because somebody else was.
    assert!(reads_after - reads < 400 && writes_after - writes < 200, "{reads_after}, {writes_after}");
    drop(file);
    let mut log = OpenOptions::new().append(true).create(true).open(place.join("log")).unwrap();
    for number in 0..1000_u64 {
        log.write_all(&number.to_ne_bytes()).unwrap();
    }
    assert!(log.read(&mut page).is_err(), "it may only be written");
    assert!(system_calls().1 - writes_after < 200, "{writes_after}");
    assert_eq!(log.metadata().unwrap().len(), 8000);
}

#[test]
fn reads_and_writes_need_no_system_call() {
    let Some((_bench, mounted)) = stage() else { return };
    play("calls", &mounted.directory);
    let file = fs::read(mounted.path("f")).unwrap();
    assert_eq!(file[7 * 4096..][..8], 1999_u64.to_ne_bytes());
    let log = fs::read(mounted.path("log")).unwrap();
    assert!(log.chunks(8).zip(0_u64..).all(|(written, number)| written == number.to_ne_bytes()));
    mounted.unmount();
}

fn offsets(place: &Path) {
    let mut file = open(&place.join("f"));
    let mut copy = file.try_clone().unwrap();
    let mut expected = Vec::new();
    for round in 0..200_u8 {
        let bytes = vec![round; 100 + usize::from(round)];
        let writer = if round % 2 == 0 { &mut file } else { &mut copy };
        writer.write_all(&bytes).unwrap();
        expected.extend(bytes);
        // The kernel's own offset is where it should be.
        // SAFETY: asks for a number.
        let offset = unsafe {
            let (file, whence) = (int(copy.as_raw_fd()), int(libc::SEEK_CUR));
            call(libc::SYS_lseek, [file, 0, whence, 0, 0, 0])
        };
        assert_eq!(offset, Ok(expected.len().cast_signed()));
    }
    copy.seek(SeekFrom::Start(50)).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, expected[50..]);
    assert_eq!(file.read(&mut [0; 10]).unwrap(), 0);
    // Behind the end there is a hole.
    file.seek(SeekFrom::Start(1 << 20)).unwrap();
    file.write_all(b"far").unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 3);
    let mut log = OpenOptions::new().read(true).append(true).open(place.join("f")).unwrap();
    log.rewind().unwrap();
    log.write_all(b"end").unwrap();
    assert_eq!(log.stream_position().unwrap(), (1 << 20) + 6);
}

#[test]
fn offsets_are_the_kernels() {
    play_on_stage("offsets");
}

fn flags(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(b"beginning", 0).unwrap();
    // SAFETY: asks for a number, or sets flags that the file may have.
    let (before, set, after) = unsafe {
        let before = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        let set = libc::fcntl(file.as_raw_fd(), libc::F_SETFL, before | libc::O_APPEND);
        (before, set, libc::fcntl(file.as_raw_fd(), libc::F_GETFL))
    };
    assert_eq!((before & !LARGE_FILE, set, after), (libc::O_RDWR, 0, before | libc::O_APPEND));
    file.write_all_at(b" and end", 0).unwrap();
    assert_eq!(fs::read(place.join("f")).unwrap(), b"beginning and end");
    let none = File::open("/proc/self/status").unwrap();
    // SAFETY: asks for a number.
    assert_eq!(unsafe { libc::fcntl(none.as_raw_fd(), libc::F_GETFL) } & libc::O_ASYNC, 0);
    let only_read = File::open(place.join("f")).unwrap();
    assert!(only_read.write_at(b"x", 0).is_err());
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(place.join("f")).unwrap();
    let mut word = [0; 9];
    direct.read_exact_at(&mut word, 0).unwrap();
    assert_eq!(&word, b"beginning");
}

#[test]
fn flags_are_what_programs_have_given() {
    play_on_stage("flags");
}

/// Parent and child write lines by one open file, each as fast as it can.
fn forks(place: &Path) {
    let mut file = open(&place.join("f"));
    file.write_all(b"first-----\n").unwrap();
    // SAFETY: the child writes, and ends.
    let child = unsafe { libc::fork() };
    let line = if child == 0 { b"childchild\n" } else { b"parentpare\n" };
    for _ in 0..3000 {
        assert_eq!(file.write(line).unwrap(), line.len());
    }
    if child == 0 {
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 1;
    // SAFETY: the status has room.
    assert_eq!((unsafe { libc::waitpid(child, &raw mut status, 0) }, status), (child, 0));
    let mut own = open(&place.join("own"));
    let writes = || {
        let (_, before) = system_calls();
        (0..500).for_each(|_| own.write_all(&[3]).unwrap());
        system_calls().1 - before
    };
    let (alone, shared) = {
        let mut writes = writes;
        let alone = writes();
        // SAFETY: the child waits to be killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: changes no memory.
            unsafe { libc::pause() };
        }
        let shared = writes();
        // SAFETY: it is this process's child, and the status is not wanted.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        (alone, shared)
    };
    assert!(alone < 100 && shared >= 500, "{alone} and {shared} system calls");
    own.set_len(100).unwrap();
    drop(own);
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo by a shell; cat"]).stdin(open(&place.join("own")));
    assert!(shell.stdout(file.try_clone().unwrap()).status().unwrap().success());
    file.write_all(b"last").unwrap();
}

#[test]
fn processes_that_share_an_open_file_share_its_offset() {
    let Some((_bench, mounted)) = stage() else { return };
    play("forks", &mounted.directory);
    let all = fs::read(mounted.path("f")).unwrap();
    let lines = 1 + 2 * 3000;
    let text = String::from_utf8(all[..lines * 11].to_vec()).unwrap();
    for line in ["childchild", "parentpare"] {
        assert_eq!(text.lines().filter(|found| *found == line).count(), 3000, "{line}");
    }
    assert_eq!(all[lines * 11..], [b"by a shell\n", &[3; 100][..], b"last"].concat());
    mounted.unmount();
}

/// Threads open, write and close files while another one forks.
fn forks_beside(place: &Path) {
    // Who waits for ever is ended, and that is seen.
    // SAFETY: changes no memory.
    unsafe { libc::alarm(100) };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut file = open(&place.join(name));
                    (0..20).for_each(|_| file.write_all(&[1; 100]).unwrap());
                }
            });
        }
        for _ in 0..300 {
            // SAFETY: the child ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: the status is not wanted.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // SAFETY: changes no memory.
    unsafe { libc::alarm(0) };
}

#[test]
fn a_fork_waits_for_nobody_who_waits_for_it() {
    play_on_stage("forks-beside");
}

/// Files that are reached by names from elsewhere, or that are elsewhere.
fn elsewhere(place: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(place.join("f"), scratch.path().join("link")).unwrap();
    std::os::unix::fs::symlink(scratch.path().join("ordinary"), place.join("out")).unwrap();
    fs::write(scratch.path().join("ordinary"), "ordinary").unwrap();
    let mut linked = open(&scratch.path().join("link"));
    let mut out = open(&place.join("out"));
    // SAFETY: asks for numbers.
    let flags = [&linked, &out].map(|file| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) });
    assert_eq!(flags.map(|flags| flags & !LARGE_FILE), [libc::O_RDWR; 2]);
    linked.write_all(&[5; 4096]).unwrap();
    out.write_all(b"changed").unwrap();
    assert_eq!(fs::read(scratch.path().join("ordinary")).unwrap(), b"changedy");
    // What is no name is for the kernel to refuse.
    for nonsense in [0_usize, 8, usize::MAX - 3] {
        let nowhere = std::ptr::without_provenance::<libc::c_char>(nonsense);
        // SAFETY: the kernel looks whether there is a name.
        assert_eq!(unsafe { libc::open(nowhere, libc::O_RDONLY) }, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT), "{nonsense:#x}");
    }
    std::env::set_current_dir(place).unwrap();
    assert!(fs::read("f").unwrap() == [5; 4096]);
}

#[test]
fn names_from_elsewhere_lead_to_the_same_files() {
    play_on_stage("elsewhere");
}

/// A copy of a descriptor is closed where nobody sees it, and is another file then, while the first one goes on.
/// Several buffers, and such as the kernel has to refuse.
fn parts(place: &Path) {
    let mut file = open(&place.join("f"));
    file.write_all(&[0; 4096]).unwrap();
    file.rewind().unwrap();
    let slices = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(file.write_vectored(&slices).unwrap(), 6);
    let nowhere = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 50 };
    let good = libc::iovec { iov_base: [b'x'; 10].as_mut_ptr().cast(), iov_len: 10 };
    // SAFETY: the kernel looks whether the buffers are there.
    let written = unsafe { libc::writev(file.as_raw_fd(), [good, nowhere].as_ptr(), 2) };
    // All that there is, or nothing.
    assert!([10, -1].contains(&written), "{written}");
    let end = 6 + u64::try_from(written).unwrap_or(0);
    assert_eq!(file.stream_position().unwrap(), end);
    file.rewind().unwrap();
    let (mut first, mut second) = ([0; 2], [0; 4]);
    let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(file.read_vectored(&mut into).unwrap(), 6);
    assert_eq!((&first, &second), (b"on", b"etwo"));
    let mut page = [1; 4096];
    file.read_exact_at(&mut page[..100], 6).unwrap();
    assert!(page[usize::try_from(end).unwrap() - 6..100].iter().all(|byte| *byte == 0), "nothing twice");
    // SAFETY: the name is a string that ends.
    let opened = unsafe { libc::openat(-1, c"relative".as_ptr(), libc::O_RDONLY) };
    assert_eq!((opened, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EBADF)));
}

#[test]
fn several_buffers_are_one_write() {
    play_on_stage("parts");
}

/// Executes another program while it has what it reads and writes by itself.
fn executes(place: &Path) {
    let file = open(&place.join("f"));
    (0..10).for_each(|_| file.write_all_at(&[1; 100], 0).unwrap());
    let error = Command::new("echo").arg("1 passed").exec();
    panic!("{error}");
}

#[test]
fn a_program_can_become_another() {
    let Some((_bench, mounted)) = stage() else { return };
    for _ in 0..5 {
        play("executes", &mounted.directory);
        assert_eq!(fs::read(mounted.path("f")).unwrap(), [1; 100]);
    }
    mounted.unmount();
}

/// A program that closes all descriptors that it does not know, as servers do when they start.
fn tidy(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&[1; 100], 0).unwrap();
    let number = file.as_raw_fd();
    for descriptor in (3..1024).filter(|descriptor| *descriptor != number) {
        // SAFETY: nobody who is still needed uses what the program itself has opened there.
        unsafe { libc::close(descriptor) };
    }
    let above = u32::try_from(number).unwrap() + 1;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::close_range(above, u32::MAX, 0) }, 0);
    let (_, before) = system_calls();
    for _ in 0..1000 {
        file.write_all_at(&[2; 100], 0).unwrap();
    }
    assert!(system_calls().1 - before < 200, "its own connection is there still");
    let mut read = [0; 100];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [2; 100]);
}

#[test]
fn a_program_that_closes_everything_goes_on() {
    play_on_stage("tidy");
}

/// Where the library lies instead is tested in `run_library.rs`.
#[test]
fn the_library_is_never_put_into_a_temporary_directory() {
    let bench = Workbench::new();
    for (name, mode) in [("mine", 0o755), ("all", 0o777), ("sticky", 0o1777)] {
        let place = bench.path(name);
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        succeed(run(&["true"]).env("TMPDIR", &place));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn programs_that_nobody_here_wrote_do_what_they_do_without() {
    let Some((_bench, mounted)) = stage() else { return };
    let script = "
        set -e
        cd \"$1\"
        cp -a /etc/passwd copied; mkdir tree; tar -C /usr/share -cf - base-files | tar -C tree -xf -
        cat copied copied > twice; head -c 100000 /dev/urandom > random; cp random again; cmp random again
        dd if=random of=pieces bs=777 2>/dev/null; cmp random pieces
        sed -i s/root/toor/ copied; echo one > log; echo two >> log; cat log | tee log2 > log3; cmp log log3
        sort -r twice > sorted; mv sorted renamed; rm twice; grep -c . renamed > count
        diff -r /usr/share/base-files tree/base-files
        printf 'a\\nb\\n' | while read line; do echo \"$line\" >> lines; done
        (echo first; ls copied) > both; cat < both > out
        cksum copied renamed count log log2 lines both out
    ";
    let [with, without] = ["with", "without"].map(|name| {
        fs::create_dir(mounted.path(name)).unwrap();
        mounted.path(name)
    });
    let shell = |command: &mut Command, place: &Path| succeed(command.arg(place));
    let expected = shell(Command::new("sh").args(["-c", script, "sh"]), &without);
    assert_eq!(shell(&mut run(&["sh", "-c", script, "sh"]), &with), expected);
    mounted.unmount();
}

fn counted(place: &Path) {
    let mut file = open(&place.join("f"));
    for _ in 0..100 {
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
        file.sync_data().unwrap();
    }
    // SAFETY: the child ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    file.write_all(&[2]).unwrap();
    // SAFETY: raises a signal that ends the process.
    unsafe { libc::raise(libc::SIGTERM) };
}

/// What is said of that program.
fn said_of(mounted: &Mounted) -> String {
    let output = playing(&["--stats"], "counted", &mounted.directory).output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "the program's own end: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn number_of(said: &str, what: &str) -> u64 {
    let line = said.lines().find(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{what}: {said}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn of_buffered_files_it_is_said_that_they_are_not_direct() {
    let Some((_bench, mounted)) = stage_with("dax=never") else { return };
    let said = said_of(&mounted);
    assert!(number_of(&said, "that this user may not attach to") > 100, "{said}");
    mounted.unmount();
}

#[test]
fn at_the_end_it_is_said_what_was_done_and_why_not_more() {
    let Some((_bench, mounted)) = stage() else { return };
    let said = said_of(&mounted);
    let number = |what| number_of(&said, what);
    assert_eq!((number("opened"), number("the first ones of a descriptor")), (1, 16));
    assert_eq!(number("that other processes may share"), 1);
    assert!(number("which had nothing to do") > 50, "{said}");
    assert!(number("without the kernel: reads") > 50 && number("without the kernel: writes") > 50, "{said}");
    let output = lodefs(["run", "--stats", "--", "sh", "-c", "exit 9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    let missing = lodefs(["run", "--stats", "--", "/nothing/there"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    mounted.unmount();
}

/// What statx(2) says of a file: whether it knows if that is direct, and whether it is.
fn dax_of(directory: c_int, path: &Path, flags: c_int) -> (bool, bool) {
    const ATTR_DAX: u64 = 0x20_0000;
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut told = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a string that ends, and there is room.
    let told = unsafe {
        assert_eq!(libc::statx(directory, path.as_ptr(), flags, libc::STATX_SIZE, told.as_mut_ptr()), 0);
        told.assume_init()
    };
    (told.stx_attributes_mask & ATTR_DAX != 0, told.stx_attributes & ATTR_DAX != 0)
}

fn attributes(place: &Path) {
    let file = open(&place.join("on"));
    let directory = File::open(place).unwrap();
    for name in ["on", "off"] {
        let expected = (true, name == "on");
        assert_eq!(dax_of(libc::AT_FDCWD, &place.join(name), 0), expected);
        assert_eq!(dax_of(directory.as_raw_fd(), Path::new(name), libc::AT_SYMLINK_NOFOLLOW), expected);
    }
    assert_eq!(dax_of(file.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH), (true, true));
    assert!(!dax_of(libc::AT_FDCWD, place, 0).1 && !dax_of(libc::AT_FDCWD, Path::new("/proc/version"), 0).1);
    std::env::set_current_dir(place).unwrap();
    assert_eq!(dax_of(libc::AT_FDCWD, Path::new("off"), 0), (true, false));
}

#[test]
fn programs_are_told_which_files_are_direct() {
    let Some((_bench, mounted)) = stage_with("dax=inode") else { return };
    for name in ["on", "off"] {
        fs::write(mounted.path(name), []).unwrap();
        succeed(lodefs(["dax", name]).arg(mounted.path(name)));
    }
    play("attributes", &mounted.directory);
    mounted.unmount();
}
