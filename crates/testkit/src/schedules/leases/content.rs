//! Whether what was loaded and read of one file can be explained by some order of what was stored, written and cut.
//!
//! Everything happens at one moment between its beginning and its end. What a program has stored where it was given up on may have
//! happened to the file or not.

use std::collections::HashSet;

/// Something that was done with one file. Blocks hold one value each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A program stored to what it had mapped.
    Store { block: u64, value: u64 },
    /// A program loaded from there; with `zeroes`, from a page that stands for a hole.
    Load { block: u64, value: u64, zeroes: bool },
    /// A write through the mount.
    Write { block: u64, value: u64 },
    /// A read through the mount, or a touch: nothing, beyond the end.
    Read { block: u64, value: Option<u64> },
    /// Blocks from one to before another became a hole.
    Punch { from: u64, to: u64 },
    /// The file has so many blocks now.
    Cut { blocks: u64 },
}

/// An act, and when it was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) file: usize,
    pub(super) act: Act,
    /// Whether it certainly happened.
    pub(super) happened: bool,
    /// On a clock that all threads share and that never stands still.
    pub(super) began: u64,
    pub(super) ended: u64,
}

/// The values of a file's blocks.
pub(super) type Content = Vec<u64>;

impl Act {
    /// What the content is after this, if it can have happened.
    fn after(self, content: &Content) -> Option<Content> {
        let mut next = content.clone();
        match self {
            Self::Store { block, value } => *next.get_mut(block as usize)? = value,
            Self::Load { block, value, zeroes } => {
                // Zeroes that are mapped stay where the file becomes shorter: there is nothing behind them to be freed.
                let found = content.get(block as usize).copied();
                return (found == Some(value) || (found.is_none() && zeroes)).then_some(next);
            }
            Self::Write { block, value } => {
                next.resize(next.len().max(block as usize + 1), 0);
                next[block as usize] = value;
            }
            Self::Read { block, value } => {
                return (content.get(block as usize).copied() == value).then_some(next);
            }
            Self::Punch { from, to } => {
                next.iter_mut().take(to as usize).skip(from as usize).for_each(|value| *value = 0);
            }
            Self::Cut { blocks } => next.resize(blocks as usize, 0),
        }
        Some(next)
    }
}

/// Finds an order of what threads did with a file.
pub(super) fn explain(content: &Content, threads: &[Vec<Done>]) -> Result<(), String> {
    let mut search = Search { threads, seen: HashSet::new() };
    if search.from(content, &mut vec![0; threads.len()]) {
        return Ok(());
    }
    let threads = threads.iter().filter(|thread| !thread.is_empty()).enumerate();
    let told: Vec<String> = threads
        .flat_map(|(number, done)| done.iter().map(move |done| format!("  {number}: {done:?}")))
        .collect();
    Err(format!("no order explains, from {content:x?}\n{}", told.join("\n")))
}

struct Search<'a> {
    threads: &'a [Vec<Done>],
    /// Positions and contents that lead nowhere.
    seen: HashSet<(Vec<usize>, Content)>,
}

impl Search<'_> {
    /// Tries all orders of what is left, `next` being the position of each thread.
    fn from(&mut self, content: &Content, next: &mut Vec<usize>) -> bool {
        if !self.seen.insert((next.clone(), content.clone())) {
            return false;
        }
        let threads = self.threads;
        let left: Vec<(usize, &Done)> = threads
            .iter()
            .zip(&*next)
            .enumerate()
            .filter_map(|(thread, (done, at))| Some((thread, done.get(*at)?)))
            .collect();
        if left.is_empty() {
            return true;
        }
        // What is left of each thread ends after its next act.
        let first_end = left.iter().filter(|(_, done)| done.happened).map(|(_, done)| done.ended).min();
        for (thread, done) in left {
            let is_too_late = first_end.is_some_and(|end| end < done.began);
            let after = if is_too_late { None } else { done.act.after(content) };
            let without = (!done.happened).then(|| content.clone());
            for content in after.into_iter().chain(without) {
                next[thread] += 1;
                if self.from(&content, next) {
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
    use super::*;

    fn done(act: Act, began: u64, ended: u64) -> Done {
        Done { file: 0, act, happened: true, began, ended }
    }

    const WRITE: Act = Act::Write { block: 1, value: 5 };

    #[test]
    fn what_was_written_is_read() {
        let read = |value| done(Act::Read { block: 1, value }, 2, 3);
        for (value, is_right) in [(Some(5), true), (Some(0), false), (None, false)] {
            let threads = [vec![done(WRITE, 0, 1)], vec![read(value)]];
            assert_eq!(explain(&vec![0], &threads).is_ok(), is_right, "{value:?}");
        }
        let threads = [vec![done(WRITE, 0, 3)], vec![done(Act::Read { block: 1, value: None }, 1, 2)]];
        assert_eq!(explain(&vec![0], &threads), Ok(()), "at the same time, either may come first");
    }

    #[test]
    fn zeroes_are_stale_where_something_was_written() {
        let load = Act::Load { block: 1, value: 0, zeroes: true };
        let cut = Act::Cut { blocks: 1 };
        assert!(explain(&vec![0, 0], &[vec![done(WRITE, 0, 1), done(load, 2, 3)]]).is_err());
        assert!(explain(&vec![0, 0], &[vec![done(cut, 0, 1), done(load, 2, 3)]]).is_ok());
        let punch = Act::Punch { from: 0, to: 2 };
        assert!(explain(&vec![4, 5], &[vec![done(punch, 0, 1), done(load, 2, 3)]]).is_ok());
    }

    #[test]
    fn what_may_have_happened_need_not() {
        let maybe = Done { happened: false, ..done(Act::Store { block: 0, value: 7 }, 0, 1) };
        for value in [0, 7, 8] {
            let read = done(Act::Read { block: 0, value: Some(value) }, 2, 3);
            assert_eq!(explain(&vec![0], &[vec![maybe, read]]).is_ok(), value != 8);
        }
    }
}
