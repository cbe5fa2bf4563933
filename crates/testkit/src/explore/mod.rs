//! The crash explorer: does the engine keep its promises whenever the power fails or the process dies?
//!
//! A [`Workload`] is done on a medium that records everything. Every image that a crash could leave
//! ([`crate::crash`]) is opened, which recovers it, and then:
//! - what it shows is exactly the state after some operation that may be the last one (`oracle`): on
//!   `cpu-cache` and `memory-controller` volumes, and wherever only the process died, the last that had returned or
//!   the one under way; on `page` volumes without power, any since the last sync;
//! - fsck finds nothing, and every free block is known to be free;
//! - it can be used: a file is made, written, read and removed; it can be closed and opened again.
//!
//! Unused blocks hold a pattern before they are first used, so old contents cannot be mistaken for anything else.
//! Some of the recoveries are recorded as well, and crashes in them are explored in the same way; and some of the
//! recoveries from those.
//!
//! What is left out, within a workload, and counted in [`Statistics`]:
//! - an image with the same bytes as one before;
//! - the recovery of an image that is the same as one before wherever recovery reads (`known`): it does the same again;
//! - looking at a volume that is the same after recovery, wherever metadata and data are, with the same blocks free.

mod case;
mod distinct;
mod grid;
mod history;
mod known;
mod look;
mod oracle;
mod run;
mod stage;
pub(crate) mod view;
mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;

use lodefs_pmem::Domain;
use serde::{Deserialize, Serialize};

use self::run::Run;
use self::workload::{Bases, Recorded};
use crate::crash::{self, Call};

pub use self::case::CrashCase;
pub use self::distinct::Distinct;
pub use self::grid::grid;
pub(crate) use self::look::{Boot, Looker, homes_start};
pub(crate) use self::oracle::{shows, shows_but_content};
pub use self::stage::{Stage, representatives};
pub(crate) use self::view::View;
pub use self::workload::Workload;
pub(crate) use self::workload::open_options;

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Failure {
    /// The power: what was not durable may be lost.
    Power,
    /// The process: everything it stored is still there.
    Process,
}

impl Failure {
    /// The failures that a volume of a domain promises to survive.
    pub fn survived_by(domain: Domain) -> &'static [Self] {
        match domain {
            Domain::CpuCache | Domain::MemoryController => &[Self::Power],
            Domain::Page => &[Self::Power, Self::Process],
            Domain::Volatile => &[Self::Process],
        }
    }
}

/// How thoroughly images are made and looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thoroughness {
    /// All images of a moment are made if they are not more than this.
    pub exhaustive_max: usize,
    /// Otherwise, at most so many images with the stores to one place alone, and as many without these,
    pub singles_max: usize,
    /// and so many with any part of the stores.
    pub random: usize,
    /// Stores there are, on average, between two moments besides fences, syncs and marks.
    pub stores_between: u64,
    /// The recovery of one in so many images is explored as well. Zero: of none.
    pub recoveries: u64,
}

impl Thoroughness {
    /// Few images for each crash point: every fence, all or nothing or one line of what is pending, and some at random.
    pub const QUICK: Self =
        Self { exhaustive_max: 8, singles_max: 4, random: 4, stores_between: 4, recoveries: 2 };

    /// Fewer still, for long workloads.
    pub const QUICKEST: Self =
        Self { exhaustive_max: 4, singles_max: 2, random: 2, stores_between: 20, recoveries: 200 };

    /// Many, for short workloads.
    pub const THOROUGH: Self =
        Self { exhaustive_max: 32, singles_max: 8, random: 8, stores_between: 10, recoveries: 20 };
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Workloads.
    pub workloads: u64,
    /// Moments at which a crash was tried.
    pub moments: u64,
    /// Of those, moments of which all images were made.
    pub exhaustive: u64,
    /// Images that crashes left.
    pub images: u64,
    /// Of those, images with bytes that were not seen before, in any workload that the explorer knows of.
    pub distinct: u64,
    /// Images that were recovered, for each workload and kind of crash by itself: the others are the same wherever recovery
    /// reads, or in all bytes, as one before there.
    pub recovered: u64,
    /// Of those, volumes that differed after recovery, so that everything on them was looked at.
    pub examined: u64,
    /// Recoveries that were explored,
    pub recoveries: u64,
    /// and recoveries from crashes in those.
    pub recoveries_again: u64,
}

impl std::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.moments += other.moments;
        self.exhaustive += other.exhaustive;
        self.images += other.images;
        self.distinct += other.distinct;
        self.recovered += other.recovered;
        self.examined += other.examined;
        self.recoveries += other.recoveries;
        self.recoveries_again += other.recoveries_again;
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// How many operations had returned.
    pub returned: usize,
    /// What is wrong, in words.
    pub text: String,
}

impl Violation {
    /// Something that was wrong before anything could crash.
    fn before(text: String) -> Self {
        Self { returned: 0, text }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} operations: {}", self.returned, self.text)
    }
}

/// Explores workloads, one after another.
#[derive(Default)]
pub struct Explorer {
    bases: Bases,
    distinct: Arc<Distinct>,
    statistics: Statistics,
    recovery_calls: BTreeSet<Call>,
}

/// What is explored of one recorded workload.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What a crash takes away.
    pub failure: Failure,
    /// How thoroughly.
    pub thoroughness: Thoroughness,
    /// What is chosen at random follows from this.
    pub seed: u64,
    /// What this call does is left out.
    pub drop_at: Option<Call>,
}

impl Explorer {
    /// One that counts together with others.
    pub fn counting_in(distinct: Arc<Distinct>) -> Self {
        Self { distinct, ..Self::default() }
    }

    /// What was looked at so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Does a workload and explores the crashes in it.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn explore(&mut self, workload: &Workload, request: Request) -> Result<(), Violation> {
        let recorded = self.record(workload)?;
        let mut run = Run::new(workload, &recorded, request, &self.distinct).map_err(Violation::before)?;
        let result = run.explore();
        self.statistics += run.statistics();
        self.recovery_calls.extend(run.recovery_calls());
        result
    }

    /// The calls that made something durable in all recoveries that were explored so far.
    pub fn recovery_calls(&self) -> &BTreeSet<Call> {
        &self.recovery_calls
    }

    /// The calls that made something durable while a workload was done.
    ///
    /// # Errors
    /// An answer of the engine that is wrong, with no crash at all.
    pub fn durability_calls(&mut self, workload: &Workload) -> Result<BTreeSet<Call>, Violation> {
        let recorded = self.record(workload)?;
        Ok(crash::durability_calls(&recorded.log[recorded.first_mark..]))
    }

    fn record(&mut self, workload: &Workload) -> Result<Recorded, Violation> {
        let recorded = workload.record(&mut self.bases);
        recorded.map_err(|text| Violation::before(format!("without a crash: {text}")))
    }
}
