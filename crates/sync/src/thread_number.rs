//! Small numbers for threads, for whatever is shared out among them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the calling thread: from zero, in the order in which threads ask for the first time.
#[inline]
pub fn thread_number() -> usize {
    #[cfg(lodefs_shuttle)]
    if let Some(task) = shuttle::current::get_current_task() {
        return task.into();
    }
    NUMBER.with(|number| number.get().unwrap_or_else(|| give(number)))
}

#[cold]
fn give(number: &Cell<Option<usize>>) -> usize {
    // Not one of the atomics that a scheduler decides about: nothing depends on the order.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let new = NEXT.fetch_add(1, Ordering::Relaxed);
    number.set(Some(new));
    new
}

/// Gives the calling thread a number, which others may have too: for tests that have to happen again in the same way.
pub fn set_thread_number(number: usize) {
    NUMBER.set(Some(number));
}
