//! `lodefs run`: mappings of direct files, which the kernel refuses.

mod common;

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use common::programs::{open, play, playing, stage, stage_with, told};
use common::{Mounted, Workbench, can_mount, is_on_dax, lodefs, succeed};
use libc::{MAP_FIXED, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_SYNC, PROT_NONE, PROT_READ, PROT_WRITE};

const PAGE: usize = 4096;
const BOTH: c_int = PROT_READ | PROT_WRITE;

/// What other tests run.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    match part.as_str() {
        "shares" => shares(&place),
        "lockstep" => lockstep(&place),
        "moves" => moves(&place),
        "signals" => signals(&place),
        "sync" => sync(&place),
        "meanwhile" => meanwhile(&place),
        "spliced" => spliced(&place),
        "tidy" => tidy(&place),
        "forced" => forced(&place),
        "refusals" => refusals(&place),
        "beside" => beside(&place),
        "taken" => taken(&place),
        part => panic!("{part}"),
    }
}

fn outcome<T: Copy + PartialEq>(result: T, failed: T) -> Result<T, i32> {
    if result == failed { Err(io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(result) }
}

/// # Safety
/// As for mmap(2).
unsafe fn map_at(
    address: *mut u8,
    file: &File,
    (offset, pages): (usize, usize),
    protection: c_int,
    flags: c_int,
) -> Result<*mut u8, i32> {
    let offset = libc::off_t::try_from(offset * PAGE).unwrap();
    // SAFETY: by the caller's promise.
    let start =
        unsafe { libc::mmap(address.cast(), pages * PAGE, protection, flags, file.as_raw_fd(), offset) };
    outcome(start, libc::MAP_FAILED).map(<*mut c_void>::cast)
}

fn map(file: &File, pages: usize, protection: c_int) -> *mut u8 {
    // SAFETY: nothing that is there is replaced.
    unsafe { map_at(ptr::null_mut(), file, (0, pages), protection, MAP_SHARED) }.unwrap()
}

fn load(address: *mut u8, at: usize) -> u8 {
    // SAFETY: the tests look at what they have mapped only.
    unsafe { address.add(at).read_volatile() }
}

fn store(address: *mut u8, at: usize, byte: u8) {
    // SAFETY: as above.
    unsafe { address.add(at).write_volatile(byte) }
}

fn unmap(address: *mut u8, size: usize) {
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { libc::munmap(address.cast(), size) }, 0);
}

fn byte(file: &File, at: usize) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    byte[0]
}

/// One copy of the bytes, whoever looks at them.
fn shares(place: &Path) {
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
    // SAFETY: the child stores, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let saw = (load(one, 100), load(other, 106));
        store(one, 200, 9);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(saw != (b'w', b'n'))) };
    }
    assert_eq!(ended(child), Some(0));
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

/// The status with which a child has ended, if not by a signal.
fn ended(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    ExitStatus::from_raw(status).code()
}

#[test]
fn a_mapping_shows_what_everybody_else_sees() {
    let Some((_bench, mounted)) = stage() else { return };
    play("shares", &mounted.directory);
    mounted.unmount();
}

/// Pages of the addresses in which calls are made at random, and of the file.
const PAGES: usize = 32;
/// Calls; `LODEFS_TEST_CALLS` for more.
const CALLS: usize = 20_000;

/// A file and addresses, all of which are always mapped to something.
struct Arena {
    file: File,
    base: *mut u8,
    pipe: [c_int; 2],
}

/// What a call has come to.
type Done = (Result<isize, i32>, Vec<u8>);

