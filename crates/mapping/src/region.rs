//! What is mapped in this range of addresses?

mod populate;
mod upkeep;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::change::{Change, unmap};
use crate::gate::{Inside, enter};
use crate::limits::ZEROES_STEP;
use crate::mapper::Mapper;
use crate::memory;
use crate::over;
use crate::request::{Extent, Part, Request, Shown, What, check_address, clip, invalid};
use crate::runs::{Runs, State};
use crate::service::Service;
use populate::Populating;

/// For so long a page that could not be had raises signals without being asked for again, so that whoever waited for it gets his.
pub const SIGNAL_TIME: Duration = Duration::from_millis(20);

/// A range of a file at a range of addresses, which it unmaps when it is dropped. Somebody who reports a fault may be the last to know
/// of it: who needs the addresses unmapped now says so ([`Region::unmap`]).
pub struct Region {
    mapper: Arc<Mapper>,
    number: u64,
    address: NonZeroUsize,
    offset: u64,
    size: usize,
    writable: bool,
    installed_at: AtomicU64,
    /// It shows the file as the host does.
    shows_file: AtomicBool,
    content: Mutex<Content>,
}

/// What changes. Locked inside the gate only, one at a time but for those that lose addresses (`over`).
struct Content {
    standing: Standing,
    runs: Runs,
    populating: Option<Populating>,
}

/// What decides whether an answer counts.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Recalls that were seen.
    epoch: u64,
    /// Nothing is armed, nor can be: the mapper has been shut down, or this is a child that is not served.
    is_shut: bool,
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses();
        f.debug_struct("Region")
            .field("offset", &self.offset)
            .field("addresses", &addresses)
            .finish_non_exhaustive()
    }
}

impl Region {
    /// A new one, all armed, where huge pages of the medium can be mapped as such.
    pub fn new(mapper: &Arc<Mapper>, request: &Request) -> io::Result<Arc<Self>> {
        let size = request.size_in_pages()?;
        let inside = enter();
        let service = mapper.service(&inside)?;
        Self::at_reservation(mapper, request, &memory::reserve(size, request.offset)?, &service, &inside)
    }

    /// The same at this address, if nothing is mapped there.
    pub fn new_at(mapper: &Arc<Mapper>, request: &Request, address: usize) -> io::Result<Arc<Self>> {
        let size = request.size_in_pages()?;
        check_address(address, size)?;
        let inside = enter();
        let service = mapper.service(&inside)?;
        let addresses = address..address + size;
        memory::reserve_at(&addresses)?;
        Self::at_reservation(mapper, request, &addresses, &service, &inside)
    }

    /// The same in place of whatever is mapped there, without a moment at which nothing is. What other regions have there is theirs no
    /// more; after an error that comes late, nobody's: nothing is mapped then.
    ///
    /// # Safety
    /// Nobody relies on what is mapped there.
    pub unsafe fn new_over(mapper: &Arc<Mapper>, request: &Request, address: usize) -> io::Result<Arc<Self>> {
        let size = request.size_in_pages()?;
        check_address(address, size)?;
        let inside = enter();
        let service = mapper.service(&inside)?;
        let addresses = address..address + size;
        let region = Self::described(mapper, request, &addresses, &service)?;
        let arm = || {
            // SAFETY: it is no region's any more, and by the caller's promise nobody else's. If it fails, `region` unmaps it.
            unsafe { memory::arm_over(&service.uffd, &addresses, region.writable)? };
            mapper.register(&region, &inside)
        };
        // SAFETY: that is done to all of it.
        unsafe { over::replaced(&addresses, &inside, arm)? };
        Ok(region)
    }

    fn at_reservation(
        mapper: &Arc<Mapper>,
        request: &Request,
        addresses: &Range<usize>,
        service: &Service,
        inside: &Inside,
    ) -> io::Result<Arc<Self>> {
        // From here on it is unmapped if anything fails.
        let region = Self::described(mapper, request, addresses, service)?;
        // SAFETY: the reservation is new, and becomes the region's.
        unsafe { memory::arm_reserved(&service.uffd, addresses, region.writable)? };
        mapper.register(&region, inside)?;
        Ok(region)
    }

