//! SIGBUS: what happens when a mapped page cannot be had.
//!
//! A handler for the whole process is installed when the first medium is mapped. For a fault in a watched mapping it
//! notes the page ([`Losses`]), puts an empty page of memory in its place, and returns: the access is made again, and
//! goes through. For any other it does what would have happened without it: it calls the handler that was there before
//! (Rust's own, or that of the program), or lets the process end.
//!
//! Mappings are found in a list of entries that only ever grows; those of mappings that are gone are used again. The
//! handler reads it without a lock. An entry that changes meanwhile is not the one it looks for: the mapping in which
//! the fault happened is in use.
//!
//! Everything in the handler may be done in one: loads and stores of atomic numbers, and the system calls mmap and
//! sigaction, which take no locks in user space.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::losses::Losses;

/// A mapping in the list.
struct Entry {
    /// Odd while the entry is being changed.
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 if the entry is free.
    end: AtomicUsize,
    /// Unit in which the host maps, a power of two.
    unit: AtomicUsize,
    losses: AtomicPtr<Losses>,
    next: Option<&'static Entry>,
}

/// The entry that was added last.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Held by whoever changes the list or installs the handler; never by the handler.
static CHANGING: Mutex<()> = Mutex::new(());

/// What was done about SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// As long as this lives, faults in a mapping are noted.
pub(crate) struct Watch {
    entry: &'static Entry,
    /// Named by the entry.
    _losses: Arc<Losses>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches the `size` bytes mapped at `start`.
    ///
    /// # Safety
    /// They are a mapping of the caller's, made of whole units of `unit` bytes, and stay so for as long as the watch lives.
    /// Any unit of it may be replaced by empty memory at any time.
    pub(crate) unsafe fn new(
        start: usize,
        size: usize,
        unit: usize,
        losses: Arc<Losses>,
    ) -> io::Result<Self> {
        let _held = CHANGING.lock();
        if PREVIOUS.get().is_none() {
            install()?;
        }
        let entry = entries().find(|entry| entry.end.load(Ordering::Relaxed) == 0).unwrap_or_else(add_entry);
        entry.change(|| {
            entry.start.store(start, Ordering::Relaxed);
            entry.end.store(start + size, Ordering::Relaxed);
            entry.unit.store(unit, Ordering::Relaxed);
            entry.losses.store(Arc::as_ptr(&losses).cast_mut(), Ordering::Relaxed);
        });
        Ok(Self { entry, _losses: losses })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _held = CHANGING.lock();
        self.entry.change(|| self.entry.end.store(0, Ordering::Relaxed));
    }
}

impl Entry {
    /// Changes the entry, which is excluded for others by [`CHANGING`].
    fn change(&self, stores: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        stores();
        self.version.store(version + 2, Ordering::Release);
    }

    /// The unit of the mapping that `address` is in, if it is in this one.
    fn unit_at(&self, address: usize) -> Option<Lost> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let size = self.unit.load(Ordering::Relaxed);
        let losses = self.losses.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_stable = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        if !is_stable || !(start..end).contains(&address) {
            return None;
        }
        let at = (address - start) & !(size - 1);
        Some(Lost { at, address: start + at, size, losses })
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: the pointer is null, or comes from `add_entry`, whose entries live forever.
    let first: Option<&'static Entry> = unsafe { ENTRIES.load(Ordering::Acquire).as_ref() };
    std::iter::successors(first, |entry| entry.next)
}

fn add_entry() -> &'static Entry {
    let entry = Box::leak(Box::new(Entry {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        unit: AtomicUsize::new(0),
        losses: AtomicPtr::new(ptr::null_mut()),
        next: entries().next(),
    }));
    ENTRIES.store(entry, Ordering::Release);
    entry
}

/// A unit of a mapping that cannot be had.
struct Lost {
    /// Its place in the mapping.
    at: usize,
    address: usize,
    size: usize,
    losses: *const Losses,
}

impl Lost {
    /// Notes it and puts empty memory in its place; whether that could be done.
    ///
    /// # Safety
    /// The calling thread was accessing it.
    unsafe fn replace(&self, memory_failed: bool) -> bool {
        // SAFETY: the mapping is in use by this thread, so its watch lives, and with it what the entry names.
        let losses = unsafe { &*self.losses };
        losses.note(self.at as u64, self.size as u64, memory_failed);
        // SAFETY: whoever watches the mapping lets its units be replaced. Its memory is accessed through raw pointers only, as
        // memory that others may change at any time anyway.
        let replaced = unsafe {
            mmap_anonymous(
                ptr::without_provenance_mut(self.address),
                self.size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        };
        replaced.is_ok()
    }
}

/// Becomes the handler of SIGBUS. The caller holds [`CHANGING`].
fn install() -> io::Result<()> {
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only; the answer has room.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) })?;
    // Known before the handler may want it.
    // SAFETY: the call succeeded, so it has filled the answer.
    PREVIOUS.get_or_init(|| unsafe { previous.assume_init() });
    // SAFETY: all zero is a valid value: no flags, nothing blocked.
    let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ours.sa_sigaction = handle as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO demands, and does only what a handler may.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) })
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`; where the signal is a fault, it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let lost = || entries().find_map(|entry| entry.unit_at(address));
    let is_settled = match code {
        // SAFETY: this thread made the access.
        libc::BUS_ADRERR | libc::BUS_OBJERR => lost().is_some_and(|lost| unsafe { lost.replace(false) }),
        // SAFETY: as above.
        libc::BUS_MCEERR_AR => lost().is_some_and(|lost| unsafe { lost.replace(true) }),
        // Nobody has accessed it yet; whoever does is told then.
        libc::BUS_MCEERR_AO => lost().is_some(),
        _ => false,
    };
    if !is_settled {
        pass_on(signal, code, info, context);
    }
}

/// A handler of signals, as registered with `SA_SIGINFO`,
type HandlerWithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
/// and without.
type Handler = extern "C" fn(c_int);

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    let takes_info = PREVIOUS.get().is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0);
    let was_sent = code <= 0;
    match previous {
        libc::SIG_IGN if was_sent => {}
        libc::SIG_DFL | libc::SIG_IGN => end_by(signal, was_sent),
        _ if takes_info => {
            // SAFETY: what was registered with SA_SIGINFO is a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, HandlerWithInfo>(previous) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: what was registered without SA_SIGINFO is a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(previous) };
            handler(signal);
        }
    }
}

/// Lets the signal end the process, when the handler returns: a fault happens again, what was sent is sent again.
fn end_by(signal: c_int, was_sent: bool) {
    // SAFETY: all zero is a valid value: the default action. Setting it and raising a signal may be done in a handler.
    unsafe {
        let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
        libc::sigaction(signal, &raw const default, ptr::null_mut());
        if was_sent {
            libc::raise(signal);
        }
    }
}
