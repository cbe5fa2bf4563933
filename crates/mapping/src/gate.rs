//! When is no change under way?
//!
//! Whoever changes mappings does it inside the gate. A fork waits until nobody is inside, and holds everybody up until it is
//! done: so a child finds no lock of this crate taken but this one, and no mapping half made. A thread inside the gate takes no
//! signals: a handler may touch a mapping, and wait for what this very thread is about to do.
//!
//! The locks are those of std, which a child can release whoever else waited for them in the parent.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fork;

static GATE: RwLock<()> = RwLock::new(());

thread_local! {
    /// How often this thread is inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether it has closed the gate.
    static HAS_CLOSED: Cell<bool> = const { Cell::new(false) };
}

/// This thread takes no signals as long as this lives.
pub(crate) struct Masked {
    before: libc::sigset_t,
    /// It is the thread's.
    _not_send: PhantomData<*const ()>,
}

impl Masked {
    pub(crate) fn new() -> Self {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets have room, and are filled before they are used: the call cannot fail with a valid first argument.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init(), _not_send: PhantomData }
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: the set is a valid one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// This thread is inside the gate. (The fields are dropped in this order.)
pub struct Inside {
    _guard: Option<RwLockReadGuard<'static, ()>>,
    _masked: Option<Masked>,
}

/// Goes inside, once more if it is already: a region may be dropped by whoever changes another.
///
/// Inside, a thread must wait for nobody who may have to go inside first (a fork that waits keeps everybody else out), nor touch what
/// is mapped.
pub fn enter() -> Inside {
    // Without it there is no mapper, of which a fork would have to know: see `fork::watch`, which says why.
    let _will_be_said = fork::register();
    // Who has closed the gate is as good as inside: nobody else is.
    let is_inside = DEPTH.get() > 0 || HAS_CLOSED.get();
    let masked = (!is_inside).then(Masked::new);
    let guard = (!is_inside).then(|| GATE.read().unwrap_or_else(PoisonError::into_inner));
    DEPTH.set(DEPTH.get() + 1);
    Inside { _guard: guard, _masked: masked }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Nobody else is inside: as long as this lives, no change is under way in this process.
pub struct Alone {
    /// The thread's.
    _not_send: PhantomData<*const ()>,
}

/// Waits until nobody is inside, and holds everybody else up. As short as can be: threads wait for it that have touched a page. What holds
/// for a thread that is [inside](enter) holds for this one.
///
/// # Panics
/// If this thread is inside, or alone already: it would wait for itself.
pub fn alone() -> Alone {
    assert!(DEPTH.get() == 0 && !HAS_CLOSED.get(), "who is inside the gate waits for himself");
    // As in `enter`.
    let _will_be_said = fork::register();
    close();
    Alone { _not_send: PhantomData }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(open());
    }
}

/// What a thread holds that has closed the gate.
struct Closed {
    _guard: RwLockWriteGuard<'static, ()>,
    masked: Masked,
}

struct Slot(UnsafeCell<Option<Closed>>);

// SAFETY: the slot is only accessed by a thread that has the gate closed, which only one can.
unsafe impl Sync for Slot {}

static CLOSED: Slot = Slot(UnsafeCell::new(None));

/// Lets nobody inside until `open` is called by this thread, or by its copy in a child. Nothing if this thread has done so.
pub(crate) fn close() {
    if HAS_CLOSED.replace(true) {
        return;
    }
    let masked = Masked::new();
    let guard = GATE.write().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the gate is closed, by this thread.
    unsafe { *CLOSED.0.get() = Some(Closed { _guard: guard, masked }) };
}

/// Lets everybody inside again, if this thread, or that of which it is the copy, has closed the gate. Signals are taken when what it
/// returns is dropped.
pub(crate) fn open() -> Option<Masked> {
    if !HAS_CLOSED.replace(false) {
        return None;
    }
    // SAFETY: the gate is closed, by this thread.
    let closed = unsafe { (*CLOSED.0.get()).take() };
    closed.map(|closed| closed.masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: libc::c_int) -> bool {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: asks only; the set has room, and is filled by the first call.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr());
            libc::sigismember(set.as_ptr(), signal) == 1
        }
    }

    #[test]
    fn signals_wait_until_the_outermost_is_left() {
        let outer = enter();
        drop(enter());
        assert!(is_blocked(libc::SIGUSR1));
        drop(outer);
        assert!(!is_blocked(libc::SIGUSR1));
    }

    #[test]
    fn who_is_alone_can_go_inside() {
        let alone = alone();
        drop(enter());
        assert!(is_blocked(libc::SIGUSR1) && GATE.try_read().is_err());
        drop(alone);
        assert!(!is_blocked(libc::SIGUSR1) && DEPTH.get() == 0);
        drop(enter());
    }

    #[test]
    fn nobody_is_inside_a_closed_gate() {
        close();
        assert!(is_blocked(libc::SIGUSR1) && GATE.try_read().is_err());
        close();
        drop(open());
        assert!(open().is_none());
        assert!(!is_blocked(libc::SIGUSR1) && DEPTH.get() == 0);
    }
}
