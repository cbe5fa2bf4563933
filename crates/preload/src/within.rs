//! Is this thread in this library already?

use std::cell::Cell;
use std::marker::PhantomData;

use lodefs_direct::{Uncancelled, uncancelled};

thread_local! {
    static IS_WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// This thread is within the library, for as long as this lives; then it has the `errno` that it had. Meanwhile it is not cancelled.
pub(crate) struct Within {
    errno: i32,
    uncancelled: Option<Uncancelled>,
    /// It is the thread's.
    _not_send: PhantomData<*const ()>,
}

impl Within {
    /// `None` if it is already: a signal handler, or this library's own call of the C library.
    pub(crate) fn enter() -> Option<Self> {
        let mut within = Self::enter_briefly()?;
        within.uncancelled = Some(uncancelled());
        Some(within)
    }

    /// The same for what has no cancellation point in it.
    pub(crate) fn enter_briefly() -> Option<Self> {
        if IS_WITHIN.replace(true) {
            return None;
        }
        Some(Self { errno: errno(), uncancelled: None, _not_send: PhantomData })
    }
}

impl Within {
    /// The program is to find the `errno` that there is now.
    pub(crate) fn keep_errno(&mut self) {
        self.errno = errno();
    }

    /// Whether it is.
    pub(crate) fn is_here() -> bool {
        IS_WITHIN.get()
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        set_errno(self.errno);
        IS_WITHIN.set(false);
    }
}

fn errno() -> i32 {
    // SAFETY: it is this thread's, and always there.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}
