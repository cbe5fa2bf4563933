//! Which descriptors of this process are the library's own?
//!
//! For whoever acts for a program that closes all descriptors that it does not know.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// More are not noted: a process has two connections to each mount.
const NOTED_MAX: usize = 64;
/// They are put this far from the end of the numbers that there may be, where programs seldom put anything.
const FROM_END: u64 = 128;
/// Nothing is noted here.
const NONE: RawFd = -1;

static NOTED: [AtomicI32; NOTED_MAX] = [const { AtomicI32::new(NONE) }; NOTED_MAX];

/// A descriptor of the library's own.
pub(crate) struct Own(OwnedFd);

impl Own {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        let end = getrlimit(Resource::Nofile).current.unwrap_or(1024).min(1 << 20);
        let first = RawFd::try_from(end.saturating_sub(FROM_END)).unwrap_or(0);
        // Where it is, it is as good.
        let own = Self(fcntl_dupfd_cloexec(&descriptor, first).unwrap_or(descriptor));
        let number = own.0.as_raw_fd();
        let is_noted = |slot: &AtomicI32| {
            slot.compare_exchange(NONE, number, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let _is_one_of_the_first = NOTED.iter().any(is_noted);
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let number = self.0.as_raw_fd();
        for slot in &NOTED {
            let _is_its = slot.compare_exchange(number, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a descriptor is the library's own, and nobody else's to close.
pub fn is_own_descriptor(descriptor: RawFd) -> bool {
    descriptor != NONE && NOTED.iter().any(|slot| slot.load(Ordering::Relaxed) == descriptor)
}

/// All of them, ascending.
pub fn own_descriptors() -> impl Iterator<Item = RawFd> {
    let mut all = NOTED.each_ref().map(|slot| slot.load(Ordering::Relaxed));
    all.sort_unstable();
    all.into_iter().filter(|number| *number != NONE)
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_descriptor_is_noted_as_long_as_it_is_there() {
        let own = Own::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let number = own.as_fd().as_raw_fd();
        assert!(is_own_descriptor(number) && own_descriptors().any(|other| other == number));
        assert!(number > 200, "{number}");
        drop(own);
        assert!(!is_own_descriptor(number) && !is_own_descriptor(NONE));
        assert!(eventfd(0, EventfdFlags::CLOEXEC).is_ok_and(|other| !is_own_descriptor(other.as_raw_fd())));
    }
}
