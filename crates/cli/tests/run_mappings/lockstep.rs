//! Calls at random: on a direct file, and on one of the kernel's.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use libc::{MAP_FIXED, MAP_SHARED, PROT_NONE, PROT_READ};

use crate::common::programs::{open, play_on_stage};
use crate::{BOTH, PAGE, map_at, outcome};

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
pub(crate) fn lockstep(place: &Path) {
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
    play_on_stage("lockstep");
}
