//! Who reads and writes a file without a system call, and what do others see of it?

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lodefs_direct::File;
use lodefs_direct::dax::{self, Effect, How};

use crate::stage::{PAGE, Stage, map, open};

/// Longer than the library leaves the server alone after it was refused something.
pub(crate) const REST: Duration = Duration::from_millis(30);

/// System calls of this thread that read or write.
fn system_calls() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let count = |name: &str| -> u64 {
        io.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    count("syscr:") + count("syscw:")
}

/// How many system calls this takes, beside asking.
pub(crate) fn calls_of(what: impl FnOnce()) -> u64 {
    let before = system_calls();
    // To read the numbers is one, at least.
    let asking = system_calls() - before;
    let before = system_calls();
    what();
    system_calls() - before - asking
}

pub(crate) fn read(file: &File, offset: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; size];
    let read = file.read_at(&mut bytes, offset).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn bytes_are_read_and_written_without_system_calls() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, mounted) = stage.hole(8);
    mounted.write_all_at(&[1; 2 * PAGE as usize], 0).unwrap();
    mounted.write_all_at(&[3; 100], 4 * PAGE).unwrap();
    mounted.set_len(4 * PAGE + 100).unwrap();
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    thread::sleep(REST);
    file.write_at(&[1], 0).unwrap();
    let calls = calls_of(|| {
        for round in 0..200u8 {
            assert_eq!(file.write_at(&[round; 5000], 77).unwrap(), 5000);
            assert_eq!(read(&file, 77, 5000), [round; 5000]);
        }
        assert_eq!(read(&file, 2 * PAGE - 1, 2), [1, 0], "a hole begins there");
        assert_eq!(read(&file, 4 * PAGE, 1000), [3; 100], "the file ends there");
        assert!(read(&file, 4 * PAGE + 100, 10).is_empty());
        assert!(read(&file, u64::MAX - 5, 10).is_empty());
    });
    // The time of a change is told once in each tick of the clock, which is a thousandth of a second at least.
    assert!(calls < 100, "{calls}");
    let mut seen = [0; 5002];
    mounted.read_exact_at(&mut seen, 76).unwrap();
    assert_eq!((seen[0], &seen[1..5001], seen[5001]), (1, &[199; 5000][..], 1));
    stage_is_whole(stage, (file, mounted));
}

/// Unmounts when these files are closed.
pub(crate) fn stage_is_whole<T>(stage: Stage, files: T) {
    drop(files);
    stage.tear_down();
}

#[test]
fn whatever_is_more_than_bytes_is_done_all_the_same() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(2);
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    // A hole, the end, and far behind it.
    for (number, offset) in [(1, 5), (2, 2 * PAGE - 2), (3, 10 * PAGE)] {
        assert_eq!(file.write_at(&[number; 10], offset).unwrap(), 10);
        assert_eq!(read(&file, offset, 10), [number; 10]);
    }
    assert_eq!(mounted.metadata().unwrap().len(), 10 * PAGE + 10);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
    // Who reads only may not write, nor the other way round.
    let reads = File::new(fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(read(&reads, 5, 10), [1; 10]);
    assert_eq!(reads.write_at(&[1], 0).unwrap_err().raw_os_error(), Some(libc::EBADF));
    let writes = File::new(fs::OpenOptions::new().write(true).open(&path).unwrap()).unwrap();
    assert_eq!(writes.write_at(&[9], 5).unwrap(), 1);
    assert_eq!(writes.read_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(read(&file, 5, 2), [9, 1]);
    let appends = File::new(fs::OpenOptions::new().read(true).append(true).open(&path).unwrap()).unwrap();
    assert_eq!(appends.write_at(&[8], 0).unwrap(), 1);
    assert_eq!(read(&file, 10 * PAGE + 9, 10), [3, 8]);
    // A file that is none of a volume's.
    let other = stage.bench.path("other");
    let other = File::new(open(&other)).unwrap();
    assert_eq!(other.write_at(b"12345", 0).unwrap(), 5);
    assert_eq!(read(&other, 1, 10), b"2345");
    // One whose writers have to clear a bit.
    let set =
        |mode: u32| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    set(0o4755);
    thread::sleep(REST);
    assert_eq!(file.write_at(&[7], 0).unwrap(), 1);
    assert_eq!(read(&file, 0, 1), [7]);
    stage_is_whole(stage, (file, mounted, reads, writes, appends));
}

#[test]
fn times_show_what_was_written() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, mounted) = stage.hole(1);
    mounted.write_all_at(&[1; 100], 0).unwrap();
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    let times = || mounted.metadata().map(|found| (found.mtime(), found.mtime_nsec())).unwrap();
    thread::sleep(REST);
    for round in 0..10 {
        let before = times();
        thread::sleep(Duration::from_millis(15));
        file.write_at(&[2], round).unwrap();
        assert!(times() > before, "{round}");
    }
    // Also if somebody has set them.
    for round in 0..10 {
        file.write_at(&[3], round).unwrap();
        mounted.set_modified(std::time::UNIX_EPOCH).unwrap();
        file.write_at(&[4], round).unwrap();
        assert!(times() > (1, 0), "{round}");
        thread::sleep(REST);
    }
    stage_is_whole(stage, (file, mounted));
}

