//! What works behind a mapper? The threads, and what they hand to each other.
//!
//! One thread reads what the kernel reports, and does nothing else: it waits for nobody, because everybody who moves mappings
//! waits for it. Another takes over from it, asks the pager, and does what is to be done later. Both take no signals, so
//! that no handler of the program's runs on them.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use crate::gate::Masked;
use crate::own::Own;
use crate::request::Medium;
use crate::threads::spawn_own;
use crate::uffd::{BATCH, Touch, Uffd};

/// What the threads of a mapper, and those that change its regions, have in common.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) uffd: Uffd,
    pub(crate) medium: Medium,
    /// A file without pages.
    pub(crate) empty: Own,
    /// Readable when all is over.
    stop: Own,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    touches: Vec<Touch>,
    /// All are set for the same time ahead, so they are in order.
    timers: VecDeque<(Instant, Range<usize>)>,
    populated: Vec<Range<usize>>,
    is_over: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The pager is to be asked.
    pub(crate) touches: Vec<Touch>,
    /// Addresses whose time has come.
    pub(crate) due: Vec<Range<usize>>,
    /// Addresses of regions that are being populated: the pager is to be asked for the next page.
    pub(crate) populated: Vec<Range<usize>>,
}

impl Service {
    pub(crate) fn new(medium: Medium) -> io::Result<Arc<Self>> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?.into();
        let uffd = Uffd::new()?;
        let (queue, changed) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { uffd, medium, empty: file_without_pages()?.into(), stop, queue, changed }))
    }

    /// Starts the threads. They end when this is stopped, and the second also when `serve` says that there is nobody to serve.
    pub(crate) fn start(
        self: &Arc<Self>,
        mut serve: impl FnMut(&Self, Work) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let _inherited = Masked::new();
        let service = Arc::clone(self);
        spawn_own("faults", move || service.read_all())?;
        let service = Arc::clone(self);
        let second = spawn_own("pager", move || {
            while let Some(work) = service.next() {
                if !serve(&service, work) {
                    break;
                }
            }
        });
        second.inspect_err(|_| self.stop())
    }

    /// Lets the threads end.
    pub(crate) fn stop(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
        let written = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        debug_assert!(written.is_ok(), "the counter is far from its end");
    }

    /// In a while, these addresses are due.
    pub(crate) fn later(&self, ahead: Duration, addresses: Range<usize>) {
        self.lock().timers.push_back((Instant::now() + ahead, addresses));
        self.changed.notify_all();
    }

    /// The region at these addresses is to be populated further.
    pub(crate) fn populate(&self, addresses: Range<usize>) {
        self.lock().populated.push(addresses);
        self.changed.notify_all();
    }

    /// Closes the descriptors of a service whose threads are those of the parent process. It does so here because what these
    /// threads owned is never dropped.
    pub(crate) fn abandon(service: Arc<Self>) {
        for file in [service.uffd.own(), &service.medium.file, &service.empty, &service.stop] {
            file.close_in_child();
        }
        std::mem::forget(service);
    }

    /// Nothing is held while it is.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self) {
        let mut touches = Vec::with_capacity(BATCH);
        loop {
            let mut files = [self.stop.as_fd(), self.uffd.as_fd()]
                .map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN));
            let polled = poll(&mut files, None);
            if polled.is_ok() && !files[0].revents().is_empty() {
                return;
            }
            match polled.map_err(io::Error::from).and_then(|_| self.uffd.read(&mut touches)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => cannot_read(&error),
            }
            if !touches.is_empty() {
                self.lock().touches.append(&mut touches);
                self.changed.notify_all();
            }
        }
    }

    /// Waits for work; nothing if all is over.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        loop {
            if queue.is_over {
                return None;
            }
            let work = queue.take();
            if !work.is_nothing() {
                return Some(work);
            }
            queue = match queue.timers.front() {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some((time, _)) => {
                    let ahead = time.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(queue, ahead).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Queue {
    fn take(&mut self) -> Work {
        let now = Instant::now();
        let count = self.timers.iter().take_while(|(time, _)| *time <= now).count();
        let due = self.timers.drain(..count).map(|(_, addresses)| addresses).collect();
        let mut touches = std::mem::take(&mut self.touches);
        // Several threads wait for a page: one question is enough.
        touches.sort_unstable();
        touches.dedup_by(|later, earlier| {
            let is_same = later.address == earlier.address;
            earlier.write |= is_same && later.write;
            is_same
        });
        Work { touches, due, populated: std::mem::take(&mut self.populated) }
    }
}

impl Work {
    fn is_nothing(&self) -> bool {
        self.touches.is_empty() && self.due.is_empty() && self.populated.is_empty()
    }
}

/// To go on would be to let armed pages read as zeroes, silently: the kernel makes ordinary memory of them.
fn cannot_read(error: &io::Error) -> ! {
    eprintln!(
        "lodefs: faults of direct mappings cannot be read: {error} (has the program closed a descriptor that is not its own?)"
    );
    std::process::abort();
}

/// A file that has no pages, and never will.
fn file_without_pages() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag that some hosts demand.
    let file = match memfd_create("lodefs-nothing", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("lodefs-nothing", flags)?,
        other => other?,
    };
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}
