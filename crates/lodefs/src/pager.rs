//! Who answers the faults of mapped files?
//!
//! The engine, asked by the mapper's thread: it grants, and takes back, as it does with programs that are attached to a mount. An
//! operation that takes back waits under the lock of the inode until nobody reaches the pages any more. That is done by the very
//! thread that makes the operation ([`Taker`]), which takes no lock of the engine for it, nor waits for one that does.
//!
//! Locks, in this order: what is known of one mapping ([`Leased`]); then the engine's; then the mapper's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lodefs_core::{Error, Fs, Lease, Lessee, Recall, Touch, Touched};
use lodefs_mapping::{Fault, Mapper, Medium, Pager, Part, Region, What};
use lodefs_mmap::window::Window;
use lodefs_pmem::MediumKind;
use rustix::fs::{Mode, OFlags};

/// What an open volume needs for its files in memory.
#[derive(Default)]
pub(crate) struct Maps {
    pub(crate) pager: Arc<EnginePager>,
    /// There is one as long as something is mapped.
    mapper: Mutex<Weak<Mapper>>,
}

impl Maps {
    /// The mapper of this volume.
    pub(crate) fn mapper(&self, fs: &Fs) -> io::Result<Arc<Mapper>> {
        let mut known = lock(&self.mapper);
        if let Some(mapper) = known.upgrade() {
            return Ok(mapper);
        }
        let new = Mapper::new(medium(fs)?, Arc::clone(&self.pager) as Arc<dyn Pager>)?;
        *known = Arc::downgrade(&new);
        Ok(new)
    }
}

/// The medium, for the mapper. It is opened once more, without the lock of the volume: the mapper's threads have it a moment longer
/// than there are mappings, and then the volume may be opened again already.
fn medium(fs: &Fs) -> io::Result<Medium> {
    let is_writable = !fs.is_read_only();
    let access = if is_writable { OFlags::RDWR } else { OFlags::RDONLY };
    let shared = fs.share_medium(false)?;
    let file = again(&shared, access).or_else(|_| fs.share_medium(is_writable))?;
    let is_synchronous = matches!(fs.domain().kind, MediumKind::DeviceDax | MediumKind::FsDax);
    Ok(Medium { file: file.into(), is_writable, is_synchronous })
}

/// The same file, opened once more. (The process may have lost the right to that since it opened the volume.)
fn again(file: &OwnedFd, access: OFlags) -> io::Result<OwnedFd> {
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(same, access | OFlags::CLOEXEC, Mode::empty())?)
}

/// Asks the engine.
#[derive(Default)]
pub(crate) struct EnginePager {
    /// By the address of the region, which is there at least as long as the entry.
    mapped: Mutex<HashMap<usize, Arc<Leased>>>,
}

impl EnginePager {
    /// From now on faults in this region are answered.
    pub(crate) fn add(&self, region: &Arc<Region>, lease: Lease) {
        let leased = Leased(Mutex::new(Some(State { lease, window: Window::default() })));
        lock(&self.mapped).insert(key(region), Arc::new(leased));
    }

    /// The region is unmapped. What it was granted by, and nobody uses any more.
    pub(crate) fn remove(&self, region: &Arc<Region>) -> Option<Lease> {
        let leased = lock(&self.mapped).remove(&key(region))?;
        // Waits for an answer that is just being given.
        let state = lock(&leased.0).take();
        state.map(|state| state.lease)
    }

    /// Notes that the program has changed the file by its stores.
    pub(crate) fn note_change(&self, region: &Arc<Region>) -> io::Result<()> {
        let Some(leased) = self.leased(region) else { return Ok(()) };
        match &*lock(&leased.0) {
            Some(state) => Ok(state.lease.note_change()?),
            None => Ok(()),
        }
    }

    fn leased(&self, region: &Arc<Region>) -> Option<Arc<Leased>> {
        lock(&self.mapped).get(&key(region)).cloned()
    }
}

impl Pager for EnginePager {
    fn fault(&self, region: &Arc<Region>, fault: Fault) {
        let answered = self.leased(region).is_some_and(|leased| leased.answer(region, fault));
        if !answered {
            region.fail(region.epoch(), fault.offset, 1);
        }
    }
}

/// What the engine has granted, to one mapping; nothing once it is unmapped.
struct Leased(Mutex<Option<State>>);

struct State {
    lease: Lease,
    window: Window,
}

impl Leased {
    /// Answers a touch. False if the page cannot be had.
    fn answer(&self, region: &Region, fault: Fault) -> bool {
        let mut state = lock(&self.0);
        let Some(State { lease, window }) = &mut *state else { return false };
        let touch = Touch {
            offset: fault.offset,
            write: fault.write,
            from: region.offset(),
            to: region.offset() + region.size() as u64,
            window: window.next(fault.offset),
        };
        let mut answer = None;
        if let Err(error) = lease.touch(&touch, |touched| answer = Some(touched)) {
            if !matches!(error, Error::Refused(_)) {
                tracing::error!(ino = lease.ino().0, offset = fault.offset, %error, "a page of a mapping cannot be had");
            }
            return false;
        }
        match answer {
            Some(Touched::Granted(grant)) => {
                let parts: Vec<Part> = grant.parts.iter().map(part).collect();
                // What has been recalled since is not mapped, and asked for again.
                region.install(grant.epoch, &parts).is_ok()
            }
            Some(Touched::BeyondEnd { epoch }) => {
                region.fail(epoch, fault.offset, 1);
                true
            }
            // Every file is direct here.
            Some(Touched::Buffered { .. } | Touched::Switching | Touched::Cached) | None => false,
        }
    }
}

/// Takes back what the engine has granted to one mapping.
pub(crate) struct Taker(pub(crate) Weak<Region>);

impl Lessee for Taker {
    fn recall(&self, recall: Recall) {
        if let Some(region) = self.0.upgrade() {
            region.recall(recall.offset, recall.end.saturating_sub(recall.offset), recall.epoch);
        }
        // Now it is answered, when it is dropped.
    }
}

fn key(region: &Arc<Region>) -> usize {
    Arc::as_ptr(region).addr()
}

fn part(part: &lodefs_core::Part) -> Part {
    let what = match part.what {
        lodefs_core::What::Medium(at) => What::Medium(at),
        lodefs_core::What::Zeroes => What::Zeroes,
    };
    Part { offset: part.offset, size: part.size, what }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
