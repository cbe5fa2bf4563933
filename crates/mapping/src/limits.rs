//! What becomes of the oldest parts when there are too many?
//!
//! They are armed again, which loses nothing: who needs them asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::gate::Inside;
use crate::mapper::Mapper;
use crate::region::Region;
use crate::runs::Count;
use crate::service::Service;

/// Zeroes are installed in steps of so many bytes.
pub(crate) const ZEROES_STEP: usize = 1 << 20;

/// What the kernel allows if it does not say.
const MAPPINGS_OF_PROCESS: usize = 65_530;

/// How much a mapper may take. (A little more for each thread that installs at the same time.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Kernel mappings, of which a process may have a limited number (`vm.max_map_count`). Parts that continue each other on the
    /// medium are one.
    pub mappings: usize,
    /// Bytes of memory for the zeroes of holes.
    pub zeroes: usize,
}

impl Default for Limits {
    /// A quarter of what the process may have, and 64 MiB.
    fn default() -> Self {
        let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let allowed = allowed.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_OF_PROCESS);
        Self { mappings: allowed / 4, zeroes: 64 << 20 }
    }
}

/// How much a mapper takes.
#[derive(Debug, Default)]
pub(crate) struct Use {
    mappings: AtomicUsize,
    zeroes: AtomicUsize,
}

impl Use {
    /// A region that had `before` has `after`.
    pub(crate) fn change(&self, before: Count, after: Count) {
        // All sums are those of what regions have, so that they wrap back.
        self.mappings.fetch_add(after.mappings.wrapping_sub(before.mappings), Relaxed);
        self.zeroes.fetch_add(after.zeroes.wrapping_sub(before.zeroes), Relaxed);
    }
}

impl Mapper {
    /// Sees to it that one more part, or step of zeroes, can be installed.
    pub(crate) fn make_room(&self, service: &Service, inside: &Inside) {
        // Between two parts there may be a mapping of what is armed.
        let mappings = (self.limits.mappings / 2).max(1);
        while self.used.mappings.load(Relaxed) >= mappings {
            let Some(oldest) = self.oldest(inside, |count| count.mappings > 0) else { break };
            if !oldest.arm_all(service, inside) {
                break;
            }
        }
        let zeroes = self.limits.zeroes.saturating_sub(ZEROES_STEP);
        while self.used.zeroes.load(Relaxed) > zeroes {
            let Some(oldest) = self.oldest(inside, |count| count.zeroes > 0) else { break };
            if !oldest.arm_zeroes(service, inside) {
                break;
            }
        }
    }

    /// Whether more can be had ahead of its use, without taking it from others soon.
    pub(crate) fn has_room_ahead(&self) -> bool {
        self.used.mappings.load(Relaxed) < self.limits.mappings / 4
            && self.used.zeroes.load(Relaxed) < self.limits.zeroes / 2
    }

    /// The region, of those that have some of it, in which nothing has been installed for the longest time.
    fn oldest(&self, inside: &Inside, has_some: impl Fn(Count) -> bool) -> Option<Arc<Region>> {
        let regions = self.regions(inside).into_iter().filter(|region| has_some(region.count(inside)));
        regions.min_by_key(|region| region.installed_at())
    }
}