/// Bytes of what is written at once in the test of atomicity.
const PIECE: usize = 3 * PAGE as usize;

/// Reads a piece again and again, and finds it whole.
fn read_pieces(read: impl Fn(&mut [u8]) -> io::Result<usize>, is_over: &AtomicBool, pause: Duration) {
    let mut bytes = vec![0; PIECE];
    while !is_over.load(Ordering::Relaxed) {
        assert_eq!(read(&mut bytes).unwrap(), PIECE);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
        // Others get their turn with the file for themselves.
        thread::sleep(pause);
    }
}

/// Writes pieces that differ, sometimes after a while.
fn write_pieces(write: impl Fn(&[u8]) -> io::Result<usize>, number: u8) {
    for round in 0..300u32 {
        assert_eq!(write(&[(round * 3) as u8 | number; PIECE]).unwrap(), PIECE);
        if round % 50 == 0 {
            thread::sleep(2 * REST);
        }
    }
}

#[test]
fn reads_and_writes_are_atomic_whoever_does_them() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(5);
    mounted.write_all_at(&[0; PIECE], 100).unwrap();
    let is_over = &AtomicBool::new(false);
    let (first, second) = (File::new(open(&path)).unwrap(), File::new(open(&path)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| read_pieces(|into| mounted.read_at(into, 100), is_over, Duration::ZERO));
        scope.spawn(|| read_pieces(|into| first.read_at(into, 100), is_over, REST / 6));
        scope.spawn(|| read_pieces(|into| second.read_at(into, 100), is_over, REST / 3));
        let all = [
            scope.spawn(|| write_pieces(|bytes| mounted.write_at(bytes, 100), 0)),
            scope.spawn(|| write_pieces(|bytes| first.write_at(bytes, 100), 1)),
            scope.spawn(|| write_pieces(|bytes| second.write_at(bytes, 100), 2)),
        ];
        let ended = all.map(thread::ScopedJoinHandle::join);
        is_over.store(true, Ordering::Relaxed);
        for one in ended {
            one.unwrap();
        }
    });
    stage_is_whole(stage, (mounted, first, second));
}

#[test]
fn what_others_have_cut_off_is_not_read() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(2);
    for round in 1..20u8 {
        mounted.write_all_at(&[round; 2 * PAGE as usize], 0).unwrap();
        let file = File::new(open(&path)).unwrap();
        let calls = calls_of(|| {
            for _ in 0..10 {
                assert_eq!(read(&file, 5, 8000), [round; 8000]);
            }
        });
        assert!(calls <= 10, "it asks once: {calls} system calls");
        mounted.set_len(100).unwrap();
        assert_eq!(read(&file, 5, 8000), [round; 95]);
        mounted.set_len(2 * PAGE).unwrap();
        assert_eq!(read(&file, 5, 8000)[..95], [round; 95]);
        assert!(read(&file, 100, 8000).iter().all(|byte| *byte == 0), "what was cut off is read");
    }
    stage_is_whole(stage, mounted);
}

