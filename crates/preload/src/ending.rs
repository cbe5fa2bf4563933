//! When does a process end whose first thread has ended?
//!
//! The C library ends a process with the last of its threads, and counts those of this library too. So when the first thread ends, which few
//! programs have it do, somebody waits until there are no others but this library's, and ends the process as the C library would.
//! (A process whose first thread returns from `main` ends at once.)

use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use lodefs_direct::{Threads, enter, spawn_own};
use rustix::process::getpid;
use rustix::thread::gettid;

use crate::within::Within;

/// Between two looks at the threads.
const INTERVAL: Duration = Duration::from_millis(10);

/// What the C library calls at the end of a thread for which it has a value; one more than the key, 0 if there is none.
static KEY: AtomicU32 = AtomicU32::new(0);
static HAS_FIRST_ENDED: AtomicBool = AtomicBool::new(false);
/// The library has threads, or is about to.
static HAS_THREADS: AtomicBool = AtomicBool::new(false);
static IS_AWAITED: AtomicBool = AtomicBool::new(false);
/// From a `Box`, or null: what the kernel says of this process.
static THREADS: AtomicPtr<Threads> = AtomicPtr::new(null_mut());

/// Before the program begins, in its first thread.
pub(crate) fn begin() {
    let mut key = 0;
    // SAFETY: the key has room; the function has the signature that is demanded, and stays.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(first_ends)) } == 0 {
        KEY.store(key + 1, Ordering::Relaxed);
        watch_this();
    }
}

/// In a child, whose first thread this is, and where the library has none yet.
pub(crate) fn in_child() {
    HAS_FIRST_ENDED.store(false, Ordering::SeqCst);
    IS_AWAITED.store(false, Ordering::SeqCst);
    watch_this();
    open_threads();
}

/// This thread is the first.
fn watch_this() {
    if let Some(key) = KEY.load(Ordering::Relaxed).checked_sub(1) {
        // Without memory for it, a process may stay whose first thread ends before others do.
        // SAFETY: the key is there, and the value is only compared with null.
        unsafe { libc::pthread_setspecific(key, without_provenance(1)) };
    }
}

/// Opens what is to be read when the first thread has ended: then there may be no room for it any more.
fn open_threads() {
    let new = Threads::of_this().map_or(null_mut(), |threads| Box::into_raw(Box::new(threads)));
    let old = THREADS.swap(new, Ordering::SeqCst);
    if !old.is_null() {
        // SAFETY: it came from a box, and is the parent's: nobody waits in this process yet.
        drop(unsafe { Box::from_raw(old) });
    }
}

/// The library is about to have threads: once in a process, or more often if threads come together.
pub(crate) fn threads_begin() {
    // A child that some other thread has made has not been said whose it is.
    if gettid() == getpid() {
        watch_this();
    }
    if !HAS_THREADS.swap(true, Ordering::SeqCst) {
        open_threads();
    }
    await_the_last();
}

extern "C" fn first_ends(_: *mut c_void) {
    HAS_FIRST_ENDED.store(true, Ordering::SeqCst);
    await_the_last();
}

/// Whoever comes later, of the first thread's end and the library's beginning, has somebody wait.
fn await_the_last() {
    let is_due = HAS_FIRST_ENDED.load(Ordering::SeqCst) && HAS_THREADS.load(Ordering::SeqCst);
    if !is_due || IS_AWAITED.swap(true, Ordering::SeqCst) {
        return;
    }
    let _within = Within::enter();
    // No handler of the program's runs on it.
    let inside = enter();
    // Without it the process stays, as it would have.
    let _started = spawn_own("end", end_with_the_last);
    drop(inside);
}

fn end_with_the_last() {
    while !is_alone() {
        sleep(INTERVAL);
    }
    // SAFETY: the program has no thread any more, and this is what its last one would have done.
    unsafe { libc::exit(0) };
}

/// Whether the program has no thread any more, as far as can be seen.
fn is_alone() -> bool {
    // SAFETY: it is null, or came from a box, which is dropped in a child only.
    let known = unsafe { THREADS.load(Ordering::SeqCst).as_ref() };
    let seen = match known {
        Some(threads) => threads.are_only_own(),
        None => Threads::of_this().and_then(|threads| threads.are_only_own()),
    };
    seen.unwrap_or(false)
}
