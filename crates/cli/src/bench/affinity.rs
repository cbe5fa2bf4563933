//! On which processor.
//!
//! A request to a FUSE server wakes a thread of it, and its answer wakes the caller. If the two happen to be on two
//! processors, each wake-up is an interrupt to a processor that may be asleep, which on a virtual machine takes longer
//! than everything that is to be measured; and whether they are, stays as it is for long. So both sides are measured on
//! one processor.

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// This thread, and those that it starts, stay on one processor. Dropped, this thread is set free again.
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let before = sched_getaffinity(None).context("the processors cannot be listed")?;
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).context("there is no processor")?;
        let mut only = CpuSet::new();
        only.set(first);
        sched_setaffinity(None, &only).context("no processor can be chosen")?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Whoever may use one processor may use more as before.
        let _ = sched_setaffinity(None, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_set_free_again() {
        let before = sched_getaffinity(None).unwrap();
        let pinned = Pinned::new().unwrap();
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        drop(pinned);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
