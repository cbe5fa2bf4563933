//! Which images were looked at, over all workloads and threads, so that none is counted twice.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use lodefs_pmem::Domain;

/// Sets are taken in turns, so that threads seldom wait for each other.
const SETS: usize = 16;

/// The hashes of all images so far.
#[derive(Debug, Default)]
pub struct Distinct([Mutex<HashSet<(u64, Domain)>>; SETS]);

impl Distinct {
    /// Notes an image of a volume in a domain. Whether it is the first with these bytes.
    pub(super) fn insert(&self, hash: u64, domain: Domain) -> bool {
        let set = &self.0[hash as usize % SETS];
        set.lock().unwrap_or_else(PoisonError::into_inner).insert((hash, domain))
    }
}
