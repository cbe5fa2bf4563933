//! Which threads of this process are the library's own?
//!
//! For whoever acts for a program that ends with its last thread: the C library counts these too.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::Builder;

use rustix::io::pread;

use crate::descriptor_table;
use crate::own::Own;

/// Own threads that have begun, and that have ended, but for their last steps.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// More than the kernel says of a process.
const STATUS_MAX: usize = 1 << 14;

/// As long as it lives, a thread is an own one.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        descriptor_table::forget_own_thread();
        ENDED.fetch_add(1, SeqCst);
    }
}

/// Starts a thread of the library's own.
///
/// # Errors
/// As for [`Builder::spawn`].
pub fn spawn_own(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let counting = move || {
        BEGUN.fetch_add(1, SeqCst);
        let _counted = Counted;
        descriptor_table::note_own_thread();
        work();
    };
    Builder::new().name(format!("lodefs:{name}")).spawn(counting).map(drop)
}

/// In a child, which has none yet.
pub(crate) fn forget_parents() {
    BEGUN.store(0, SeqCst);
    ENDED.store(0, SeqCst);
}

/// What the kernel says of this process. It is open as long as this lives, so that it can be read where there is no `/proc` any more, and no
/// room for a descriptor. A child needs its own.
pub struct Threads(Own);

impl Threads {
    /// Those of this process.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn of_this() -> io::Result<Self> {
        Ok(Self(Own::from(std::os::fd::OwnedFd::from(File::open("/proc/self/status")?))))
    }

    /// Whether this process's first thread has ended, and all others that are not the library's own.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn are_only_own(&self) -> io::Result<bool> {
        let counts = || (BEGUN.load(SeqCst), ENDED.load(SeqCst));
        let before = counts();
        let mut status = vec![0; STATUS_MAX];
        let size = pread(self.0.as_fd(), &mut status, 0)?;
        let living = before.0.saturating_sub(before.1);
        // All that are counted as living were there when the kernel counted, if none has come or gone meanwhile.
        Ok(counts() == before && others(&String::from_utf8_lossy(&status[..size]), living) == Some(0))
    }
}

/// How many threads there are beside so many, if the first one has ended, which the kernel counts until all have.
fn others(status: &str, own: usize) -> Option<usize> {
    let value = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let all: usize = value("Threads:")?.parse().ok()?;
    value("State:")?.starts_with('Z').then(|| all.saturating_sub(own + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_first_thread_lives_has_others_than_ours() {
        assert!(!Threads::of_this().unwrap().are_only_own().unwrap());
    }

    #[test]
    fn the_first_thread_counts_until_all_have_ended() {
        let status = |state, threads| format!("Name:\tx\nState:\t{state}\nThreads:\t{threads}\n");
        assert_eq!(others(&status("Z (zombie)", 4), 3), Some(0));
        assert_eq!(others(&status("Z (zombie)", 5), 3), Some(1));
        assert_eq!(others(&status("S (sleeping)", 4), 3), None);
        assert_eq!(others("", 0), None);
    }
}
