//! A workload, and everything that decides what is explored of it: to be run, made small, saved and run again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Explorer, Failure, Request, Thoroughness, Violation, Workload};
use crate::case;
use crate::minimise::minimise;

/// What is explored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashCase {
    /// What is done.
    pub workload: Workload,
    /// What a crash takes away.
    pub failure: Failure,
    /// How thoroughly images are made.
    pub thoroughness: Thoroughness,
    /// What is chosen at random follows from this.
    pub seed: u64,
}

impl CrashCase {
    /// Explores it.
    ///
    /// # Errors
    /// The first promise that was not kept; a panic breaks one, too.
    pub fn run(&self, explorer: &mut Explorer) -> Result<(), Violation> {
        let Self { failure, thoroughness, seed, .. } = *self;
        let request = Request { failure, thoroughness, seed, drop_at: None };
        // What an explorer keeps from one case to the next is complete, or not there.
        let outcome = catch_unwind(AssertUnwindSafe(|| explorer.explore(&self.workload, request)));
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
            Err(Violation { returned: 0, text: format!("a panic: {text}") })
        })
    }

    /// The smallest case that could be found which fails as well.
    #[must_use]
    pub fn minimised(&self, explorer: &mut Explorer) -> Self {
        let mut smallest = self.clone();
        let simpler: [fn(&mut Workload); 3] = [
            |workload| workload.threads = false,
            |workload| workload.closes = false,
            |workload| workload.fillers = 0,
        ];
        for simplify in simpler {
            let mut candidate = smallest.clone();
            simplify(&mut candidate.workload);
            if candidate.run(explorer).is_err() {
                smallest = candidate;
            }
        }
        let operations = std::mem::take(&mut smallest.workload.operations);
        let operations = minimise(operations, |operations| {
            let mut candidate = smallest.clone();
            candidate.workload.operations = operations.to_vec();
            candidate.run(explorer).is_err()
        });
        smallest.workload.operations = operations;
        smallest
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        case::write(path, &serde_json::to_string_pretty(self)?)
    }

    /// Reads what [`CrashCase::save`] has written.
    ///
    /// # Errors
    /// If the file cannot be read, or is no such case.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        case::read(path)
    }
}

#[cfg(test)]
mod tests {
    use lodefs_pmem::Domain;

    use super::*;

    #[test]
    fn a_saved_case_is_loaded_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("case.json");
        let case = CrashCase {
            workload: Workload::random(Domain::Page, 9, 50),
            failure: Failure::Process,
            thoroughness: Thoroughness::QUICK,
            seed: 9,
        };
        case.save(&path).unwrap();
        assert_eq!(CrashCase::load(&path).unwrap(), case);
    }

    /// Without any operation there is a violation of what never was promised: that a volume is of another size.
    #[test]
    fn a_case_that_fails_becomes_small() {
        let mut workload = Workload::random(Domain::Volatile, 3, 20);
        workload.size = 4096;
        let case =
            CrashCase { workload, failure: Failure::Process, thoroughness: Thoroughness::QUICK, seed: 0 };
        let mut explorer = Explorer::default();
        assert!(case.run(&mut explorer).is_err(), "no volume is that small");
        assert_eq!(case.minimised(&mut explorer).workload.operations, []);
    }
}
