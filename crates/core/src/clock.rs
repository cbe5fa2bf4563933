//! Where timestamps come from.

use rustix::time::{ClockId, clock_gettime};

use crate::sync::{Arc, AtomicU64, Ordering};
use crate::types::Time;

/// The source of timestamps.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The host's real-time clock, at the granularity that the kernel uses for its own file systems (a few
    /// milliseconds): two changes within one tick carry the same time, and the second need not be stored.
    #[default]
    System,
    /// Nanoseconds since 1970, set by a test.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The present time.
    pub(crate) fn now(&self) -> Time {
        match self {
            Self::System => {
                let now = clock_gettime(ClockId::RealtimeCoarse);
                Time { s: now.tv_sec, ns: now.tv_nsec.unsigned_abs() as u32 }
            }
            Self::Manual(ns) => {
                let ns = ns.load(Ordering::Relaxed);
                Time { s: (ns / 1_000_000_000).cast_signed(), ns: (ns % 1_000_000_000) as u32 }
            }
        }
    }
}
