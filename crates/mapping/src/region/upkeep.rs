//! What does its mapper do with a region?

use std::io;
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

use super::{Content, Region, Standing};
use crate::change::joined;
use crate::gate::Inside;
use crate::memory;
use crate::request::Fault;
use crate::runs::{Count, State};
use crate::service::Service;
use crate::uffd::Touch;

/// A region that is losing addresses: it is locked.
pub(crate) struct Leaving<'r>(#[expect(dead_code, reason = "it is dropped")] MutexGuard<'r, Content>);

impl Region {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// When something was installed last, compared with other regions.
    pub(crate) fn installed_at(&self) -> u64 {
        self.installed_at.load(Relaxed)
    }

    pub(crate) fn addresses(&self) -> Range<usize> {
        self.addresses_of(&(0..self.size))
    }

    pub(crate) fn count(&self, inside: &Inside) -> Count {
        self.lock(inside).runs.count()
    }

    /// These addresses are its no more, when what it returns is dropped, before which whatever is mapped there is to go. Who waits there
    /// goes on waiting.
    pub(crate) fn leave<'r>(&'r self, addresses: &Range<usize>, inside: &'r Inside) -> Leaving<'r> {
        let mut content = self.lock(inside);
        let before = content.runs.count();
        content.runs.set(self.positions(addresses), State::Gone);
        let after = content.runs.count();
        self.mapper.used.change(before, after);
        self.shows_file.store(after.file > 0, Relaxed);
        Leaving(content)
    }

    /// Who waits there for a page touches it again.
    pub(crate) fn wake(&self, addresses: &Range<usize>, inside: &Inside) {
        if let Ok(service) = self.mapper.service(inside) {
            service.uffd.wake(&self.addresses_of(&self.positions(addresses)));
        }
    }

    /// What to ask the pager for whoever has touched a page, and how many recalls had been seen; nothing if he need not wait.
    pub(crate) fn question(&self, touch: Touch, inside: &Inside) -> Option<(Fault, u64)> {
        let position =
            touch.address.checked_sub(self.address.get()).filter(|&position| position < self.size)?;
        let content = self.lock(inside);
        let Standing { epoch, is_shut } = content.standing;
        let is_open = match content.runs.at(position) {
            State::Armed => true,
            State::Zeroes => touch.write,
            State::Medium(_) | State::File | State::Failing | State::Gone => false,
        };
        let fault = Fault { offset: self.offset + position as u64, write: touch.write };
        (is_open && !is_shut).then_some((fault, epoch))
    }

    pub(crate) fn end_failing(&self, addresses: &Range<usize>, service: &Service, inside: &Inside) {
        let range = self.positions(addresses);
        self.change(service, inside, |standing, mut change| {
            if !standing.is_shut {
                change.arm_only(&range, State::Failing);
            }
        });
    }

    /// Arms everything; false if that cannot be.
    pub(crate) fn arm_all(&self, service: &Service, inside: &Inside) -> bool {
        self.change(service, inside, |standing, mut change| {
            if !standing.is_shut {
                change.arm(&(0..self.size));
            }
            !standing.is_shut
        })
    }

    /// Arms what is zeroes; false if that cannot be.
    pub(crate) fn arm_zeroes(&self, service: &Service, inside: &Inside) -> bool {
        self.change(service, inside, |standing, mut change| {
            if !standing.is_shut {
                change.arm_only(&(0..self.size), State::Zeroes);
            }
            !standing.is_shut
        })
    }

    /// Lets every access end with a signal, for good.
    pub(crate) fn shut(&self, service: &Service, inside: &Inside) {
        let result = self.change(service, inside, |standing, mut change| {
            standing.is_shut = true;
            change.fail_all()
        });
        if result.is_err() {
            // The host has no room for it: another signal, then.
            self.reserve(inside);
        }
        self.end_populating(inside);
        service.uffd.wake(&self.addresses());
    }

    /// Lets nobody access it, nor anybody else have its addresses, until it is put back: in a child nothing is there.
    pub(crate) fn reserve(&self, inside: &Inside) {
        self.end_populating(inside);
        let mut content = self.lock(inside);
        let before = content.runs.count();
        content.standing = Standing { epoch: 0, is_shut: true };
        self.shows_file.store(false, Relaxed);
        for range in self.pieces_left(&content) {
            let addresses = self.addresses_of(&range);
            // SAFETY: the range is the region's, or nobody's.
            if unsafe { memory::reserve_over(&addresses) }.is_err() {
                content.runs.set(range, State::Gone);
            } else {
                content.runs.set(range, State::Armed);
            }
        }
        self.mapper.used.change(before, content.runs.count());
    }

    /// Arms what is reserved.
    pub(crate) fn put_back(&self, service: &Service, inside: &Inside) -> io::Result<()> {
        let mut content = self.lock(inside);
        for range in self.pieces_left(&content) {
            // SAFETY: it is reserved, for the region.
            unsafe { memory::arm_reserved(&service.uffd, &self.addresses_of(&range), self.writable)? };
        }
        content.standing.is_shut = false;
        Ok(())
    }

    fn pieces_left(&self, content: &Content) -> Vec<Range<usize>> {
        joined(content.runs.within(&(0..self.size)), |_, state| state != State::Gone)
    }
}
