//! Pages that the kernel caches beside every way to change a file: what has returned is what a read shows.

#![allow(clippy::large_stack_arrays, reason = "a buffer for direct I/O is made on the stack and moved")]

#[path = "../common/mod.rs"]
mod common;

mod asynchronous;

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, slice, thread};

use asynchronous::{Aio, Asynchronous, Uring};
use common::{Workbench, can_mount, lodefs, on_memory, succeed};
use rustix::fs::{FallocateFlags, copy_file_range, fallocate, ftruncate};

/// Bytes of a file.
const SIZE: usize = 64 << 10;
const PAGE: usize = 4096;
/// Changes of each kind; `LODEFS_TEST_CALLS` for more.
const CHANGES: u32 = 300;
/// Writes that are under way at once in the test of many: more than the kernel serves in the background by default.
const MANY: usize = 512;
/// Threads that read beside what changes a file.
const READERS: usize = 3;

fn changes() -> u32 {
    std::env::var("LODEFS_TEST_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(CHANGES)
}

/// Bytes at an address that direct I/O takes.
#[repr(align(4096))]
struct Aligned([u8; SIZE]);

/// A mapping of a whole file.
struct Mapping {
    at: *mut u8,
}

impl Mapping {
    fn new(file: &File, flags: i32, protection: i32) -> Self {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(ptr::null_mut(), SIZE, protection, flags, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self { at: at.cast() }
    }

    /// A copy of the bytes. The file is never shorter than the mapping while this is called.
    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping is as long, and lives. Other processes store nothing at that time.
        unsafe { slice::from_raw_parts(self.at, SIZE) }.to_vec()
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the mapping is as long, lives, and was made to be stored to.
        unsafe { ptr::write_bytes(self.at, byte, SIZE) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.at.cast(), SIZE) };
    }
}

/// The ways to change a file.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Aio,
    Uring,
    Buffered,
    Copy,
    Punch,
    Zero,
    Truncate,
    Store,
}

struct Files {
    direct: File,
    buffered: File,
    source: File,
    aio: Aio,
    uring: Uring,
}

impl Files {
    fn new(path: &Path) -> Self {
        let open = |flags: i32, path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
            options.open(path).expect("the file can be opened")
        };
        Self {
            direct: open(libc::O_DIRECT, path),
            buffered: open(0, path),
            source: open(0, &path.with_extension("source")),
            aio: Aio::new(8).expect("io_setup"),
            uring: Uring::new(8).expect("io_uring_setup"),
        }
    }

    /// Makes each byte of the file `byte`, or zero where the way can do no more; which it has become.
    fn change(&mut self, way: Way, byte: u8) -> u8 {
        let bytes = Box::new(Aligned([byte; SIZE]));
        let written = |results: Vec<i64>| assert_eq!(results, [i64::try_from(SIZE).unwrap()]);
        match way {
            Way::Direct => self.direct.write_all_at(&bytes.0, 0).unwrap(),
            Way::Buffered => self.buffered.write_all_at(&bytes.0, 0).unwrap(),
            Way::Aio => written(self.aio.write_all(&self.direct, &[(0, &bytes.0)])),
            Way::Uring => written(self.uring.write_all(&self.direct, &[(0, &bytes.0)])),
            Way::Copy => {
                self.source.write_all_at(&bytes.0, 0).unwrap();
                let (mut from, mut to) = (0, 0);
                while to < SIZE as u64 {
                    let left = SIZE - to as usize;
                    let to = Some(&mut to);
                    copy_file_range(&self.source, Some(&mut from), &self.buffered, to, left).unwrap();
                }
            }
            Way::Punch => self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
            Way::Zero => self.fallocate(FallocateFlags::ZERO_RANGE),
            Way::Truncate => {
                ftruncate(&self.buffered, 0).unwrap();
                ftruncate(&self.buffered, SIZE as u64).unwrap();
            }
            Way::Store => {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                Mapping::new(&self.buffered, libc::MAP_SHARED, protection).fill(byte);
            }
        }
        if matches!(way, Way::Punch | Way::Zero | Way::Truncate) { 0 } else { byte }
    }

    fn fallocate(&self, mode: FallocateFlags) {
        fallocate(&self.buffered, mode, 0, SIZE as u64).unwrap();
    }
}

/// Runs `work` beside threads that read a file again and again, by read(2) and by private mappings.
fn beside_readers<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let file = File::open(path).expect("the file is there");
                let mut bytes = vec![0; SIZE];
                while !is_over.load(Ordering::Relaxed) {
                    file.read_at(&mut bytes, 0).expect("the file can be read");
                    map_once(&file);
                }
            });
        }
        let _end = EndsReaders(&is_over);
        work()
    })
}