    fn described(
        mapper: &Arc<Mapper>,
        request: &Request,
        addresses: &Range<usize>,
        service: &Service,
    ) -> io::Result<Arc<Self>> {
        let address = NonZeroUsize::new(addresses.start).ok_or_else(|| invalid("no address"))?;
        let size = addresses.len();
        Ok(Arc::new(Self {
            mapper: Arc::clone(mapper),
            number: mapper.tick(),
            address,
            offset: request.offset,
            size,
            writable: request.writable && service.medium.is_writable,
            installed_at: AtomicU64::new(0),
            shows_file: AtomicBool::new(false),
            content: Mutex::new(Content {
                standing: Standing::default(),
                runs: Runs::new(size),
                populating: None,
            }),
        }))
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        NonNull::with_exposed_provenance(self.address)
    }

    /// Its bytes: whole pages.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Recalls that it has seen.
    pub fn epoch(&self) -> u64 {
        self.lock(&enter()).standing.epoch
    }

    /// Maps what is known of the file, as far as it lies within the region, and wakes whoever waits for it. Zeroes are mapped where
    /// nothing is yet; the medium is mapped over what is not the same place of it.
    ///
    /// False, and who waits asks again, if this was decided when the region had seen another number of recalls than it has now. (What
    /// was installed before a recall that comes meanwhile has been recalled by it.) After an error, somebody must fail the range.
    pub fn install(&self, epoch: u64, parts: &[Part]) -> io::Result<bool> {
        parts.iter().try_for_each(Part::check)?;
        let inside = enter();
        let service = self.mapper.service(&inside)?;
        self.installed_at.store(self.mapper.tick(), Relaxed);
        for (range, what) in parts.iter().flat_map(|part| self.steps(part)) {
            self.mapper.make_room(&service, &inside);
            let installed = self.change(&service, &inside, |standing, mut change| {
                if standing.counts(epoch) { change.install(&range, what).map(|()| true) } else { Ok(false) }
            })?;
            if !installed {
                for part in parts {
                    service.uffd.wake(&self.addresses_of(&self.clip(part.offset, part.size)));
                }
                self.populate_on(&self.clip_all(parts), &service, &inside);
                return Ok(false);
            }
        }
        self.populate_on(&self.clip_all(parts), &service, &inside);
        Ok(true)
    }

    /// Maps all of the region as the host maps this file, of which it is to be a part as it is of the one that is direct. It stays so
    /// until it is recalled. The descriptor may be closed then.
    ///
    /// False, and nothing is mapped, as for [`install`](Self::install). After an error, somebody must fail the range.
    pub fn install_file(&self, epoch: u64, file: impl AsFd) -> io::Result<bool> {
        let inside = enter();
        let service = self.mapper.service(&inside)?;
        self.mapper.make_room(&service, &inside);
        let installed = self.change(&service, &inside, |standing, mut change| {
            if standing.counts(epoch) {
                // Before anybody can reach it.
                self.shows_file.store(true, Release);
                change.install_file(file.as_fd(), self.offset).map(|()| true)
            } else {
                Ok(false)
            }
        });
        if !matches!(installed, Ok(true)) {
            service.uffd.wake(&self.addresses());
        }
        self.populate_on(&(0..self.size), &service, &inside);
        installed
    }

    /// Whether system calls may touch what is armed: see [`Mapper::serves_system_calls`].
    pub fn serves_system_calls(&self) -> bool {
        self.mapper.serves_system_calls()
    }

    /// Whether it shows the file as the host does, with its cache; asked without a lock.
    pub fn shows_file(&self) -> bool {
        self.shows_file.load(Acquire)
    }

    /// Whoever waits for these pages, or touches them within [`SIGNAL_TIME`], gets SIGBUS, or EFAULT from a system call. Later they are
    /// asked for again. If recalls have been seen since this was decided, who waits asks again at once.
    pub fn fail(&self, epoch: u64, offset: u64, size: u64) {
        let range = self.clip(offset, size);
        let inside = enter();
        let Ok(service) = self.mapper.service(&inside) else { return };
        if self.populate_less(&range, &service, &inside) {
            return;
        }
        self.mapper.make_room(&service, &inside);
        let is_failing = self.change(&service, &inside, |standing, mut change| {
            // If the host has no room for a mapping, who waits asks again, until it has.
            standing.counts(epoch) && change.fail(&range).is_ok()
        });
        let addresses = self.addresses_of(&range);
        service.uffd.wake(&addresses);
        if is_failing {
            service.later(SIGNAL_TIME, addresses);
        }
    }

