//! What happens in a child?
//!
//! Nothing that is mapped here is inherited: nobody could recall it, and pages that are armed would read as zeroes. So the child
//! begins with its regions' addresses reserved, where an access raises SIGSEGV, and with mappers that serve nobody. The hook, which
//! runs before fork returns in the child, gives each mapper what it needs to go on ([`Mapper::after_fork_in_child`]).
//!
//! vfork and `posix_spawn` run none of this, and need not: their children use the parent's memory, and then none of it.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::{process, thread};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{DupFlags, dup3};

use crate::descriptor_table;
use crate::gate;
use crate::mapper::Mapper;
use crate::threads;

type Hook = Box<dyn Fn() + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();
static MAPPERS: Mutex<Vec<Weak<Mapper>>> = Mutex::new(Vec::new());
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
/// The process whose thread is just registering them, or 0.
static REGISTERING: AtomicU32 = AtomicU32::new(0);

/// Sets what runs in a child before fork returns there, without signals, when everything of this crate can be used again. It is to
/// call [`Mapper::after_fork_in_child`] for each mapper. Once per process: whether it was set by this call.
///
/// Handlers of the program for the same moment can only use mappings if they are registered later than those of this crate, which
/// are registered when it is first used.
pub fn set_fork_hook(hook: impl Fn() + Send + Sync + 'static) -> bool {
    let _inside = gate::enter();
    HOOK.set(Box::new(hook)).is_ok()
}

/// From now on a fork closes the gate.
///
/// Whoever registers handlers that wait for users of this crate does so afterwards, so that they run before the gate is closed. So nothing is
/// registered once more when this has returned, to whichever thread: those that come here for the first time together wait.
///
/// This is what everything of this crate begins with, while another thread may fork: so it leaves nothing that a child could wait for. A
/// child that is made meanwhile may register the handlers twice, which they stand.
pub(crate) fn register() -> io::Result<()> {
    while !IS_REGISTERED.load(Ordering::Acquire) {
        let (own, current) = (process::id(), REGISTERING.load(Ordering::Relaxed));
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if current == own || REGISTERING.compare_exchange(current, own, acquire, relaxed).is_err() {
            thread::yield_now();
            continue;
        }
        let registered = if IS_REGISTERED.load(Ordering::Acquire) { Ok(()) } else { register_now() };
        IS_REGISTERED.fetch_or(registered.is_ok(), Ordering::Release);
        REGISTERING.store(0, Ordering::Release);
        return registered;
    }
    Ok(())
}

fn register_now() -> io::Result<()> {
    // SAFETY: the handlers have the signature that is demanded, and stay.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// From now on the mapper is told when it finds itself in a child.
pub(crate) fn watch(mapper: &Arc<Mapper>) -> io::Result<()> {
    register()?;
    let inside = gate::enter();
    let mut mappers = mappers(&inside);
    mappers.retain(|mapper| mapper.strong_count() > 0);
    mappers.push(Arc::downgrade(mapper));
    Ok(())
}

/// In a child: a descriptor is closed of something that is the parent's alone, though its owner, whom threads of the parent may have
/// shared, cannot be dropped. Nobody uses it here any more; it stays open for nothing.
pub fn leave_to_parent(descriptor: impl AsFd) {
    let Ok(nothing) = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
    // SAFETY: the descriptor stays open and stays owned by its owner: it only becomes one of another file.
    let mut descriptor = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(descriptor.as_fd().as_raw_fd()) });
    // Without it, what it is of ends with the child.
    let _ = dup3(nothing, &mut descriptor, DupFlags::CLOEXEC);
}

/// All mappers of this process.
pub(crate) fn watched(inside: &gate::Inside) -> Vec<Arc<Mapper>> {
    mappers(inside).iter().filter_map(Weak::upgrade).collect()
}

/// Inside the gate, so that no child finds it locked.
fn mappers(_: &gate::Inside) -> MutexGuard<'static, Vec<Weak<Mapper>>> {
    MAPPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn prepare() {
    // Whoever has registered it may not have come to say so, and a child must not register it in the midst of a fork.
    IS_REGISTERED.store(true, Ordering::Release);
    gate::close();
}

extern "C" fn in_parent() {
    drop(gate::open());
}

extern "C" fn in_child() {
    descriptor_table::in_child();
    let Some(masked) = gate::open() else { return };
    threads::forget_parents();
    let inherited = watched(&gate::enter());
    for mapper in &inherited {
        mapper.find_oneself_in_child();
    }
    // May be the last of one.
    drop(inherited);
    if let Some(hook) = HOOK.get() {
        hook();
    }
    drop(masked);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_may_be_registered_more_than_once() {
        for _ in 0..3 {
            IS_REGISTERED.store(false, Ordering::Release);
            register().unwrap();
        }
        // SAFETY: the child ends without returning to the parent's frames.
        match unsafe { libc::fork() } {
            0 => {
                gate::close();
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(gate::open().is_none())) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the status has room.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
        gate::close();
        assert!(gate::open().is_some());
    }
}
