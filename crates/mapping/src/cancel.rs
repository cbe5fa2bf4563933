//! When is a thread not cancelled?
//!
//! `pthread_cancel(3)` ends a thread by unwinding its stack, where functions of Rust may not be left so.

use std::ffi::c_int;
use std::marker::PhantomData;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`.
const DISABLE: c_int = 1;

/// This thread is not cancelled as long as this lives, but afterwards.
pub struct Uncancelled {
    before: c_int,
    /// The thread's.
    _not_send: PhantomData<*const ()>,
}

/// From now on this thread is not cancelled.
pub fn uncancelled() -> Uncancelled {
    let mut before = 0;
    // SAFETY: there is room for the state; and with such a one it cannot fail.
    unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
    Uncancelled { before, _not_send: PhantomData }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut before = 0;
        // SAFETY: as above. It does not cancel at once: it is no cancellation point.
        unsafe { pthread_setcancelstate(self.before, &raw mut before) };
    }
}
