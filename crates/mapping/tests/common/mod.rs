//! A medium, and a pager that knows one file on it.

// Each test uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use lodefs_mapping::{Fault, Limits, Mapper, Medium, Pager, Part, Region, Request, What};
use rustix::fs::{MemfdFlags, memfd_create};

pub(crate) const PAGE: u64 = 4096;
/// Pages of the medium.
pub(crate) const PAGES: u64 = 1 << 16;

/// A file on a medium: which pages are where, and how big it is.
pub(crate) struct FakeFile {
    pub(crate) medium: File,
    state: Mutex<FileState>,
    pub(crate) faults: AtomicUsize,
    pub(crate) allocations: AtomicUsize,
}

pub(crate) struct FileState {
    /// By page, where it is on the medium, in pages.
    pub(crate) places: BTreeMap<u64, u64>,
    pub(crate) next_free: u64,
    /// Recalls so far.
    pub(crate) epoch: u64,
    /// Pages from here on fail.
    pub(crate) end: u64,
    /// Nothing is answered.
    pub(crate) is_silent: bool,
}

impl FakeFile {
    pub(crate) fn new() -> Arc<Self> {
        let medium = File::from(memfd_create("medium", MemfdFlags::CLOEXEC).unwrap());
        Self::on(medium)
    }

    pub(crate) fn on(medium: File) -> Arc<Self> {
        medium.set_len(PAGES * PAGE).unwrap();
        let state =
            FileState { places: BTreeMap::new(), next_free: 0, epoch: 0, end: u64::MAX, is_silent: false };
        let state = Mutex::new(state);
        Arc::new(Self { medium, state, faults: AtomicUsize::new(0), allocations: AtomicUsize::new(0) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn medium(&self, is_writable: bool) -> Medium {
        Medium {
            file: OwnedFd::from(self.medium.try_clone().unwrap()).into(),
            is_writable,
            is_synchronous: false,
        }
    }

    pub(crate) fn mapper(self: &Arc<Self>) -> Arc<Mapper> {
        Mapper::new(self.medium(true), Arc::<Self>::clone(self)).unwrap()
    }

    pub(crate) fn mapper_with(self: &Arc<Self>, limits: Limits) -> Arc<Mapper> {
        Mapper::with_limits(self.medium(true), Arc::<Self>::clone(self), limits).unwrap()
    }

    /// Lets the file's pages be where the medium's are.
    pub(crate) fn lay_out(&self, pages: std::ops::Range<u64>, at: u64) {
        let mut state = self.lock();
        for page in pages.clone() {
            state.places.insert(page, at + page - pages.start);
        }
        state.next_free = state.next_free.max(at + pages.end - pages.start);
    }

    /// The first four bytes of a page of the medium.
    pub(crate) fn number_at(&self, place: u64) -> u32 {
        let mut bytes = [0; 4];
        self.medium.read_exact_at(&mut bytes, place * PAGE).unwrap();
        u32::from_ne_bytes(bytes)
    }

    pub(crate) fn set_number_at(&self, place: u64, number: u32) {
        self.medium.write_all_at(&number.to_ne_bytes(), place * PAGE).unwrap();
    }
}

impl Pager for FakeFile {
    fn fault(&self, region: &Arc<Region>, fault: Fault) {
        self.faults.fetch_add(1, SeqCst);
        let page = fault.offset / PAGE;
        let mut state = self.lock();
        if state.is_silent {
            return;
        }
        let mut epoch = state.epoch;
        let mut place = state.places.get(&page).copied();
        if page < state.end && place.is_none() && fault.write {
            place = Some(state.next_free);
            let place = state.next_free;
            state.places.insert(page, place);
            state.next_free += 1;
            self.allocations.fetch_add(1, SeqCst);
            // Others may have its zeroes.
            state.epoch += 1;
            epoch = state.epoch;
            region.recall(fault.offset, PAGE, epoch);
        }
        let is_inside = page < state.end;
        drop(state);
        if is_inside {
            let what = place.map_or(What::Zeroes, |place| What::Medium(place * PAGE));
            region.install(epoch, &[Part { offset: fault.offset, size: PAGE, what }]).unwrap();
        } else {
            region.fail(epoch, fault.offset, PAGE);
        }
    }
}

/// A region of `pages` pages from the beginning of the file on.
pub(crate) fn region(mapper: &Arc<Mapper>, pages: u64) -> Arc<Region> {
    let size = (pages * PAGE) as usize;
    Region::new(mapper, &Request { offset: 0, size, writable: true }).unwrap()
}

/// The number at the beginning of a page of a region.
pub(crate) fn number(region: &Region, page: u64) -> &AtomicU32 {
    assert!((page * PAGE) < region.size() as u64);
    // SAFETY: the page is mapped as long as the region lives, and is accessed with atomic numbers only.
    unsafe { region.base().byte_add((page * PAGE) as usize).cast().as_ref() }
}

pub(crate) fn byte(region: &Region, at: usize) -> &AtomicU8 {
    assert!(at < region.size());
    // SAFETY: as above.
    unsafe { region.base().add(at).cast().as_ref() }
}

/// How a child ended that did this: its exit code, or minus the signal.
pub(crate) fn in_child(what: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs what it is given, and ends without running anything of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            // A child that waits for ever ends, by SIGALRM, and its parent says so.
            // SAFETY: changes no memory.
            unsafe { libc::alarm(120) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(result.unwrap_or(99)) }
        }
        -1 => panic!("no child: {}", std::io::Error::last_os_error()),
        child => wait_for(child),
    }
}

pub(crate) fn wait_for(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Lines of this process's list of mappings that lie within these addresses.
pub(crate) fn mappings_within(addresses: std::ops::Range<usize>) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lies_within = |line: &&str| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        number(start) < addresses.end && addresses.start < number(end)
    };
    maps.lines().filter(lies_within).map(str::to_owned).collect()
}

pub(crate) fn addresses(region: &Region) -> std::ops::Range<usize> {
    let start = region.base().addr().get();
    start..start + region.size()
}
