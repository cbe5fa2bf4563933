//! Which descriptors of this process are the library's own?
//!
//! For whoever acts for a program that closes all descriptors that it does not know.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// They begin so far from the end of the numbers that there may be, where programs seldom put anything.
const FROM_END: u64 = 128;
/// No further, whatever a process may have: the kernel's table, which each fork copies, is as long as the highest number.
const END_MAX: u64 = 4096;
/// Greater numbers are not noted, of which a process has more than a million at most.
const NOTED_MAX: usize = 1 << 20;

/// A bit for each number.
static NOTED: [AtomicU64; NOTED_MAX / 64] = [const { AtomicU64::new(0) }; NOTED_MAX / 64];
/// Words from here on have never been used.
static END: AtomicUsize = AtomicUsize::new(0);

/// The word of a number, and its bit there.
fn place(number: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(number).ok().filter(|number| *number < NOTED_MAX)?;
    Some((number / 64, 1 << (number % 64)))
}

fn note(number: RawFd) {
    if let Some((word, bit)) = place(number) {
        END.fetch_max(word + 1, Relaxed);
        NOTED[word].fetch_or(bit, Relaxed);
    }
}

fn forget(number: RawFd) {
    if let Some((word, bit)) = place(number) {
        NOTED[word].fetch_and(!bit, Relaxed);
    }
}

/// A descriptor of the library's own.
#[derive(Debug)]
pub struct Own(OwnedFd);

impl Own {
    /// In a child: closes one that nobody uses any more, and whose owner is never dropped.
    pub(crate) fn close_in_child(&self) {
        forget(self.0.as_raw_fd());
        // SAFETY: by what is demanded, nobody uses it any more, and it is not closed once more.
        unsafe { rustix::io::close(self.0.as_raw_fd()) };
    }
}

/// It gets a high number, if there is one.
impl From<OwnedFd> for Own {
    fn from(descriptor: OwnedFd) -> Self {
        let end = getrlimit(Resource::Nofile).current.unwrap_or(END_MAX).min(END_MAX);
        let first = RawFd::try_from(end.saturating_sub(FROM_END)).unwrap_or(0);
        // Where it is, it is as good.
        let own = Self(fcntl_dupfd_cloexec(&descriptor, first).unwrap_or(descriptor));
        note(own.0.as_raw_fd());
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Before another one can have it.
        forget(self.0.as_raw_fd());
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a descriptor is the library's own, and nobody else's to close.
pub fn is_own_descriptor(descriptor: RawFd) -> bool {
    place(descriptor).is_some_and(|(word, bit)| NOTED[word].load(Relaxed) & bit != 0)
}

/// All of them, ascending.
pub fn own_descriptors() -> impl Iterator<Item = RawFd> {
    let numbers = (0..END.load(Relaxed) * 64).filter_map(|number| RawFd::try_from(number).ok());
    numbers.filter(|number| is_own_descriptor(*number))
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_descriptor_is_noted_as_long_as_it_is_there() {
        let own = Own::from(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let number = own.as_fd().as_raw_fd();
        assert!(is_own_descriptor(number) && own_descriptors().any(|other| other == number));
        assert!(number > 200, "{number}");
        drop(own);
        assert!(!is_own_descriptor(number) && !is_own_descriptor(-1) && !is_own_descriptor(RawFd::MAX));
        assert!(eventfd(0, EventfdFlags::CLOEXEC).is_ok_and(|other| !is_own_descriptor(other.as_raw_fd())));
    }
}