/// Has the kernel fault in all pages of a new private mapping. A page behind the end of the file is left out.
fn map_once(file: &File) {
    let mapping = Mapping::new(file, libc::MAP_PRIVATE, libc::PROT_READ);
    // SAFETY: the range is that of the mapping. What cannot be mapped is an error here, and no signal.
    unsafe { libc::madvise(mapping.at.cast(), SIZE, libc::MADV_POPULATE_READ) };
}

/// Lets the readers end, also if a test fails.
struct EndsReaders<'a>(&'a AtomicBool);

impl Drop for EndsReaders<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many of the changes a read, a mapping or a direct read did not show.
fn count_stale(path: &Path, ways: &[Way], shows_mapping: bool) -> Vec<(Way, usize)> {
    let mut files = Files::new(path);
    files.change(Way::Buffered, 1);
    let seen = File::open(path).unwrap();
    let flags = if shows_mapping { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let mapping = Mapping::new(&seen, flags, libc::PROT_READ);
    let mut stale: Vec<(Way, usize)> = Vec::new();
    beside_readers(path, || {
        for &way in ways {
            let mut missed = 0;
            for number in 0..changes() {
                let byte = files.change(way, b'a' + (number % 26) as u8);
                let mut buffer = Box::new(Aligned([0; SIZE]));
                let is_all = |bytes: &[u8]| bytes.iter().all(|found| *found == byte);
                seen.read_exact_at(&mut buffer.0, 0).unwrap();
                let by_read = is_all(&buffer.0);
                let by_mapping = is_all(&mapping.bytes());
                files.direct.read_exact_at(&mut buffer.0, 0).unwrap();
                missed += usize::from(!(by_read && by_mapping && is_all(&buffer.0)));
            }
            stale.push((way, missed));
        }
    });
    stale.retain(|(_, missed)| *missed > 0);
    stale
}

/// A mount on memory, with a directory of direct files.
fn with_mount(options: &[&str], test: impl FnOnce(PathBuf, PathBuf)) {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    succeed(on_memory(&mut bench.mount_command(options)));
    let mounted = common::Mounted { directory: bench.directory() };
    std::fs::create_dir(mounted.path("direct")).unwrap();
    succeed(lodefs(["dax", "on"]).arg(mounted.path("direct")));
    test(mounted.path("buffered"), mounted.path("direct/file"));
    mounted.unmount();
}

#[test]
fn a_buffered_file_shows_every_change_that_has_returned() {
    use Way::{Aio, Buffered, Copy, Direct, Punch, Store, Truncate, Uring, Zero};
    let ways = [Direct, Aio, Uring, Buffered, Copy, Punch, Zero, Truncate, Store];
    with_mount(&[], |file, _| assert_eq!(format!("{:?}", count_stale(&file, &ways, true)), "[]"));
}

#[test]
fn a_buffered_file_of_a_mount_with_writeback_does_too() {
    use Way::{Aio, Buffered, Copy, Direct, Punch, Store, Truncate, Uring, Zero};
    let ways = [Direct, Aio, Uring, Buffered, Copy, Punch, Zero, Truncate, Store];
    with_mount(&["-o", "writeback"], |file, _| {
        assert_eq!(format!("{:?}", count_stale(&file, &ways, true)), "[]");
    });
}

#[test]
fn a_private_mapping_of_a_direct_file_shows_every_change_that_has_returned() {
    use Way::{Aio, Buffered, Copy, Direct, Punch, Truncate, Uring, Zero};
    let ways = [Direct, Aio, Uring, Buffered, Copy, Punch, Zero, Truncate];
    with_mount(&[], |_, file| assert_eq!(format!("{:?}", count_stale(&file, &ways, false)), "[]"));
}

#[test]
fn many_direct_writes_at_once_do_not_wait_for_each_other_for_ever() {
    with_mount(&[], |path, _| {
        let mut files = Files::new(&path);
        let mut aio = Aio::new(u32::try_from(MANY).unwrap()).expect("io_setup");
        files.change(Way::Buffered, 1);
        beside_readers(&path, || {
            for number in 0..changes() {
                let bytes = Box::new(Aligned([number as u8; SIZE]));
                let writes: Vec<(u64, &[u8])> = (0..MANY)
                    .map(|write| {
                        let at = write * PAGE % SIZE;
                        (at as u64, &bytes.0[at..at + PAGE])
                    })
                    .collect();
                assert!(aio.write_all(&files.direct, &writes).iter().all(|result| *result == 4096));
                let mut found = vec![0; SIZE];
                files.buffered.read_exact_at(&mut found, 0).unwrap();
                assert!(found == bytes.0, "round {number}");
            }
        });
    });
}
