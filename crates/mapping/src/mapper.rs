//! Who serves the faults of this process?

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::param::page_size;

use crate::fork;
use crate::gate::{Inside, enter};
use crate::limits::{Limits, Use};
use crate::region::Region;
use crate::request::{Fault, Medium};
use crate::service::{Service, Work};
use crate::uffd::Touch;

/// Who knows what is to be mapped.
pub trait Pager: Send + Sync {
    /// A page that is not mapped was touched, or a hole's zeroes were to be stored to. It is answered by [`Region::install`] or
    /// [`Region::fail`], now or later, by any thread. The same page may be reported more than once: several threads touch it, or
    /// it was recalled.
    ///
    /// All faults of the process are reported by one thread, so it must not wait for anything that may wait for a fault. It may
    /// use the region, but must not touch what is mapped.
    fn fault(&self, region: &Arc<Region>, fault: Fault);
}

/// Serves the faults of this process in mappings of one medium.
pub struct Mapper {
    pub(crate) limits: Limits,
    pub(crate) used: Use,
    /// None if it is over, or if this process is a child that has not been served yet.
    service: Mutex<Option<Arc<Service>>>,
    regions: Mutex<Registry>,
    clock: AtomicU64,
}

#[derive(Default)]
struct Registry {
    /// By where they begin and by number, with where they end. What is gone of one may be another's.
    regions: BTreeMap<(usize, u64), (usize, Weak<Region>)>,
    /// No more are taken.
    is_over: bool,
}

