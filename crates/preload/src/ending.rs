//! When does a process end whose first thread has ended?
//!
//! The C library ends a process with the last of its threads, and counts those of this library too. So when the first thread ends, which few
//! programs have it do, somebody waits until there are no others but this library's, and ends the process as the C library would.
//! (A process whose first thread returns from `main` ends at once.)

use std::ffi::c_void;
use std::ptr::without_provenance;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use lodefs_direct::{enter, has_only_own_threads, own_thread};
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
}

/// This thread is the first.
fn watch_this() {
    if let Some(key) = KEY.load(Ordering::Relaxed).checked_sub(1) {
        // Without memory for it, a process may stay whose first thread ends before others do.
        // SAFETY: the key is there, and the value is only compared with null.
        unsafe { libc::pthread_setspecific(key, without_provenance(1)) };
    }
}

/// The library is about to have threads.
pub(crate) fn threads_begin() {
    // A child that some other thread has made has not been said whose it is.
    if gettid() == getpid() {
        watch_this();
    }
    HAS_THREADS.store(true, Ordering::SeqCst);
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
    let _started = own_thread("end").spawn(end_with_the_last);
    drop(inside);
}

fn end_with_the_last() {
    while !has_only_own_threads().unwrap_or(false) {
        sleep(INTERVAL);
    }
    // SAFETY: the program has no thread any more, and this is what its last one would have done.
    unsafe { libc::exit(0) };
}
