//! Does this thread use the descriptor table of the process?
//!
//! The threads of a process share one table of descriptors, as a rule. But `unshare(CLONE_FILES)` gives a thread a table of its own, and
//! clone(2) and vfork(2) make processes that share the memory of their parent, but not its table. Then one number means two files. A
//! library that knows descriptors by their numbers must find out to which table a number belongs.
//!
//! The kernel tells by kcmp(2) whether two threads share a table. That is a system call, so the answer is kept for each thread. The
//! *epoch* says how long it holds: a new epoch begins whenever a number was found to mean a file ([`begin_epoch`]). The reason why that is
//! enough: a thread that leaves the table has the same files by the same numbers at first. Before a number means another file, the old
//! file is closed in one of the two tables, which takes away what was known of that number (rule 11 of the protocol). So somebody has to
//! find out the meaning of the number again, in the table of the process, and that begins a new epoch.
//!
//! The table of the process is that of the library's own threads, because there the library's own descriptors are; as long as there is
//! none, that of the first thread.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64};

use rustix::process::getpid;
use rustix::thread::gettid;

/// `KCMP_FILES` of linux/kcmp.h.
const KCMP_FILES: libc::c_int = 2;
const PAGE_SIZE: usize = 4096;

static EPOCH: AtomicU64 = AtomicU64::new(1);

/// A thread of the library's own, or 0.
static OWN_THREAD: AtomicI32 = AtomicI32::new(0);

/// Processes share this one's memory: their threads may use the same thread-local variables.
static HAS_SIBLINGS: AtomicBool = AtomicBool::new(false);

/// A page with the number of the process. The kernel gives each child a page of zeroes instead, however the child was made.
static PROCESS: AtomicPtr<AtomicI32> = AtomicPtr::new(null_mut());

thread_local! {
    /// The epoch in which this thread was last found to use the table of the process.
    static CHECKED: Cell<u64> = const { Cell::new(0) };
    /// This thread has left the table, as far as was seen.
    static HAS_LEFT: Cell<bool> = const { Cell::new(false) };
}

/// Before the program begins: this process has a table. If there is no memory for that, no thread is ever found to use it.
pub fn begin() {
    if PROCESS.load(SeqCst).is_null() {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let page = unsafe { libc::mmap(null_mut(), PAGE_SIZE, protection, flags, -1, 0) };
        // SAFETY: the page is this function's own.
        if page == libc::MAP_FAILED || unsafe { libc::madvise(page, PAGE_SIZE, libc::MADV_WIPEONFORK) } != 0 {
            return;
        }
        // Without it, children have the kernel do everything.
        // SAFETY: the handler has the signature that is demanded, and stays.
        let _errno = unsafe { libc::pthread_atfork(None, None, Some(in_forked_child)) };
        PROCESS.store(page.cast(), SeqCst);
    }
    note_process();
}

extern "C" fn in_forked_child() {
    in_child();
}

fn note_process() {
    // SAFETY: null, or a page that stays for ever, which is only used as an atomic number.
    if let Some(process) = unsafe { PROCESS.load(SeqCst).as_ref() } {
        process.store(getpid().as_raw_nonzero().get(), SeqCst);
    }
}

/// The number of the process to which this memory belongs; 0 in a child that came by without a call of [`in_child`].
fn process() -> i32 {
    // SAFETY: as above.
    unsafe { PROCESS.load(Relaxed).as_ref() }.map_or(0, |process| process.load(Relaxed))
}

/// Whether this thread uses the table of the process, as far as is known. No system call, as a rule.
pub fn is_used_here() -> bool {
    (CHECKED.get() == EPOCH.load(SeqCst) && process() != 0) || is_surely_used_here()
}

