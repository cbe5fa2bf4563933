//! Who appends to a file without a system call, and what do others see of it?

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use lodefs_direct::File;

use crate::data::{REST, calls_of, read, stage_is_whole};
use crate::program::FILE;
use crate::stage::{PAGE, Stage, map, open};

#[test]
fn bytes_are_appended_without_system_calls() {
    const PIECE: usize = 1500;
    const PIECES: u64 = 2000;
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    let free = || rustix::fs::statvfs(&stage.mounted.directory).unwrap().f_bfree;
    let before = free();
    let calls = calls_of(|| {
        for number in 0..PIECES {
            let offset = number * PIECE as u64;
            assert_eq!(file.write_at(&[(number % 250) as u8; PIECE], offset).unwrap(), PIECE);
            assert_eq!(read(&file, offset, PIECE + 10), [(number % 250) as u8; PIECE]);
        }
    });
    assert!(calls < 200, "{calls}");
    let size = PIECES * PIECE as u64;
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    let all = fs::read(&path).unwrap();
    assert_eq!(all.len() as u64, size);
    for (number, piece) in all.chunks(PIECE).enumerate() {
        assert!(piece.iter().all(|byte| *byte == (number % 250) as u8), "{number}");
    }
    drop(file);
    // What was reserved is given back; a block of words is kept.
    assert_eq!(before - free(), size.div_ceil(PAGE) + 1);
    stage_is_whole(stage, mounted);
}

#[test]
fn all_who_append_to_one_file_find_its_end() {
    const EACH: usize = 300;
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let by_library = || {
        let opened = fs::OpenOptions::new().read(true).append(true).open(&path).unwrap();
        File::new(opened).unwrap()
    };
    let line = |who: u8, number: usize| format!("{} {number:06} of {EACH}\n", char::from(who)).into_bytes();
    thread::scope(|scope| {
        for who in [b'a', b'b'] {
            scope.spawn(move || {
                let file = by_library();
                for number in 0..EACH {
                    let line = line(who, number);
                    assert_eq!(file.write_at(&line, 0).unwrap(), line.len());
                    if number % 50 == 0 {
                        // The other one is to have it for a while.
                        thread::sleep(Duration::from_millis(12));
                    }
                }
            });
        }
        for who in [b'c', b'd'] {
            scope.spawn({
                let path = &path;
                move || {
                    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
                    for number in 0..EACH {
                        file.write_all(&line(who, number)).unwrap();
                        if number % 10 == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                }
            });
        }
    });
    let text = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 4 * EACH);
    for who in *b"abcd" {
        let own: Vec<&[u8]> = lines.iter().copied().filter(|line| line[0] == who).collect();
        let expected: Vec<Vec<u8>> = (0..EACH).map(|number| line(who, number)).collect();
        assert_eq!(own, expected);
    }
    stage_is_whole(stage, mounted);
}

#[test]
fn whoever_looks_sees_what_is_appended() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    let mut size = 0;
    for round in 0..20u64 {
        file.write_at(&[round as u8; 100], size).unwrap();
        size += 100;
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        match round % 5 {
            0 => assert_eq!(fs::read(&path).unwrap()[size as usize - 1], round as u8),
            1 => {
                // The last page of a mapping shows zeroes behind the end.
                let mapping = map(&open(&path), PAGE as usize).unwrap();
                let mut last = [9; 101];
                mapping.read(size as usize - 100, &mut last).unwrap();
                assert_eq!((&last[..100], last[100]), (&[round as u8; 100][..], 0));
            }
            2 => {
                size -= 50;
                mounted.set_len(size).unwrap();
            }
            3 => {
                // A hole is left to the kernel.
                file.write_at(&[round as u8; 10], size + 10).unwrap();
                assert_eq!(read(&file, size, 10), [0; 10]);
                size += 20;
            }
            _ => thread::sleep(REST),
        }
    }
    stage_is_whole(stage, (file, mounted));
}

#[test]
fn a_full_volume_is_full_for_those_who_append_too() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    let (mut size, piece) = (0, vec![5; 100_000]);
    let error = loop {
        match file.write_at(&piece, size) {
            Ok(written) => size += written as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(size > 40 << 20, "{size}");
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 5));
    stage_is_whole(stage, (file, mounted));
}

/// The environment variable that names the file in which a program says how much it has appended.
pub(crate) const SAYS: &str = "LODEFS_TEST_SAYS";
/// One append: its number.
const NUMBER: u64 = 8;

/// The process that appends numbers, and says each time how many there are, until it is killed.
pub(crate) fn run() {
    let [file, says] = [FILE, SAYS].map(|name| std::env::var_os(name).expect("the test has set it"));
    let says = fs::OpenOptions::new().write(true).open(says).unwrap();
    let file = File::new(open(Path::new(&file))).unwrap();
    for number in fs::metadata(std::env::var_os(FILE).unwrap()).unwrap().len() / NUMBER.. {
        file.write_at(&number.to_le_bytes(), number * NUMBER).unwrap();
        says.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
    }
}

/// The program is killed when it has said that it has appended so many.
fn killed_after(count: u64, path: &Path, says: &fs::File) -> u64 {
    let said = || {
        let mut bytes = [0; NUMBER as usize];
        says.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
    };
    let path_of_says = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(says));
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["an_appender", "--exact", "--ignored", "--quiet"])
        .envs([(FILE, path.as_os_str()), (SAYS, path_of_says.as_ref())])
        .spawn()
        .unwrap();
    while said() < count && child.try_wait().unwrap().is_none() {
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said()
}

#[test]
fn what_a_program_has_said_that_it_appended_is_there_when_it_was_killed() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let says = tempfile::tempfile().unwrap();
    let mut there = 0;
    for round in 1..=20 {
        let said = killed_after(there + 37 * round * round, &path, &says);
        assert!(said >= there + 37 * round * round, "the program has ended before: {said}");
        let bytes = fs::read(&path).unwrap();
        let numbers =
            bytes.chunks(NUMBER as usize).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        there = bytes.len() as u64 / NUMBER;
        // Perhaps one more than it came to say.
        assert_eq!(
            (bytes.len() as u64 % NUMBER, (said..=said + 1).contains(&there)),
            (0, true),
            "{said}, {there}"
        );
        assert!(numbers.eq(0..there));
    }
    stage_is_whole(stage, mounted);
}