impl Arena {
    fn new(file: File) -> Self {
        file.set_len((PAGES * PAGE) as u64).unwrap();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mut pipe = [0; 2];
        // SAFETY: nothing that is there is replaced; the pipe has room for two numbers.
        let base = unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            libc::mmap(ptr::null_mut(), PAGES * PAGE, PROT_NONE, flags, -1, 0)
        };
        assert!(base != libc::MAP_FAILED);
        Self { file, base: base.cast(), pipe }
    }

    fn at(&self, page: usize) -> *mut c_void {
        self.base.wrapping_add(page * PAGE).cast()
    }

    fn empty(&self, page: usize, pages: usize) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_FIXED;
        // SAFETY: the addresses are the arena's.
        let start = unsafe { libc::mmap(self.at(page), pages * PAGE, PROT_NONE, flags, -1, 0) };
        assert_eq!(start, self.at(page));
    }

    /// One call, of a kind that is the first number, about pages and bytes that are the others.
    fn call(&self, numbers: [usize; 6]) -> Done {
        let [kind, first, count, second, size, byte] = numbers;
        let (page, pages) = (first % PAGES, 1 + count % (PAGES - first % PAGES).min(9));
        let (offset, length) = (second % (PAGES * PAGE), 1 + size % 10_000);
        let protection = [PROT_NONE, PROT_READ, BOTH, BOTH][byte % 4];
        let (start, bytes, nothing) = (self.at(page), pages * PAGE, Vec::new());
        let said = |result: c_int| outcome(result, -1).map(|_| 0);
        // SAFETY: the addresses are the arena's, in which there are no values; the kernel looks whether they can be accessed.
        unsafe {
            match kind % 13 {
                0..=2 => {
                    let from = second % PAGES;
                    let flags = MAP_SHARED | MAP_FIXED | [0, libc::MAP_POPULATE][size % 2];
                    let mapped = map_at(start.cast(), &self.file, (from, pages), protection, flags);
                    (mapped.map(|start| start.addr().wrapping_sub(self.base.addr()).cast_signed()), nothing)
                }
                3 => {
                    let result = said(libc::munmap(start, bytes));
                    self.empty(page, pages);
                    (result, nothing)
                }
                4 => (said(libc::mprotect(start, bytes, protection)), nothing),
                5 => {
                    // Stores what comes out of a pipe.
                    let bytes = vec![byte as u8; length];
                    assert_eq!(
                        libc::write(self.pipe[1], bytes.as_ptr().cast(), length),
                        length.cast_signed()
                    );
                    let start = self.base.wrapping_add(offset);
                    let length = length.min(PAGES * PAGE - offset);
                    let read = libc::read(self.pipe[0], start.cast(), length);
                    let read = outcome(read, -1);
                    self.drain();
                    (read, nothing)
                }
                6 | 7 => {
                    let start = self.base.wrapping_add(offset);
                    let length = length.min(PAGES * PAGE - offset);
                    let written = libc::write(self.pipe[1], start.cast(), length);
                    let written = outcome(written, -1);
                    (written, self.drain())
                }
                8 => {
                    let size = self.file.metadata().unwrap().len() as usize;
                    let length = length.min(size.saturating_sub(offset));
                    self.file.write_all_at(&vec![byte as u8; length], offset as u64).unwrap();
                    (Ok(length.cast_signed()), nothing)
                }
                9 => {
                    let mut into = vec![0; length];
                    let read = self.file.read_at(&mut into, offset as u64).unwrap();
                    (Ok(read.cast_signed()), into)
                }
                10 => {
                    let size = if byte % 2 == 0 { PAGES } else { second % PAGES };
                    self.file.set_len((size * PAGE) as u64).unwrap();
                    (Ok(0), nothing)
                }
                11 => {
                    (said(libc::msync(start, bytes, [libc::MS_SYNC, libc::MS_ASYNC, 77][byte % 3])), nothing)
                }
                _ => {
                    let advice =
                        [libc::MADV_DONTNEED, libc::MADV_WILLNEED, libc::MADV_NORMAL, libc::MADV_REMOVE];
                    (said(libc::madvise(start, bytes, advice[byte % 4])), nothing)
                }
            }
        }
    }

    /// What is in the pipe.
    fn drain(&self) -> Vec<u8> {
        let mut waiting = 0;
        // SAFETY: the number has room.
        unsafe { libc::ioctl(self.pipe[0], libc::FIONREAD, &raw mut waiting) };
        let mut bytes = vec![0; usize::try_from(waiting).unwrap()];
        if !bytes.is_empty() {
            // SAFETY: there is so much room.
            unsafe { libc::read(self.pipe[0], bytes.as_mut_ptr().cast(), bytes.len()) };
        }
        bytes
    }
}