    /// Takes back what is mapped there, and lets pages that failed be asked for: when this returns no access of this process reaches it, and the next asks again. This is recall
    /// number `epoch` (for this region); what was decided knowing of fewer is not installed any more.
    pub fn recall(&self, offset: u64, size: u64, epoch: u64) {
        let range = self.clip(offset, size);
        let inside = enter();
        let Ok(service) = self.mapper.service(&inside) else {
            // Nothing is reached, but it counts once somebody serves again.
            let mut content = self.lock(&inside);
            content.standing.epoch = content.standing.epoch.max(epoch);
            return;
        };
        self.change(&service, &inside, |standing, mut change| {
            standing.epoch = standing.epoch.max(epoch);
            if !standing.is_shut {
                change.arm(&range);
            }
        });
        self.populate_again(&range, &service, &inside);
    }

    /// Gives back these addresses, which nobody may use any more; for all of them, this is what dropping the region does, though others
    /// still know of it.
    pub fn unmap(&self, offset: u64, size: u64) -> io::Result<()> {
        let range = self.clip(offset, size);
        let inside = enter();
        let mut content = self.lock(&inside);
        let before = content.runs.count();
        let unmapped = unmap(self.address.get(), &mut content.runs, &range);
        self.mapper.used.change(before, content.runs.count());
        drop(content);
        if let Ok(service) = self.mapper.service(&inside) {
            service.uffd.wake(&self.addresses_of(&range));
        }
        unmapped
    }

    /// What everything is, at one moment.
    pub fn parts(&self) -> Vec<Extent> {
        let pieces = self.lock(&enter()).runs.within(&(0..self.size));
        let shown = |state| match state {
            State::Armed => Shown::Armed,
            State::Zeroes => Shown::Zeroes,
            State::Medium(at) => Shown::Medium(at),
            State::File => Shown::File,
            State::Failing => Shown::Failing,
            State::Gone => Shown::Unmapped,
        };
        let offset = |position: usize| self.offset + position as u64;
        let extent = |(piece, state): (Range<usize>, State)| Extent {
            offset: offset(piece.start),
            size: piece.len() as u64,
            shown: shown(state),
        };
        pieces.into_iter().map(extent).collect()
    }
}

impl Standing {
    /// Whether what was decided knowing of so many recalls is to be done.
    fn counts(self, epoch: u64) -> bool {
        self.epoch == epoch && !self.is_shut
    }
}

/// What its operations are made of.
impl Region {
    /// A part in steps of which each can be installed at a time.
    fn steps(&self, part: &Part) -> impl Iterator<Item = (Range<usize>, What)> + use<> {
        let range = self.clip(part.offset, part.size);
        let what = match part.what {
            What::Zeroes => What::Zeroes,
            What::Medium(at) => {
                What::Medium(at + self.offset.saturating_add(range.start as u64).saturating_sub(part.offset))
            }
        };
        let step = if what == What::Zeroes { ZEROES_STEP } else { range.len().max(1) };
        let end = range.end;
        range.step_by(step).map(move |start| (start..end.min(start.saturating_add(step)), what))
    }

    /// Changes it, and counts what that takes.
    fn change<T>(
        &self,
        service: &Service,
        inside: &Inside,
        how: impl FnOnce(&mut Standing, Change<'_>) -> T,
    ) -> T {
        let mut content = self.lock(inside);
        let Content { standing, runs, .. } = &mut *content;
        let before = runs.count();
        let result =
            how(standing, Change { service, base: self.address.get(), writable: self.writable, runs });
        let after = content.runs.count();
        self.mapper.used.change(before, after);
        self.shows_file.store(after.file > 0, Release);
        result
    }

    fn lock<'a>(&'a self, _: &'a Inside) -> MutexGuard<'a, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clip(&self, offset: u64, size: u64) -> Range<usize> {
        clip(self.offset, self.size, offset, size)
    }

    /// What an answer is about: it begins with what was asked for.
    fn clip_all(&self, parts: &[Part]) -> Range<usize> {
        let ranges = parts.iter().map(|part| self.clip(part.offset, part.size));
        ranges.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end)).unwrap_or_default()
    }

    fn addresses_of(&self, range: &Range<usize>) -> Range<usize> {
        self.address.get() + range.start..self.address.get() + range.end
    }

    /// The positions at these addresses.
    fn positions(&self, addresses: &Range<usize>) -> Range<usize> {
        let position = |address: usize| address.saturating_sub(self.address.get()).min(self.size);
        position(addresses.start)..position(addresses.end)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let inside = enter();
        self.mapper.forget(self, &inside);
        let unmapped = self.unmap(self.offset, self.size as u64);
        debug_assert!(unmapped.is_ok(), "what is mapped can be unmapped: {unmapped:?}");
    }
}
