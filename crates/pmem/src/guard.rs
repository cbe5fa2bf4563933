//! SIGBUS: what happens when a mapped page cannot be had.
//!
//! A handler for the whole process is installed when the first medium is mapped. For a fault in a watched mapping it
//! notes the page ([`Losses`]), puts an empty page of memory in its place, and returns: the access is made again, and
//! goes through. If the file has become shorter, everything behind its end is replaced at once: the kernel does not let a
//! process have as many mappings as a file has pages. For any other it does what would have happened without it: it
//! calls the handler that was there before (Rust's own, or that of the program), or lets the process end.
//!
//! Mappings are found in a list of entries that only ever grows; those of mappings that are gone are used again. The
//! handler reads it without a lock. An entry that changes meanwhile is not the one it looks for: the mapping in which
//! the fault happened is in use.
//!
//! Everything in the handler may be done in one: loads and stores of atomic numbers, and the system calls mmap, fstat and
//! sigaction, which take no locks in user space.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{FileType, fstat};
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
    /// The descriptor of the file that is mapped, from its beginning on.
    file: AtomicI32,
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
    /// Named by the entry, like the file.
    _losses: Arc<Losses>,
    _file: OwnedFd,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches the `size` bytes mapped at `start`, which are the first of `file`.
    ///
    /// # Safety
    /// They are a mapping of the caller's, made of whole units of `unit` bytes, and stay so for as long as the watch lives.
    /// Any unit of it may be replaced by empty memory at any time.
    pub(crate) unsafe fn new(
        start: usize,
        size: usize,
        unit: usize,
        file: OwnedFd,
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
            entry.file.store(file.as_raw_fd(), Ordering::Relaxed);
            entry.losses.store(Arc::as_ptr(&losses).cast_mut(), Ordering::Relaxed);
        });
        Ok(Self { entry, _losses: losses, _file: file })
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

    /// What is lost if the access to `address` failed, if that is in this mapping.
    fn lost_at(&self, address: usize) -> Option<Lost> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let unit = self.unit.load(Ordering::Relaxed);
        let file = self.file.load(Ordering::Relaxed);
        let losses = self.losses.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_stable = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        if !is_stable || !(start..end).contains(&address) {
            return None;
        }
        Some(Lost { at: (address - start) & !(unit - 1), start, size: end - start, unit, file, losses })
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
        file: AtomicI32::new(-1),
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
    /// Where the mapping is, and its bytes.
    start: usize,
    size: usize,
    /// Bytes of the unit.
    unit: usize,
    file: RawFd,
    losses: *const Losses,
}

/// Where so many mappings are in use that one more is refused, so much is replaced at a time, which joins what was replaced
/// before. At last, everything is.
const WIDER: usize = 2 << 20;

impl Lost {
    /// Notes it and puts empty memory in its place; whether that could be done.
    ///
    /// # Safety
    /// The calling thread was accessing it.
    unsafe fn replace(&self, memory_failed: bool) -> bool {
        // SAFETY: the mapping is in use by this thread, so its watch lives, and with it what the entry names.
        let losses = unsafe { &*self.losses };
        let wider = WIDER.max(self.unit);
        let around = self.at & !(wider - 1);
        let ranges = [self.missing(), around..(around + wider).min(self.size), 0..self.size];
        ranges.into_iter().any(|range| {
            losses.note(range.start as u64, range.len() as u64, memory_failed);
            // SAFETY: whoever watches the mapping lets its units be replaced, of which this are whole ones. Its memory is accessed
            // through raw pointers only, as memory that others may change at any time anyway.
            let replaced = unsafe {
                mmap_anonymous(
                    ptr::without_provenance_mut(self.start + range.start),
                    range.len(),
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                )
            };
            replaced.is_ok()
        })
    }

    /// The unit; or, if the file ends before it, everything behind its end.
    fn missing(&self) -> Range<usize> {
        // SAFETY: the watch has the file open, and lives, because the mapping is in use.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        let end_of_file = fstat(file)
            .ok()
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
            .and_then(|stat| usize::try_from(stat.st_size).ok());
        match end_of_file.map(|end| end.next_multiple_of(self.unit)) {
            Some(end) if end <= self.at => end..self.size,
            _ => self.at..self.at + self.unit,
        }
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
    let lost = || entries().find_map(|entry| entry.lost_at(address));
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
        if (code <= 0 || code == libc::BUS_MCEERR_AO) && is_default(signal) {
            // Whoever was called has made the signal deadly, as Rust's own handler does, and expects the access to fail again. But
            // no access has failed: the process would go on without this handler.
            end_by(signal, true);
        }
    }
}

/// Whether the default action is what the signal does now: to end the process.
fn is_default(signal: c_int) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the answer has room, and all zero is a valid one.
    unsafe {
        libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_DFL
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