/// The same calls on a direct file and on one of the kernel's in memory, one after the other, come to the same.
fn lockstep(place: &Path) {
    let calls = std::env::var("LODEFS_TEST_CALLS").ok().and_then(|calls| calls.parse().ok());
    let model = tempfile::tempfile_in("/dev/shm").unwrap();
    let arenas = [Arena::new(open(&place.join("f"))), Arena::new(model)];
    let mut state = 88_172_645_463_325_252_u64;
    let mut number = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize
    };
    let mut successful = 0;
    for call in 0..calls.unwrap_or(CALLS) {
        let numbers = std::array::from_fn(|_| number());
        let [ours, theirs] = arenas.each_ref().map(|arena| arena.call(numbers));
        let kind = numbers[0] % 13;
        assert_eq!(ours.0, theirs.0, "call {call}, of kind {kind}: {numbers:?}");
        assert!(ours.1 == theirs.1, "call {call}, of kind {kind}, shows something else: {numbers:?}");
        successful += usize::from(ours.0.is_ok());
    }
    println!("{successful} calls were no refusals");
}

#[test]
fn calls_at_random_do_what_they_do_to_files_of_the_kernels() {
    let Some((_bench, mounted)) = stage() else { return };
    play("lockstep", &mounted.directory);
    mounted.unmount();
}

