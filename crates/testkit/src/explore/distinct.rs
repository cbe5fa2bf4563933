//! Which images were looked at, over all workloads and threads, so that none is counted twice.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Sets are taken in turns, so that threads seldom wait for each other.
const SETS: usize = 16;

/// The hashes of all images so far.
#[derive(Debug, Default)]
pub struct Distinct([Mutex<HashSet<u64>>; SETS]);

impl Distinct {
    /// Notes an image. Whether it is the first with these bytes, on whichever domain.
    pub(super) fn insert(&self, hash: u64) -> bool {
        let set = &self.0[hash as usize % SETS];
        set.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
    }
}
