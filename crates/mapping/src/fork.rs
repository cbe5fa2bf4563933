//! What happens in a child?
//!
//! Nothing that is mapped here is inherited: nobody could recall it, and pages that are armed would read as zeroes. So the child
//! begins with its regions' addresses reserved, where an access raises SIGSEGV, and with mappers that serve nobody. The hook, which
//! runs before fork returns in the child, gives each mapper what it needs to go on ([`Mapper::after_fork_in_child`]).
//!
//! vfork and `posix_spawn` run none of this, and need not: their children use the parent's memory, and then none of it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::gate;
use crate::mapper::Mapper;

type Hook = Box<dyn Fn() + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();
static MAPPERS: Mutex<Vec<Weak<Mapper>>> = Mutex::new(Vec::new());
/// What the handlers' registration came to.
static REGISTERED: OnceLock<i32> = OnceLock::new();

/// Sets what runs in a child before fork returns there, without signals, when everything of this crate can be used again. It is to
/// call [`Mapper::after_fork_in_child`] for each mapper. Once per process: whether it was set by this call.
///
/// Handlers of the program for the same moment can only use mappings if they are registered later than those of the first mapper.
pub fn set_fork_hook(hook: impl Fn() + Send + Sync + 'static) -> bool {
    HOOK.set(Box::new(hook)).is_ok()
}

/// From now on the mapper is told when it finds itself in a child.
pub(crate) fn watch(mapper: &Arc<Mapper>) -> io::Result<()> {
    let result = *REGISTERED.get_or_init(|| {
        // SAFETY: the handlers have the signature that is demanded, and stay.
        unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) }
    });
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let inside = gate::enter();
    let mut mappers = mappers(&inside);
    mappers.retain(|mapper| mapper.strong_count() > 0);
    mappers.push(Arc::downgrade(mapper));
    Ok(())
}

/// Inside the gate, so that no child finds it locked.
fn mappers(_: &gate::Inside) -> MutexGuard<'static, Vec<Weak<Mapper>>> {
    MAPPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn prepare() {
    gate::close();
}

extern "C" fn in_parent() {
    // SAFETY: this thread has closed it in `prepare`.
    drop(unsafe { gate::open() });
}

extern "C" fn in_child() {
    // SAFETY: this thread is the copy of the one that has closed it in `prepare`.
    let masked = unsafe { gate::open() };
    let inherited: Vec<_> = mappers(&gate::enter()).iter().filter_map(Weak::upgrade).collect();
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