/// Moves, lengthens, shortens and doubles mappings: of a direct file, and of the kernel's.
fn moves(place: &Path) {
    for file in [open(&place.join("f")), tempfile::tempfile_in("/dev/shm").unwrap()] {
        let numbers: Vec<u8> = (0..16 * PAGE).map(|at| (at / PAGE) as u8 + 1).collect();
        file.write_all_at(&numbers, 0).unwrap();
        let shown = |address: *mut u8, pages: usize| -> Vec<u8> {
            (0..pages).map(|page| load(address, page * PAGE)).collect()
        };
        // SAFETY: what is moved is mapped, and used at its new address only.
        let moved = |old: *mut u8, from: usize, to: usize, flags: c_int, new: *mut u8| unsafe {
            let moved = libc::mremap(old.cast(), from * PAGE, to * PAGE, flags, new);
            outcome(moved, libc::MAP_FAILED).map(<*mut c_void>::cast::<u8>)
        };
        let (stays, may_move) = (0, libc::MREMAP_MAYMOVE);
        let arena = map(&file, 16, BOTH);
        assert_eq!(moved(arena, 16, 4, stays, ptr::null_mut()), Ok(arena));
        assert_eq!(shown(arena, 4), [1, 2, 3, 4]);
        assert_eq!(moved(arena, 4, 8, stays, ptr::null_mut()), Ok(arena));
        assert_eq!(shown(arena, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        // There is something behind it.
        let second = arena.wrapping_add(2 * PAGE);
        assert_eq!(moved(arena, 2, 4, stays, ptr::null_mut()), Err(libc::ENOMEM));
        let elsewhere = moved(arena, 2, 12, may_move, ptr::null_mut()).unwrap();
        assert_eq!(shown(elsewhere, 12), (1..=12).collect::<Vec<_>>());
        assert_eq!(shown(second, 6), [3, 4, 5, 6, 7, 8]);
        // Once more, for a size of nothing.
        let twice = moved(second, 0, 3, may_move, ptr::null_mut()).unwrap();
        assert_eq!((shown(twice, 3), shown(second, 3)), (vec![3, 4, 5], vec![3, 4, 5]));
        // To an address, over what is there.
        let fixed = may_move | libc::MREMAP_FIXED;
        assert_eq!(moved(twice, 3, 2, fixed, elsewhere.wrapping_add(PAGE)), Ok(elsewhere.wrapping_add(PAGE)));
        assert_eq!(shown(elsewhere, 5), [1, 3, 4, 4, 5]);
        let overlapping = elsewhere.wrapping_add(4 * PAGE);
        assert_eq!(moved(elsewhere.wrapping_add(3 * PAGE), 3, 3, fixed, overlapping), Err(libc::EINVAL));
        assert_eq!(moved(second, 6, 0, may_move, ptr::null_mut()), Err(libc::EINVAL));
        // What is the kernel's comes over it.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nothing that is there is replaced.
        let own = unsafe { libc::mmap(ptr::null_mut(), PAGE, BOTH, flags, -1, 0) }.cast::<u8>();
        store(own, 0, 77);
        assert_eq!(moved(own, 1, 1, fixed, second), Ok(second));
        assert_eq!(shown(second, 3), [77, 4, 5]);
        store(second, PAGE, 78);
        assert_eq!(byte(&file, 3 * PAGE), 78);
        // A hint, and an address that is taken.
        let (hint, kind) = (elsewhere.wrapping_add(64 * PAGE), MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: nothing that is there is replaced.
        unsafe {
            assert_eq!(map_at(second, &file, (0, 1), BOTH, kind), Err(libc::EEXIST));
            let there = map_at(hint, &file, (0, 1), BOTH, MAP_SHARED).unwrap();
            let other = map_at(there, &file, (1, 1), BOTH, MAP_SHARED).unwrap();
            assert_eq!((load(there, 0), load(other, 0), there == other), (1, 2, false));
            let low = map_at(ptr::null_mut(), &file, (2, 1), BOTH, MAP_SHARED | libc::MAP_32BIT).unwrap();
            assert!(low.addr() < 1 << 32 && load(low, 0) == 3);
        }
    }
}

#[test]
fn mappings_move_as_the_kernels_do() {
    let Some((_bench, mounted)) = stage() else { return };
    play("moves", &mounted.directory);
    mounted.unmount();
}

/// The signal by which a child ends that does this.
fn signal_of(deed: impl FnOnce()) -> i32 {
    // SAFETY: the child does this, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        deed();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    ExitStatus::from_raw(status).signal().unwrap_or(0)
}

fn signals(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&[1; PAGE + 10], 0).unwrap();
    let (both, only_read) = (map(&file, 4, BOTH), map(&file, 4, PROT_READ));
    assert_eq!(signal_of(|| store(both, 2 * PAGE - 1, 1)), 0, "its last page");
    assert_eq!(signal_of(|| store(both, 2 * PAGE, 1)), libc::SIGBUS);
    assert_eq!(signal_of(|| _ = load(only_read, 3 * PAGE)), libc::SIGBUS);
    assert_eq!(signal_of(|| store(only_read, 0, 1)), libc::SIGSEGV);
    // SAFETY: the page is mapped, and nobody uses it until it can be accessed again.
    unsafe {
        assert_eq!(libc::mprotect(both.cast(), PAGE, PROT_NONE), 0);
        assert_eq!(signal_of(|| _ = load(both, 0)), libc::SIGSEGV);
        assert_eq!(signal_of(|| store(both, PAGE, 2)), 0);
        assert_eq!(libc::mprotect(both.cast(), PAGE, BOTH), 0);
        assert_eq!(libc::mprotect(only_read.cast(), PAGE, BOTH), 0, "the file is open for both");
    }
    store(both, 0, 5);
    assert_eq!(load(only_read, 0), 5);
    let reader = File::open(place.join("f")).unwrap();
    let kept = map(&reader, 1, PROT_READ);
    // SAFETY: as above; and nothing that is there is replaced.
    unsafe {
        assert_eq!(outcome(libc::mprotect(kept.cast(), PAGE, BOTH), -1), Err(libc::EACCES));
        let refused = map_at(ptr::null_mut(), &reader, (0, 1), BOTH, MAP_SHARED);
        assert_eq!(refused, Err(libc::EACCES));
    }
    assert_eq!(load(kept, 0), 5);
    file.set_len(0).unwrap();
    assert_eq!(signal_of(|| _ = load(kept, 0)), libc::SIGBUS);
}

#[test]
fn what_must_not_be_accessed_raises_the_signals_of_the_kernels_mappings() {
    let Some((_bench, mounted)) = stage() else { return };
    play("signals", &mounted.directory);
    mounted.unmount();
}

fn sync(place: &Path) {
    let (direct, buffered) = (open(&place.join("direct")), open(&place.join("buffered")));
    direct.set_len(PAGE as u64).unwrap();
    buffered.set_len(PAGE as u64).unwrap();
    // SAFETY: nothing that is there is replaced.
    let mapped = |file: &File, flags| unsafe { map_at(ptr::null_mut(), file, (0, 1), BOTH, flags) };
    for flags in [MAP_SHARED_VALIDATE | MAP_SYNC, MAP_SHARED | MAP_SYNC] {
        store(mapped(&direct, flags).unwrap(), 0, 1);
        assert_eq!(mapped(&buffered, flags), Err(libc::EOPNOTSUPP));
    }
    store(mapped(&direct, MAP_SHARED_VALIDATE).unwrap(), 1, 2);
    store(mapped(&buffered, MAP_SHARED).unwrap(), 1, 2);
    assert_eq!((byte(&direct, 0), byte(&direct, 1), byte(&buffered, 1)), (1, 2, 2));
}

#[test]
fn map_sync_is_never_ignored() {
    let Some((_bench, mounted)) = stage_with("dax=inode") else { return };
    for (name, kind) in [("direct", "on"), ("buffered", "off")] {
        fs::write(mounted.path(name), []).unwrap();
        succeed(lodefs(["dax", kind]).arg(mounted.path(name)));
    }
    play("sync", &mounted.directory);
    mounted.unmount();
}

/// Pages are replaced, protected and moved back while another thread reads them.
fn meanwhile(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&vec![3; 8 * PAGE], 0).unwrap();
    let shown = map(&file, 8, BOTH).expose_provenance();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, shown) = (0_u64, ptr::with_exposed_provenance_mut(shown));
            while !is_over.load(Ordering::Relaxed) {
                assert!((0..8).all(|page| load(shown, page * PAGE + 7) == 3));
                reads += 1;
            }
            reads
        });
        let start: *mut u8 = ptr::with_exposed_provenance_mut(shown);
        for round in 0..300 {
            let (page, pages) = (round % 5, 1 + round % 3);
            let part = start.wrapping_add(page * PAGE);
            // SAFETY: whatever it is replaced with shows the same.
            unsafe {
                match round % 3 {
                    0 => {
                        map_at(part, &file, (page, pages), BOTH, MAP_SHARED | MAP_FIXED).unwrap();
                    }
                    1 => assert_eq!(libc::mprotect(part.cast(), pages * PAGE, PROT_READ), 0),
                    _ => assert_eq!(libc::mprotect(start.cast(), 8 * PAGE, BOTH), 0),
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn nobody_notices_that_pages_are_replaced() {
    let Some((_bench, mounted)) = stage() else { return };
    play("meanwhile", &mounted.directory);
    mounted.unmount();
}

/// Who has the kernel send a file keeps pages of it in the kernel's cache.
fn spliced(place: &Path) {
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
    let Some((_bench, mounted)) = stage() else { return };
    play("spliced", &mounted.directory);
    mounted.unmount();
}

/// Many mappings of many files, by a program that closes all descriptors that it does not know, and executes another one.
fn tidy(place: &Path) {
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
    let Some((_bench, mounted)) = stage() else { return };
    play("tidy", &mounted.directory);
    mounted.unmount();
}

fn forced(place: &Path) {
    let file = open(&place.join("f"));
    file.set_len(PAGE as u64).unwrap();
    // SAFETY: nothing that is there is replaced.
    let mapped = unsafe { map_at(ptr::null_mut(), &file, (0, 1), BOTH, MAP_SHARED_VALIDATE | MAP_SYNC) };
    println!("mapped: {}", mapped.is_ok());
    store(mapped.unwrap(), 0, 1);
    // SAFETY: it is mapped.
    assert_eq!(unsafe { libc::msync(mapped.unwrap().cast(), PAGE, libc::MS_SYNC) }, 0);
}

#[test]
fn a_program_can_be_tried_on_a_medium_of_another_domain() {
    if !can_mount() || is_on_dax() {
        return;
    }
    let bench = Workbench::new();
    // What it is: on tmpfs, which is gone when the power is.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut mount = lodefs(["mount", "--create", "64M", "-o", "dax=always"]);
    mount.arg(memory.path().join("volume")).arg(bench.directory());
    succeed(mount.env_remove("LODEFS_FORCE_DOMAIN"));
    let mounted = Mounted { directory: bench.directory() };
    for (options, maps) in
        [(&[][..], "mapped: false"), (&["--force-domain", "memory-controller"], "mapped: true")]
    {
        let output = playing(options, "forced", &mounted.directory).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains(maps), "{options:?}");
        assert_eq!(output.status.success(), maps.ends_with("true"));
    }
    mounted.unmount();
}

/// What is refused changes nothing.
fn refusals(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&vec![7; 8 * PAGE], 0).unwrap();
    let shown = map(&file, 8, BOTH);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: nothing that is there is replaced; what is refused replaces nothing.
    unsafe {
        let own = libc::mmap(ptr::null_mut(), 2 * PAGE, BOTH, flags, -1, 0);
        own.cast::<u8>().write(3);
        let fixed = libc::MAP_PRIVATE | MAP_FIXED;
        let mapped = |size, descriptor| {
            outcome(libc::mmap(shown.cast(), size, BOTH, fixed, descriptor, 0), libc::MAP_FAILED)
        };
        assert_eq!(mapped(PAGE, 7777), Err(libc::EBADF));
        assert_eq!(mapped(0, file.as_raw_fd()), Err(libc::EINVAL));
        let moved = |old: *mut c_void, from, to: *mut c_void| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            outcome(libc::mremap(old, from, from, flags, to), libc::MAP_FAILED)
        };
        assert_eq!(moved(own, 2 * PAGE, shown.add(1).cast()), Err(libc::EINVAL));
        assert_eq!(moved(shown.cast(), PAGE, own.cast::<u8>().add(1).cast()), Err(libc::EINVAL));
        assert_eq!(outcome(libc::munmap(shown.cast(), 0), -1), Err(libc::EINVAL));
        assert_eq!(outcome(libc::madvise(shown.cast(), PAGE, 9999), -1), Err(libc::EINVAL));
        assert_eq!(outcome(libc::mprotect(shown.cast(), PAGE, 0x1000), -1), Err(libc::EINVAL));
        assert_eq!(load(own.cast(), 0), 3);
    }
    assert!((0..8).all(|page| load(shown, page * PAGE) == 7));
    // Locks of the process are lost when any descriptor of the file is closed.
    let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    let is_locked = || {
        signal_of(|| {
            let other = open(&place.join("f"));
            // SAFETY: the lock is there.
            if unsafe { libc::fcntl(other.as_raw_fd(), libc::F_SETLK, &raw const lock) } != 0 {
                std::process::abort();
            }
        }) == libc::SIGABRT
    };
    // SAFETY: the lock is there; the pages are mapped, and nobody uses them meanwhile.
    unsafe {
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock), 0);
        assert_eq!(libc::mprotect(shown.cast(), PAGE, PROT_READ), 0);
        assert!(is_locked());
        let longer = libc::mremap(shown.cast(), 8 * PAGE, 16 * PAGE, libc::MREMAP_MAYMOVE);
        assert!(is_locked() && longer == libc::MAP_FAILED, "it is two mappings by now");
        assert_eq!(libc::madvise(shown.add(4 * PAGE).cast(), PAGE, libc::MADV_REMOVE), 0);
        assert!(is_locked());
    }
}

