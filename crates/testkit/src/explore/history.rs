//! What a volume must show: the states that the model went through, one after each operation.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::model::Model;
use crate::operation::{AllocateMode, Object, Operation, Timestamp};
use crate::path::TreePath;

/// The state after some operations.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) model: Model,
    /// Every path, and the inode of the model that it leads to.
    pub(super) names: BTreeMap<TreePath, u64>,
}

/// All states, and what led from each to the next.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// State `n` is that after `n` operations.
    states: Vec<State>,
    /// The operation that led to each state but the first; `None` for closing the volume.
    operations: Vec<Option<Operation>>,
    /// For each state, the last one before it that everything was made durable in.
    synced: Vec<usize>,
    /// The seconds that the clock showed, by number of the model's operation.
    seconds: Vec<i64>,
}

/// A file that an operation changes in several steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InSteps {
    /// The file, as an inode of the model.
    pub(super) ino: u64,
    /// Whether its size moves as well.
    pub(super) grows: bool,
}

impl History {
    /// Starts with a state that is durable. `seconds` are those of the operations that led to it.
    pub(super) fn new(model: Model, seconds: Vec<i64>) -> Self {
        let names = model.names();
        Self { states: vec![State { model, names }], operations: Vec::new(), synced: vec![0], seconds }
    }

    /// Adds the state after an operation, at which the clock showed `seconds`.
    pub(super) fn push(&mut self, operation: Option<Operation>, model: Model, seconds: i64) {
        let syncs = match &operation {
            None | Some(Operation::Syncfs) => true,
            Some(Operation::Fsync { slot }) => model.ino_of(&Object::Open(*slot)).is_some(),
            Some(_) => false,
        };
        let number = self.states.len();
        self.synced.push(if syncs { number } else { self.synced[number - 1] });
        self.seconds.resize(model.clock() + 1, seconds);
        self.operations.push(operation);
        let names = model.names();
        self.states.push(State { model, names });
    }

    /// The number of the last state.
    pub(super) fn last(&self) -> usize {
        self.states.len() - 1
    }

    pub(super) fn state(&self, number: usize) -> &State {
        &self.states[number]
    }

    /// The states that a crash may leave when `returned` operations had returned: with `keeps_all`, that one or the
    /// next; else any from the last one that was made durable.
    pub(super) fn allowed(&self, returned: usize, keeps_all: bool) -> RangeInclusive<usize> {
        let first = if keeps_all { returned } else { self.synced[returned] };
        first..=(returned + 1).min(self.last())
    }

    /// Whether `observed` is what an engine that follows the clock stores for the model's time `expected`.
    pub(super) fn is_time(&self, expected: Timestamp, observed: Timestamp) -> bool {
        match Model::operation_of(expected) {
            // Of several times within a tick, the nanoseconds are the engine's own choice.
            Some(operation) => self.seconds.get(operation) == Some(&observed.seconds),
            None => expected == observed,
        }
    }

    /// What the operation that leads from state `number` to the next changes in several steps, so that a crash may
    /// leave some of them done.
    pub(super) fn steps_after(&self, number: usize) -> Option<InSteps> {
        let (slot, grows) = match self.operations.get(number)?.as_ref()? {
            Operation::CopyRange { to, .. } => (*to, true),
            Operation::Fallocate {
                slot,
                mode: AllocateMode::ZeroRange | AllocateMode::ZeroRangeKeepSize,
                ..
            } => (*slot, false),
            _ => return None,
        };
        let ino = self.states[number].model.ino_of(&Object::Open(slot))?;
        Some(InSteps { ino, grows })
    }
}