impl fmt::Debug for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapper")
            .field("limits", &self.limits)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Mapper {
    /// Begins to serve. The pager is told what is touched.
    pub fn new(medium: Medium, pager: Arc<dyn Pager>) -> io::Result<Arc<Self>> {
        Self::with_limits(medium, pager, Limits::default())
    }

    /// The same, with other limits than usual.
    pub fn with_limits(medium: Medium, pager: Arc<dyn Pager>, limits: Limits) -> io::Result<Arc<Self>> {
        let mapper = Arc::new(Self {
            limits,
            used: Use::default(),
            service: Mutex::default(),
            regions: Mutex::default(),
            clock: AtomicU64::new(0),
        });
        fork::watch(&mapper)?;
        let inside = enter();
        let service = Service::new(medium)?;
        mapper.start(&service, pager)?;
        *mapper.slot(&inside) = Some(service);
        Ok(mapper)
    }

    /// Whether system calls may touch armed pages. Without the right to that, which the host gives by `CAP_SYS_PTRACE`,
    /// `vm.unprivileged_userfaultfd` or access to `/dev/userfaultfd`, they fail with EFAULT.
    pub fn serves_system_calls(&self) -> bool {
        self.service(&enter()).is_ok_and(|service| service.uffd.serves_system_calls)
    }

    /// Stops serving, for good: an access to any region raises SIGBUS.
    pub fn shut_down(&self) {
        let inside = enter();
        let Ok(service) = self.service(&inside) else { return };
        self.registry(&inside).is_over = true;
        for region in self.regions(&inside) {
            region.shut(&service, &inside);
        }
        // Only now that nothing is left to be recalled.
        if let Some(service) = self.slot(&inside).take() {
            service.stop();
        }
    }

    /// Serves a child, which has just been forked: puts every region where it was, armed, as if it had not seen a recall. To be
    /// called by the hook ([`set_fork_hook`](crate::set_fork_hook)). The parent's pager may have been at work when its process was
    /// copied; this one is new.
    pub fn after_fork_in_child(self: &Arc<Self>, medium: Medium, pager: Arc<dyn Pager>) -> io::Result<()> {
        let inside = enter();
        if self.slot(&inside).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the mapper serves this process already",
            ));
        }
        let service = Service::new(medium)?;
        let regions = self.regions(&inside);
        // Before anything else: what is registered with a service that is given up again would read as zeroes.
        let put_back = regions.iter().try_for_each(|region| region.put_back(&service, &inside));
        if let Err(error) = put_back.and_then(|()| self.start(&service, pager)) {
            for region in &regions {
                region.reserve(&inside);
            }
            return Err(error);
        }
        *self.slot(&inside) = Some(service);
        drop(inside);
        for region in &regions {
            region.populate(false);
        }
        Ok(())
    }

    /// This process is a child: what served is the parent's.
    pub(crate) fn find_oneself_in_child(&self) {
        let inside = enter();
        if let Some(service) = self.slot(&inside).take() {
            Service::abandon(service);
        }
        for region in self.regions(&inside) {
            region.reserve(&inside);
        }
    }

    fn start(self: &Arc<Self>, service: &Arc<Service>, pager: Arc<dyn Pager>) -> io::Result<()> {
        let mapper = Arc::downgrade(self);
        service.start(move |service, work| match mapper.upgrade() {
            Some(mapper) => {
                mapper.serve(service, &*pager, work);
                true
            }
            None => false,
        })
    }

    fn serve(&self, service: &Service, pager: &dyn Pager, work: Work) {
        let ask = |region: &Arc<Region>, fault: Fault, epoch| {
            if catch_unwind(AssertUnwindSafe(|| pager.fault(region, fault))).is_err() {
                region.fail(epoch, fault.offset, page_size() as u64);
            }
        };
        for touch in work.touches {
            if let Some((region, fault, epoch)) = self.question(service, touch) {
                ask(&region, fault, epoch);
            }
        }
        for addresses in work.populated {
            let all = self.regions_at(&addresses, &enter());
            for region in all.iter().filter(|region| region.addresses() == addresses) {
                if let Some((fault, epoch)) = region.next_to_populate() {
                    ask(region, fault, epoch);
                }
            }
        }
        for addresses in work.due {
            let inside = enter();
            for region in self.regions_at(&addresses, &inside) {
                region.end_failing(&addresses, service, &inside);
            }
        }
    }

    /// Whom the pager is to be asked for, and what, if somebody waits for something. Else he need not wait.
    fn question(&self, service: &Service, touch: Touch) -> Option<(Arc<Region>, Fault, u64)> {
        let inside = enter();
        let page = touch.address..touch.address + page_size();
        let asked = self.regions_at(&page, &inside).into_iter().find_map(|region| {
            let (fault, epoch) = region.question(touch, &inside)?;
            Some((region, fault, epoch))
        });
        if asked.is_none() {
            service.uffd.wake(&page);
        }
        asked
    }

    /// What works behind it.
    pub(crate) fn service(&self, inside: &Inside) -> io::Result<Arc<Service>> {
        let service = self.slot(inside).clone();
        service.ok_or_else(is_not_served)
    }

    fn slot<'a>(&'a self, _: &'a Inside) -> MutexGuard<'a, Option<Arc<Service>>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry<'a>(&'a self, _: &'a Inside) -> MutexGuard<'a, Registry> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that is greater than all before.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    pub(crate) fn register(&self, region: &Arc<Region>, inside: &Inside) -> io::Result<()> {
        let addresses = region.addresses();
        let mut registry = self.registry(inside);
        if registry.is_over {
            return Err(is_not_served());
        }
        let entry = (addresses.end, Arc::downgrade(region));
        registry.regions.insert((addresses.start, region.number()), entry);
        Ok(())
    }

    pub(crate) fn forget(&self, region: &Region, inside: &Inside) {
        self.registry(inside).regions.remove(&(region.addresses().start, region.number()));
    }

    pub(crate) fn regions(&self, inside: &Inside) -> Vec<Arc<Region>> {
        self.registry(inside).regions.values().filter_map(|(_, region)| region.upgrade()).collect()
    }

    /// Those that have, or had, some of these addresses.
    pub(crate) fn regions_at(&self, addresses: &Range<usize>, inside: &Inside) -> Vec<Arc<Region>> {
        let registry = self.registry(inside);
        let before_end = registry.regions.range(..(addresses.end, 0));
        before_end
            .filter(|(_, (end, _))| *end > addresses.start)
            .filter_map(|(_, (_, r))| r.upgrade())
            .collect()
    }
}

fn is_not_served() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "direct mappings are not served")
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // Every region keeps its mapper, so there is none.
        if let Some(service) = self.slot(&enter()).take() {
            service.stop();
        }
    }
}
