//! The files that are open, and what each of them holds.
//!
//! A regular file is held ([`Hold`]) from its OPEN to its RELEASE, which the kernel sends after the last descriptor and the last
//! mapping of that open are gone. So the effect that was answered at OPEN is true for as long as it matters.
//!
//! Between a buffered open and a later direct one, nobody holds the file: the kernel has written its pages back by then, and what
//! is left in its cache it drops when a direct open is answered, because that does not ask to keep it. Private mappings of direct
//! files bring pages into the cache again, which others do not keep up to date: the cache of a file that has been direct is
//! therefore dropped at each further open, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use lodefs_broker::Rights;
use lodefs_core::Hold;
use parking_lot::Mutex;

/// A power of two well above the number of server threads, so that two seldom meet.
const SHARDS: usize = 64;

/// An open file.
struct Handle {
    hold: Option<Hold>,
    /// The kernel has checked that it may be opened so.
    rights: Rights,
}

/// Handles of open files, by the number that the kernel is told.
pub(crate) struct Handles {
    shards: [Mutex<HashMap<u64, Handle>>; SHARDS],
    last: AtomicU64,
    /// Number of handles that hold nothing any more.
    spent: AtomicU64,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            last: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        }
    }

    fn shard(&self, handle: u64) -> &Mutex<HashMap<u64, Handle>> {
        &self.shards[handle as usize % SHARDS]
    }

    /// Adds an open file, and gives its number, which is not zero.
    pub(crate) fn add(&self, hold: Hold, rights: Rights) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.shard(number).lock().insert(number, Handle { hold: Some(hold), rights });
        number
    }

    /// How an open file was opened; `None` if it is none.
    pub(crate) fn rights(&self, handle: u64) -> Option<Rights> {
        self.shard(handle).lock().get(&handle).map(|handle| handle.rights)
    }

    /// Runs `ask` with what an open file holds, which may be taken away: the handle is *spent* then, and data can no longer be
    /// reached by it. (A directory has no handle, and holds nothing.)
    pub(crate) fn with<T>(&self, handle: u64, ask: impl FnOnce(&mut Option<Hold>) -> T) -> T {
        let mut shard = self.shard(handle).lock();
        let found = shard.get_mut(&handle).map(|handle| &mut handle.hold);
        let Some(hold) = found.filter(|hold| hold.is_some()) else { return ask(&mut None) };
        let outcome = ask(hold);
        if hold.is_none() {
            self.spent.fetch_add(1, Ordering::Release);
        }
        outcome
    }

    /// Whether data can be reached by a handle. Requests without a handle (zero) are the kernel's own.
    pub(crate) fn is_usable(&self, handle: u64) -> bool {
        // There hardly ever is a spent one.
        self.spent.load(Ordering::Acquire) == 0
            || self.shard(handle).lock().get(&handle).is_none_or(|handle| handle.hold.is_some())
    }

    /// The file is closed for good.
    pub(crate) fn remove(&self, handle: u64) {
        // What it held is let go of outside of the lock.
        let removed = self.shard(handle).lock().remove(&handle);
        if removed.is_some_and(|handle| handle.hold.is_none()) {
            self.spent.fetch_sub(1, Ordering::Release);
        }
    }

    /// Lets go of everything: the kernel is gone.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let released = std::mem::take(&mut *shard.lock());
            drop(released);
        }
    }
}