/// The same, asked of the kernel.
pub fn is_surely_used_here() -> bool {
    let epoch = EPOCH.load(SeqCst);
    let process = process();
    if process == 0 || getpid().as_raw_nonzero().get() != process {
        return false;
    }
    let own = OWN_THREAD.load(SeqCst);
    let shares = (own != 0).then(|| shares_table_with(own)).flatten();
    // Without kcmp(2), what was seen has to do.
    let is_used = shares.or_else(|| shares_table_with(process)).unwrap_or(!HAS_LEFT.get());
    if is_used && !HAS_SIBLINGS.load(SeqCst) {
        CHECKED.set(epoch);
    }
    is_used
}

/// Whether this thread may use descriptors of the library's own: it uses the table of the process, or nobody has asked for that to be found
/// out ([`begin`]).
pub fn has_own_descriptors() -> bool {
    PROCESS.load(SeqCst).is_null() || is_surely_used_here()
}

/// Whether this thread and another one of this process have one table; `None` if the kernel does not say.
fn shares_table_with(other: i32) -> Option<bool> {
    let this = gettid().as_raw_nonzero().get();
    if this == other {
        return Some(true);
    }
    // SAFETY: it compares, and changes nothing.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, this, other, KCMP_FILES, 0, 0) };
    (compared >= 0).then_some(compared == 0)
}

/// A number was found to mean a file: each thread finds out again whether it uses the table of the process, before it relies on that.
pub fn begin_epoch() {
    EPOCH.fetch_add(1, SeqCst);
}

/// This thread finds out again, before its next use: a child that shares its thread-local variables may be about to run.
pub fn doubt() {
    CHECKED.set(0);
}

/// This thread has just been given a table of its own.
pub fn leave() {
    HAS_LEFT.set(true);
    doubt();
    begin_epoch();
}

/// Whether this thread was seen to leave the table of the process.
pub fn was_left_here() -> bool {
    HAS_LEFT.get()
}

/// Another process may share this one's memory from now on: nothing is remembered any more.
pub fn expect_siblings() {
    HAS_SIBLINGS.store(true, SeqCst);
    doubt();
    begin_epoch();
}

/// In a child that has a copy of the memory, and this one thread: its table is that of the process.
pub fn in_child() {
    OWN_THREAD.store(0, SeqCst);
    HAS_SIBLINGS.store(false, SeqCst);
    HAS_LEFT.set(false);
    doubt();
    note_process();
}

/// This thread is the library's own. One that uses another table than those before is none to compare with.
pub(crate) fn note_own_thread() {
    let this = gettid().as_raw_nonzero().get();
    let own = OWN_THREAD.load(SeqCst);
    if own == 0 || shares_table_with(own) != Some(false) {
        OWN_THREAD.store(this, SeqCst);
    }
}

/// This thread of the library's own ends.
pub(crate) fn forget_own_thread() {
    let this = gettid().as_raw_nonzero().get();
    let _was_another = OWN_THREAD.compare_exchange(this, 0, SeqCst, SeqCst);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_unshares_its_descriptors_is_found_out_in_a_new_epoch() {
        begin();
        assert!(is_used_here());
        let shares = thread::spawn(|| (is_used_here(), is_surely_used_here())).join().unwrap();
        assert_eq!(shares, (true, true));
        let unshared = thread::spawn(|| {
            assert!(is_used_here());
            // SAFETY: only this thread is affected, which uses no descriptor.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let before = is_used_here();
            begin_epoch();
            (before, is_used_here(), thread::spawn(is_used_here).join().unwrap())
        });
        assert_eq!(unshared.join().unwrap(), (true, false, false), "not seen, found out, inherited");
        assert!(is_used_here() && is_surely_used_here());
    }

    #[test]
    fn a_child_that_came_by_unseen_has_none() {
        begin();
        assert!(is_used_here());
        // SAFETY: as fork(2), without handlers; the child only looks at its memory, and ends.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            0 => {
                let unseen = is_used_here() || is_surely_used_here();
                in_child();
                let seen = is_used_here();
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(unseen) + 2 * i32::from(!seen)) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the status has room.
                assert_eq!(i64::from(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }), child);
                assert_eq!(status, 0);
            }
        }
    }
}
