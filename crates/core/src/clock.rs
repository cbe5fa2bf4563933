//! Where timestamps come from.
//!
//! As in the kernel's own file systems since Linux 6.13: the time of the last tick, which is cheap and lets the second of
//! two changes within a tick go without storing anything; but once somebody has looked at the times of an inode, its next
//! change gets a time of its own, so that the change can be seen. The times of all changes are in the order of the
//! changes.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::types::Time;
use lodefs_sync::{Arc, AtomicU64, Ordering};

const NS_PER_S: u64 = 1_000_000_000;

/// The source of timestamps.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The host's real-time clock.
    #[default]
    System,
    /// Nanoseconds since 1970, set by a test.
    Manual(Arc<AtomicU64>),
}

/// Gives out times that never go back.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    clock: Clock,
    /// The latest fine time given out, in nanoseconds: the last tick may be before it.
    floor_ns: AtomicU64,
}

impl Timekeeper {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, floor_ns: AtomicU64::new(0) }
    }

    /// The time of the last tick.
    pub(crate) fn tick(&self) -> Time {
        let ns = match &self.clock {
            Clock::System => nanoseconds(clock_gettime(ClockId::RealtimeCoarse)),
            Clock::Manual(ns) => ns.load(Ordering::Relaxed),
        };
        time(ns.max(self.floor_ns.load(Ordering::Relaxed)))
    }

    /// A time that differs from all given out before.
    pub(crate) fn fine(&self) -> Time {
        let ns = match &self.clock {
            Clock::System => nanoseconds(clock_gettime(ClockId::Realtime)),
            // Behind the tick that may have been given out.
            Clock::Manual(ns) => ns.load(Ordering::Relaxed) + 1,
        };
        let next = |floor: u64| Some(ns.max(floor + 1));
        let before = self.floor_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        time(ns.max(before.unwrap_or_default() + 1))
    }
}

impl Clock {
    /// The present time.
    pub(crate) fn now(&self) -> Time {
        Timekeeper::new(self.clone()).tick()
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    // A host whose clock stands before 1970 gets 1970.
    u64::try_from(time.tv_sec).unwrap_or_default() * NS_PER_S + time.tv_nsec.unsigned_abs()
}

fn time(ns: u64) -> Time {
    Time { s: (ns / NS_PER_S).cast_signed(), ns: (ns % NS_PER_S) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_go_back_and_fine_ones_differ() {
        for clock in [Clock::System, Clock::Manual(Arc::new(AtomicU64::new(5)))] {
            let keeper = Timekeeper::new(clock);
            let mut last = keeper.tick();
            for _ in 0..1000 {
                let fine = keeper.fine();
                assert!(fine > last);
                last = keeper.tick();
                assert!(last >= fine);
            }
        }
    }
}
