//! What was done without the kernel, and what not?
//!
//! Counted if `lodefs run` was asked to say so, in a file that all processes of the program have in memory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use lodefs_direct::run::{Counter, STATS_VARIABLE};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::mm::{MapFlags, ProtFlags, mmap};

type Counters = [AtomicU64; Counter::COUNT];

/// Null if nobody wants to know.
static COUNTERS: AtomicPtr<Counters> = AtomicPtr::new(null_mut());

/// Begins to count.
pub(crate) fn begin() {
    let Some(name) = std::env::var_os(STATS_VARIABLE).filter(|name| !name.is_empty()) else { return };
    // Without it, nobody is counted.
    if let Some(counters) = mapped(&name) {
        COUNTERS.store(counters, Ordering::Release);
        count(Counter::Processes);
    }
}

fn mapped(name: &OsStr) -> Option<*mut Counters> {
    let file: OwnedFd = open(name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let size = size_of::<Counters>();
    // It is somebody else's, if it is another size.
    if usize::try_from(fstat(&file).ok()?.st_size) != Ok(size) {
        return None;
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
    let start = unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, &file, 0).ok()? };
    Some(start.cast())
}

/// One more of these.
pub(crate) fn count(counter: Counter) {
    let counters = COUNTERS.load(Ordering::Acquire);
    if !counters.is_null() {
        // SAFETY: so many numbers are mapped there for ever, at the beginning of a page, and are used as atomic ones by everybody.
        let counters = unsafe { &*counters };
        counters[counter.index()].fetch_add(1, Ordering::Relaxed);
    }
}
