//! The engine against the model, with reopening in between.
//!
//! At random points the volume is copied as it is and the copy opened, as after a crash that lost nothing; then it is
//! closed and opened itself. Both must show what was there before: every file with its content, attributes and
//! times, and every free block.

use std::fmt;
use std::sync::Arc;

use lodefs_core::{FormatOptions, Fs, OpenOptions};
use lodefs_pmem::{Domain, MediumError};

use super::EngineTarget;
use crate::check::{Checker, Strictness, Violation};
use crate::memory_file::MemoryFile;
use crate::operation::{Object, Operation, Outcome, Status};
use crate::path::TreePath;
use crate::rng::Rng;
use crate::target::Target as _;
use crate::tree::{Tree, snapshot};

/// On which volume the engine is compared with the model.
#[derive(Clone, Copy, Debug)]
pub struct EngineCheck {
    /// Domain of the volume.
    pub domain: Domain,
    /// Its size in bytes.
    pub size: u64,
    /// It is reopened after so many operations, on average.
    pub reopen_every: u64,
    /// Where it is reopened follows from this.
    pub seed: u64,
    /// What is compared and forgiven.
    pub strictness: Strictness,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatistics {
    /// Operations.
    pub operations: u64,
    /// Reopenings.
    pub reopened: u64,
}

/// Something went wrong that is no operation's answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the volume: {0}")]
    Engine(#[from] lodefs_core::Error),
    #[error("the medium: {0}")]
    Medium(#[from] MediumError),
    #[error("the memory that the volume is in: {0}")]
    Memory(#[from] std::io::Error),
}

/// Everything that can be seen of a volume.
struct Sight {
    tree: Tree,
    statuses: Vec<(TreePath, Status)>,
    blocks_free: u64,
}

impl EngineCheck {
    /// Does `operations` on a new volume and compares it with the model all along.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&self, operations: &[Operation]) -> Result<EngineStatistics, Violation> {
        let at = |step: usize| move |text: String| Violation { step, text };
        let file = self.format().map_err(text_of).map_err(at(0))?;
        let target = EngineTarget::new(self.open(&file).map_err(text_of).map_err(at(0))?);
        let mut checker = Checker::new(target, self.strictness);
        let mut rng = Rng::new(self.seed);
        let mut statistics = EngineStatistics::default();
        for (step, operation) in operations.iter().enumerate() {
            checker.step(operation).map_err(|text| with_fault(text, &checker.target)).map_err(at(step))?;
            statistics.operations += 1;
            let every = self.strictness.tree_every;
            if every > 0 && (step + 1).is_multiple_of(every) {
                checker.compare_trees().map_err(at(step))?;
            }
            if rng.one_in(self.reopen_every) {
                checker = self.reopen(checker, &file).map_err(at(step))?;
                statistics.reopened += 1;
            }
        }
        checker = self.reopen(checker, &file).map_err(at(operations.len()))?;
        checker.compare_trees().map_err(at(operations.len()))?;
        Ok(statistics)
    }

    fn format(&self) -> Result<MemoryFile, Failure> {
        let file = MemoryFile::new(self.size)?;
        Fs::format(&file.open(self.domain)?, &FormatOptions::default())?;
        Ok(file)
    }

    fn open(&self, file: &MemoryFile) -> Result<Arc<Fs>, Failure> {
        Ok(Fs::open(file.open(self.domain)?, &OpenOptions::default())?)
    }

    fn reopen(
        &self,
        mut checker: Checker<EngineTarget>,
        file: &MemoryFile,
    ) -> Result<Checker<EngineTarget>, String> {
        // What has no name does not outlive the volume's closing.
        for slot in checker.target.unlinked().map_err(text_of)? {
            checker.step(&Operation::Close { slot })?;
        }
        let before = Sight::of(&mut checker.target)?;
        self.check_copy(&before, file)?;
        let mut checker = checker.exchange(|target| target.reopen(|| self.open(file)).map_err(text_of))?;
        if !checker.target.fs().recovery().was_clean {
            return Err("a volume that was closed is not clean".to_owned());
        }
        let after = Sight::of(&mut checker.target)?;
        before.compare(&after).map_err(|text| format!("closed and opened: {text}"))?;
        Ok(checker)
    }

    /// Opens the volume as it would be found if the process had been killed.
    fn check_copy(&self, before: &Sight, file: &MemoryFile) -> Result<(), String> {
        let killed = || -> Result<EngineTarget, Failure> { Ok(EngineTarget::new(self.open(&file.copy()?)?)) };
        let after = Sight::of(&mut killed().map_err(text_of)?)?;
        before.without_open().compare(&after).map_err(|text| format!("copied and opened: {text}"))
    }
}

impl Sight {
    fn of(target: &mut EngineTarget) -> Result<Self, String> {
        let tree = snapshot(target).map_err(|error| with_fault(error.to_string(), target))?;
        let mut statuses = Vec::new();
        for path in tree.entries.keys() {
            let stat = Operation::Stat { object: Object::Path(path.clone()) };
            match target.apply(&stat) {
                Ok(Outcome::Status(status)) => statuses.push((path.clone(), status)),
                reply => return Err(with_fault(format!("{stat:?}: {reply:?}"), target)),
            }
        }
        Ok(Self { tree, statuses, blocks_free: target.fs().space().blocks_free })
    }

    /// The same without what was open.
    fn without_open(&self) -> Self {
        let tree = Tree { entries: self.tree.entries.clone(), ..Tree::default() };
        Self { tree, statuses: self.statuses.clone(), blocks_free: self.blocks_free }
    }

    fn compare(&self, after: &Self) -> Result<(), String> {
        let lines = self.tree.diff(&after.tree);
        if !lines.is_empty() {
            return Err(format!("the tree differs:\n  {}", lines.join("\n  ")));
        }
        for ((path, before), (_, after)) in self.statuses.iter().zip(&after.statuses) {
            if before != after {
                return Err(format!("{path}: attributes were {before:?} and are {after:?}"));
            }
        }
        if self.blocks_free != after.blocks_free {
            return Err(format!("{} blocks were free, now {}", self.blocks_free, after.blocks_free));
        }
        Ok(())
    }
}

fn text_of(error: impl fmt::Display) -> String {
    error.to_string()
}

fn with_fault(text: String, target: &EngineTarget) -> String {
    match target.fault() {
        Some(fault) => format!("{text}; the engine said: {fault}"),
        None => text,
    }
}
