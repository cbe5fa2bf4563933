//! Are there pieces at these addresses? Said without a lock.
//!
//! Programs, and the C library for them, map and unmap memory while they hold locks that a fork waits for. So whoever only wants to know
//! whether he has to do with a piece waits for nobody: he looks at a list that is never changed, only replaced.

use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Where pieces are: ascending, from and to.
type List = Vec<(usize, usize)>;

/// From a `Box`, or null if there is none.
static LIST: AtomicPtr<List> = AtomicPtr::new(null_mut());
/// Who looks at one.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// Whether any piece has some of these addresses.
pub(crate) fn has_some_of(range: &Range<usize>) -> bool {
    if LIST.load(Ordering::Relaxed).is_null() {
        return false;
    }
    // Before the list is read: see `replace`.
    USERS.fetch_add(1, Ordering::SeqCst);
    let list = LIST.load(Ordering::SeqCst);
    // SAFETY: it is null or from a `Box`, which is not dropped as long as somebody is counted.
    let has_some = unsafe { list.as_ref() }.is_some_and(|list| {
        let before_end = list.partition_point(|(from, _)| *from < range.end);
        before_end > 0 && list[before_end - 1].1 > range.start
    });
    USERS.fetch_sub(1, Ordering::Release);
    has_some
}

/// From now on they are these. One thread at a time replaces them.
pub(crate) fn replace(list: List, replaced: &mut Replaced) {
    let new = if list.is_empty() { null_mut() } else { Box::into_raw(Box::new(list)) };
    let old = LIST.swap(new, Ordering::SeqCst);
    if !old.is_null() {
        replaced.0.push(Old(old));
    }
    // Who is counted from now on finds the new one.
    if USERS.load(Ordering::SeqCst) == 0 {
        replaced.0.clear();
    }
}

/// Lists at which somebody may look.
pub(crate) struct Replaced(Vec<Old>);

impl Replaced {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

struct Old(*mut List);

// SAFETY: it owns the list.
unsafe impl Send for Old {}

impl Drop for Old {
    fn drop(&mut self) {
        // SAFETY: it came from a `Box`, is in no other place any more, and nobody looks at it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// In a child: nobody but this thread looks at anything.
pub(crate) fn forget_users() {
    USERS.store(0, Ordering::Relaxed);
}
