//! Signals: handlers may use mappings, whatever the thread they interrupt does.

mod common;

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::SeqCst};
use std::thread;

use common::{FakeFile, PAGE, number, region};
use lodefs_mapping::{Part, What};

/// What the handler counts in.
static COUNTER: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    // SAFETY: set before the handler is, to a page of a region that lives longer.
    unsafe { (*COUNTER.load(SeqCst)).fetch_add(1, SeqCst) };
    SIGNALS.fetch_add(1, SeqCst);
}

#[test]
fn a_handler_may_touch_what_is_being_changed() {
    let file = FakeFile::new();
    file.lay_out(0..2, 3);
    let mapper = file.mapper();
    let region = region(&mapper, 2);
    COUNTER.store(std::ptr::from_ref(number(&region, 0)).cast_mut(), SeqCst);
    // SAFETY: the handler has the signature that is demanded, and touches memory that is mapped.
    let me = unsafe {
        assert_ne!(libc::signal(libc::SIGUSR1, count as *const () as usize), libc::SIG_ERR);
        libc::pthread_self()
    };
    let all = [Part { offset: 0, size: 2 * PAGE, what: What::Medium(3 * PAGE) }];
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            for sent in 0..300 {
                // SAFETY: the thread waits for this one.
                assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGUSR1) }, 0);
                while SIGNALS.load(SeqCst) <= sent {
                    thread::yield_now();
                }
            }
        });
        while !sender.is_finished() {
            region.recall(0, u64::MAX, 0);
            assert!(region.install(0, &all).unwrap());
        }
    });
    assert_eq!((file.number_at(3), SIGNALS.load(SeqCst)), (300, 300));
}
