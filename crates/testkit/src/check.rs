//! Driving a file system and the model side by side.

use std::fmt;

use rustix::io::Errno;

use crate::model::{EPOCH_SECONDS, Leniency, Model};
use crate::operation::{Object, Operation, Outcome, Status, Timestamp};
use crate::target::Target;
use crate::tree::snapshot;

/// How strictly and how often is compared.
#[derive(Clone, Copy, Debug)]
pub struct Strictness {
    /// The whole tree is compared after every so many operations, and at the end. Zero: at the end only.
    pub tree_every: usize,
    /// Whether the times of every file that an operation names are watched.
    pub times: bool,
    /// What is forgiven.
    pub leniency: Leniency,
}

impl Default for Strictness {
    fn default() -> Self {
        Self { tree_every: 20, times: true, leniency: Leniency::default() }
    }
}

/// Something that a file system should not have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Index of the operation; the number of operations if it was found at the end.
    pub step: usize,
    /// What is wrong, in words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {}", self.step, self.text)
    }
}

/// Does `operations` on `target`, which must be empty, and compares it with the model all along.
///
/// # Errors
/// The first violation.
pub fn check(
    target: &mut dyn Target,
    operations: &[Operation],
    strictness: Strictness,
) -> Result<(), Violation> {
    let mut checker = Checker::new(target, strictness);
    for (step, operation) in operations.iter().enumerate() {
        checker.step(operation).map_err(|text| Violation { step, text })?;
        if strictness.tree_every > 0 && (step + 1).is_multiple_of(strictness.tree_every) {
            checker.compare_trees().map_err(|text| Violation { step, text })?;
        }
    }
    checker.compare_trees().map_err(|text| Violation { step: operations.len(), text })
}

/// A file system under test and the model, in step.
#[derive(Debug)]
pub struct Checker<T> {
    /// The file system.
    pub target: T,
    model: Model,
    strictness: Strictness,
}

/// The attributes of one file, by model and target.
#[derive(Clone, Copy)]
struct Sight {
    model: Status,
    target: Status,
}

impl<T: Target> Checker<T> {
    /// Starts with `target`, which must be empty. How often trees are compared is up to the caller.
    pub fn new(target: T, strictness: Strictness) -> Self {
        Self { target, model: Model::new(), strictness }
    }

    /// Goes on with another target, which must be as the present one is.
    ///
    /// # Errors
    /// Those of `exchange`.
    pub fn exchange<U, E>(self, exchange: impl FnOnce(T) -> Result<U, E>) -> Result<Checker<U>, E> {
        let Self { target, model, strictness } = self;
        Ok(Checker { target: exchange(target)?, model, strictness })
    }

    /// Does one operation on both.
    ///
    /// # Errors
    /// What is wrong with the answer, or with the times after it.
    pub fn step(&mut self, operation: &Operation) -> Result<(), String> {
        let watched = if self.strictness.times { operation.objects() } else { Vec::new() };
        let before: Vec<_> = watched.iter().map(|object| self.sight(object)).collect();
        let observed = self.target.apply(operation);
        self.model
            .judge(operation, &observed, self.strictness.leniency)
            .map_err(|expected| format!("{operation:?}: expected {expected:?}, observed {observed:?}"))?;
        // What ran out of space had begun, and may have moved the times.
        if observed == Err(Errno::NOSPC) {
            return Ok(());
        }
        let empties = matches!(operation, Operation::Truncate { object: Object::Path(_), size: 0 });
        if empties && self.strictness.leniency.emptying_touches {
            return Ok(());
        }
        for (object, before) in watched.iter().zip(before) {
            if let (Some(before), Some(after)) = (before, self.sight(object)) {
                compare_times(operation, before, after)
                    .map_err(|text| format!("{operation:?}: {object:?}: {text}"))?;
            }
        }
        Ok(())
    }

    /// What both say of a file that both have.
    fn sight(&mut self, object: &Object) -> Option<Sight> {
        let stat = Operation::Stat { object: object.clone() };
        match (self.model.apply(&stat), self.target.apply(&stat)) {
            (Ok(Outcome::Status(model)), Ok(Outcome::Status(target))) => Some(Sight { model, target }),
            _ => None,
        }
    }

    /// Compares everything there is.
    ///
    /// # Errors
    /// What differs.
    pub fn compare_trees(&mut self) -> Result<(), String> {
        let expected = snapshot(&mut self.model).map_err(|error| format!("the model: {error}"))?;
        let observed = snapshot(&mut self.target).map_err(|error| error.to_string())?;
        let lines = expected.diff(&observed);
        if lines.is_empty() { Ok(()) } else { Err(format!("the tree differs:\n  {}", lines.join("\n  "))) }
    }
}

/// Compares how an operation has moved the times of one file.
fn compare_times(operation: &Operation, before: Sight, after: Sight) -> Result<(), String> {
    if before.model.ino != after.model.ino {
        return Ok(());
    }
    let times = [
        ("mtime", [before.model.mtime, after.model.mtime], [before.target.mtime, after.target.mtime]),
        ("ctime", [before.model.ctime, after.model.ctime], [before.target.ctime, after.target.ctime]),
    ];
    for (name, [model_before, model_after], [target_before, target_after]) in times {
        let must_move = model_before != model_after;
        let fault = if must_move && is_explicit(model_after) {
            (target_after != model_after).then_some("is not what it was set to")
        } else if must_move && target_before == target_after {
            Some("should have moved")
        } else if !must_move && target_before != target_after {
            Some("should not have moved")
        } else if !is_explicit(model_before) && target_after < target_before {
            Some("has moved back")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(format!("{name} {fault}: {target_before:?} -> {target_after:?}, by {operation:?}"));
        }
    }
    Ok(())
}

/// Whether the model's time was set by utimens rather than taken from its clock.
fn is_explicit(time: Timestamp) -> bool {
    time.seconds < EPOCH_SECONDS
}
