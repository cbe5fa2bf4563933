//! A scheduler that tries each moment at which a thread can be interrupted for another, once.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// Lets threads run one after the other, in the order in which they were started; but at one moment, a later one each time, the thread that was
/// started last comes first, and goes on as long as it can. Ends when all moments were tried.
#[derive(Default)]
pub(crate) struct Interrupt {
    /// Steps of this execution, and of the one before.
    steps: u64,
    steps_before: u64,
    /// The step before which it interrupts.
    at: u64,
}

impl Scheduler for Interrupt {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.steps_before = std::mem::take(&mut self.steps);
        self.at += 1;
        let was_too_late = self.steps_before > 0 && self.at > self.steps_before;
        (!was_too_late).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        self.steps += 1;
        let mut able = runnable.iter().map(|task| task.id());
        if self.steps >= self.at {
            return able.max();
        }
        current
            .filter(|current| able.any(|id| id == *current))
            .or_else(|| runnable.iter().map(|task| task.id()).min())
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