#[test]
fn a_switch_on_demand_takes_it_back() {
    let Some(stage) = Stage::set_up("attach=owner,dax=inode") else { return };
    let (path, mounted) = stage.hole(2);
    mounted.write_all_at(&[1; 100], 0).unwrap();
    drop(mounted);
    let file = open(&path);
    assert_eq!(dax::set(&file, true, How::Now).unwrap().effect, Effect::Direct);
    drop(file);
    let file = File::new(open(&path)).unwrap();
    assert_eq!(file.write_at(&[2; 10], 0).unwrap(), 10);
    let other = open(&path);
    assert_eq!(dax::set(&other, false, How::Revoke), Err(rustix::io::Errno::BUSY), "it is open");
    assert_eq!(file.write_at(&[3; 10], 5).unwrap(), 10);
    assert_eq!(read(&file, 0, 20)[4..16], [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1]);
    drop(file);
    let start = Instant::now();
    while dax::set(&other, false, How::Revoke).is_err() {
        assert!(start.elapsed() < Duration::from_mins(1), "nobody has it open any more");
    }
    let file = File::new(open(&path)).unwrap();
    assert_eq!(file.write_at(&[4; 3], 0).unwrap(), 3);
    assert_eq!(read(&file, 0, 6), [4, 4, 4, 2, 2, 3]);
    stage_is_whole(stage, (file, other));
}

/// The buffer is a mapping of the file itself: whoever copied it under the lease would wait for himself.
#[test]
fn buffers_may_be_mappings_of_the_file() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, mounted) = stage.hole(64);
    mounted.write_all_at(&[7; 100], 0).unwrap();
    mounted.write_all_at(&[5; PAGE as usize], 40 * PAGE).unwrap();
    let mapping = map(&mounted, 64 * PAGE as usize).unwrap();
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    for page in 1..32 {
        // SAFETY: these bytes are mapped, and in this test nobody else uses them.
        let page_of_hole = unsafe {
            std::slice::from_raw_parts_mut(mapping.as_ptr().add(page * PAGE as usize), PAGE as usize)
        };
        assert_eq!(file.read_at(page_of_hole, 0).unwrap(), PAGE as usize);
        assert_eq!((page_of_hole[99], page_of_hole[100]), (7, 0));
        let at = (page + 32) * PAGE as usize;
        // SAFETY: these bytes are mapped, and in this test nobody else uses them.
        let hole = unsafe { std::slice::from_raw_parts(mapping.as_ptr().add(at), 100) };
        assert_eq!(file.write_at(hole, 40 * PAGE).unwrap(), 100);
    }
    let mut last = [0; 200];
    mounted.read_exact_at(&mut last, 40 * PAGE).unwrap();
    assert_eq!(last[100..], [5; 100]);
    stage_is_whole(stage, (file, mapping, mounted));
}

/// How a forked child ends that writes a byte, and reads what is there then.
fn write_in_child(file: &File, value: u8) -> i32 {
    // SAFETY: the child uses this file only, whose locks are its own, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that waits for ever ends, by SIGALRM.
        unsafe { libc::alarm(60) };
        let mut seen = [0; 2];
        let is_right = file.write_at(&[value], 10).is_ok_and(|written| written == 1)
            && file.read_at(&mut seen, 9).is_ok_and(|read| read == 2)
            && seen == [1, value];
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(i32::from(!is_right)) }
    }
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[test]
fn children_have_their_own() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, mounted) = stage.hole(1);
    mounted.write_all_at(&[1; PAGE as usize], 0).unwrap();
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // While another thread is at it, all the time.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                file.write_at(&[2; 100], 1000).unwrap();
                assert_eq!(read(&file, 0, 1), [1]);
            }
        });
        let ended: Vec<_> = (0..20).map(|round| (write_in_child(&file, round), read(&file, 10, 1))).collect();
        is_over.store(true, Ordering::Relaxed);
        for (round, (status, seen)) in ended.into_iter().enumerate() {
            assert_eq!((status, seen), (0, vec![round as u8]), "the parent sees what its child has written");
        }
    });
    stage_is_whole(stage, (file, mounted));
}

#[test]
fn a_read_by_a_program_shows_in_the_access_time_at_once() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(1);
    mounted.write_all_at(&[1; 100], 0).unwrap();
    drop(mounted);
    let long_ago = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    // It can only read, so the kernel goes on remembering the attributes.
    let file = File::new(fs::File::open(&path).unwrap()).unwrap();
    thread::sleep(REST);
    assert_eq!(fs::metadata(&path).unwrap().atime(), 1);
    assert_eq!(calls_of(|| assert_eq!(read(&file, 0, 100), [1; 100])), 0);
    assert_ne!(fs::metadata(&path).unwrap().atime(), 1);
    drop(file);
    stage.tear_down();
}