#[test]
fn what_is_refused_changes_nothing_and_locks_stay() {
    let Some((_bench, mounted)) = stage() else { return };
    play("refusals", &mounted.directory);
    mounted.unmount();
}

/// A lock that a handler for forks takes, as allocators have one.
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is used by the functions that are made for that only.
unsafe impl Sync for Lock {}

static LOCK: Lock = Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

extern "C" fn take_lock() {
    // SAFETY: it is one.
    unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
}

extern "C" fn leave_lock() {
    // SAFETY: it is one, and this thread, or that of which it is the copy, has it.
    unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
}

/// Forks while another thread changes what is mapped; the child uses its addresses for something else.
fn beside(place: &Path) {
    // SAFETY: changes no memory.
    unsafe { libc::alarm(100) };
    let file = open(&place.join("f"));
    file.write_all_at(b"hello", 0).unwrap();
    file.set_len(8 * PAGE as u64).unwrap();
    let address = map(&file, 8, BOTH).expose_provenance();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = ptr::with_exposed_provenance_mut::<c_void>(address);
            while !is_over.load(Ordering::Relaxed) {
                for protection in [PROT_READ, BOTH] {
                    // SAFETY: the page is mapped, and shows the same.
                    assert_eq!(unsafe { libc::mprotect(start, PAGE, protection) }, 0);
                }
            }
        });
        for round in 0..60 {
            let start: *mut u8 = ptr::with_exposed_provenance_mut(address);
            // SAFETY: the child uses its own addresses, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let other = open(&place.join("f"));
                let is_right = load(start, 0) == b'h';
                // SAFETY: nobody uses what was there any more.
                unsafe {
                    libc::munmap(start.cast(), 8 * PAGE);
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                    let own = libc::mmap(start.cast(), 8 * PAGE, BOTH, flags, -1, 0);
                    ptr::write_bytes(own.cast::<u8>(), 0x77, 8 * PAGE);
                }
                other.set_len(0).unwrap();
                other.write_all_at(b"hello", 0).unwrap();
                other.set_len(8 * PAGE as u64).unwrap();
                let is_own = (0..8 * PAGE).all(|at| load(start, at) == 0x77);
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(!(is_right && is_own))) };
            }
            assert_eq!(ended(child), Some(0), "round {round}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // SAFETY: changes no memory.
    unsafe { libc::alarm(0) };
}

