//! Whether what threads saw can be explained by some order of their operations (linearizability).
//!
//! Every operation happens at one moment between its beginning and its end. One that had not ended when the power
//! failed may have happened or not.

use crate::model::{Leniency, Model};
use crate::operation::Operation;
use crate::target::Reply;

/// An operation of a thread.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) operation: Operation,
    pub(super) reply: Reply,
    /// Otherwise it did not end, and would have been answered like this.
    pub(super) returned: bool,
    /// When it began and ended, on a clock that all threads share and that never stands still.
    pub(super) began: u64,
    pub(super) ended: u64,
}

/// Finds an order of the operations of all threads that the model, starting from `model`, answers in the same way, and at
/// the end of which `is_right` has no objection. If there is none, gives its objections.
pub(super) fn explain(
    model: &Model,
    threads: &[Vec<Done>],
    leniency: Leniency,
    is_right: &mut dyn FnMut(&Model) -> Result<(), String>,
) -> Result<(), String> {
    let mut search = Search { threads, leniency, is_right, objections: Vec::new() };
    if search.from(model, &mut vec![0; threads.len()]) {
        return Ok(());
    }
    let seen: Vec<_> = threads.iter().flatten().map(|done| format!("  {done:?}")).collect();
    Err(format!(
        "no order explains\n{}\n{}",
        seen.join("\n"),
        search.objections.iter().take(8).cloned().collect::<Vec<_>>().join("\n")
    ))
}

struct Search<'a> {
    threads: &'a [Vec<Done>],
    leniency: Leniency,
    is_right: &'a mut dyn FnMut(&Model) -> Result<(), String>,
    objections: Vec<String>,
}

impl Search<'_> {
    /// Tries all orders of what is left, `next` being the position of each thread.
    fn from(&mut self, model: &Model, next: &mut Vec<usize>) -> bool {
        let left = |next: &[usize]| -> Vec<(usize, Done)> {
            let threads = self.threads.iter().zip(next).enumerate();
            threads.filter_map(|(thread, (done, at))| Some((thread, done.get(*at)?.clone()))).collect()
        };
        let left = left(next);
        if left.iter().all(|(_, done)| !done.returned) {
            match (self.is_right)(model) {
                Ok(()) => return true,
                Err(objection) => self.objections.push(objection),
            }
        }
        let first_end = left.iter().filter(|(_, done)| done.returned).map(|(_, done)| done.ended).min();
        for (thread, done) in left {
            // Nothing happens after something that began when it had ended already.
            if first_end.is_some_and(|end| end < done.began) {
                continue;
            }
            let mut model = model.clone();
            if model.judge(&done.operation, &done.reply, self.leniency).is_ok() {
                next[thread] += 1;
                if self.from(&model, next) {
                    return true;
                }
                next[thread] -= 1;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::operation::Outcome;

    fn mkdir(reply: Reply, began: u64, ended: u64) -> Vec<Done> {
        let operation = Operation::Mkdir { path: "d".into(), mode: 0o755 };
        vec![Done { operation, reply, returned: true, began, ended }]
    }

    fn is_explained(threads: &[Vec<Done>], wanted: bool) -> bool {
        let mut is_there = |model: &Model| {
            let found = model.paths().contains(&"d".into());
            if found == wanted { Ok(()) } else { Err("not so".to_owned()) }
        };
        explain(&Model::new(), threads, Leniency::default(), &mut is_there).is_ok()
    }

    #[test]
    fn one_of_two_is_first() {
        let (made, refused) = (Ok(Outcome::Done), Err(Errno::EXIST));
        let overlapping = [mkdir(refused.clone(), 0, 3), mkdir(made.clone(), 1, 2)];
        assert!(is_explained(&overlapping, true));
        assert!(!is_explained(&overlapping, false));
        let too_early = [mkdir(refused, 0, 1), mkdir(made.clone(), 2, 3)];
        assert!(!is_explained(&too_early, true));
        assert!(!is_explained(&[mkdir(made.clone(), 0, 3), mkdir(made, 1, 2)], true));
    }

    #[test]
    fn what_did_not_end_may_have_happened() {
        let mut cut_off = mkdir(Ok(Outcome::Done), 0, 1);
        cut_off[0].returned = false;
        let cut_off = [cut_off];
        assert!(is_explained(&cut_off, true) && is_explained(&cut_off, false));
    }
}