#[test]
fn a_fork_waits_for_whoever_changes_what_is_mapped() {
    let Some((_bench, mounted)) = stage() else { return };
    play("beside", &mounted.directory);
    mounted.unmount();
}

/// A program whose handler for forks takes a lock under which other threads map and unmap memory of their own.
fn taken(place: &Path) {
    // SAFETY: changes no memory; the handlers stay.
    unsafe {
        libc::alarm(100);
        assert_eq!(libc::pthread_atfork(Some(take_lock), Some(leave_lock), Some(leave_lock)), 0);
    }
    let file = open(&place.join("f"));
    file.set_len(8 * PAGE as u64).unwrap();
    // Other memory lies between these.
    let shown: Vec<*mut u8> = (0..8).map(|_| map(&file, 8, BOTH)).collect();
    store(shown[0], 0, 1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                take_lock();
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: nothing that is there is replaced, and what is new is not used.
                unsafe {
                    let own = libc::mmap(ptr::null_mut(), PAGE, BOTH, flags, -1, 0);
                    assert_eq!(libc::munmap(own, PAGE), 0);
                }
                leave_lock();
            }
        });
        for _ in 0..300 {
            // SAFETY: the child ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            assert_eq!(ended(child), Some(0));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // SAFETY: changes no memory.
    unsafe { libc::alarm(0) };
}

#[test]
fn whoever_unmaps_memory_of_his_own_waits_for_no_fork() {
    let Some((_bench, mounted)) = stage() else { return };
    play("taken", &mounted.directory);
    mounted.unmount();
}
