//! What must be there after a crash of which a program's stores are a part.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::{Domain, Event, What};

use super::Stored;
use crate::crash::{self, Call, CrashImage, Snapshot, WORD};
use crate::explore::{Boot, Failure, Looker, View};
use crate::path::TreePath;

/// What was done, to be judged.
pub struct Play {
    pub(super) domain: Domain,
    pub(super) start: Snapshot,
    pub(super) log: Vec<Event>,
    pub(super) first: usize,
    pub(super) granted: usize,
    pub(super) stored: Vec<Stored>,
}

/// Which images are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// All images of a moment if they are not more than this; else a choice of them.
    pub exhaustive_max: usize,
    /// What the choice follows from.
    pub seed: u64,
    /// Only crashes after the first grant are looked at.
    pub granted: bool,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Moments at which the power failed.
    pub moments: usize,
    /// Of those, moments of which all images were made.
    pub exhaustive: usize,
    /// Images.
    pub images: usize,
}

impl std::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        self.moments += other.moments;
        self.exhaustive += other.exhaustive;
        self.images += other.images;
    }
}

impl Play {
    /// The calls that made something durable from where crashes are looked at until the program stored for the first time: those of
    /// faults.
    pub fn calls_of_faults(&self) -> BTreeSet<Call> {
        let before = |event: &&Event| !matches!(event.what, What::Mark(number) if number > 0);
        let events: Vec<Event> = self.log[self.first..].iter().take_while(before).cloned().collect();
        let programs: BTreeSet<Call> =
            events.iter().filter(|event| event.thread == super::PROGRAM).filter_map(Call::of).collect();
        crash::durability_calls(&events).difference(&programs).copied().collect()
    }

    /// Makes the images that a power failure can leave, and looks whether what the program was promised is there. What the call
    /// `without` does is left out.
    ///
    /// # Errors
    /// What is not there, or is there and should not be.
    pub fn judge(&self, scope: Scope, without: Option<Call>) -> Result<Statistics, String> {
        let options = crash::Options {
            exhaustive_max: scope.exhaustive_max,
            stores_between: 1,
            seed: scope.seed,
            from_event: if scope.granted { self.granted } else { self.first },
            drop_at: without,
            ..crash::Options::new(self.domain)
        };
        let mut looker = Looker::new(self.start.bytes().len() as u64, self.domain)?;
        let mut right = HashSet::new();
        let judged = crash::for_each_crash_image(&self.start, &[&self.log], &options, |image| {
            let found = looker.look(image, Boot::FIRST.after(Failure::Power));
            if !right.insert((std::rc::Rc::as_ptr(&found).addr(), image.last_mark)) {
                return ControlFlow::Continue(());
            }
            let view = found.as_ref().as_ref().map_err(Clone::clone);
            match view.and_then(|view| self.judge_view(view, image)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => ControlFlow::Break(format!("{fault}\n  {image:?}")),
            }
        });
        match judged {
            ControlFlow::Break(fault) => Err(fault),
            ControlFlow::Continue(crash::Statistics { moments, images, exhaustive }) => {
                Ok(Statistics { moments, exhaustive, images })
            }
        }
    }

    fn judge_view(&self, view: &View, image: &CrashImage<'_>) -> Result<(), String> {
        let durable = image.last_mark.unwrap_or(0) as usize;
        let words: Vec<Vec<Word>> = self.stored.iter().map(|stored| words(view, stored)).collect();
        let last_seen = words.iter().rposition(|words| words.iter().any(|word| word.is_there));
        // What is before something that is there must be there, and whatever was fenced.
        let needed = durable.max(last_seen.unwrap_or(0));
        for (number, (stored, words)) in self.stored.iter().zip(&words).enumerate() {
            if let Some(lost) = words.iter().find(|word| number < needed && !word.is_there) {
                let why = if number < durable { "was fenced" } else { "came before what is there" };
                return Err(format!("store {number} to {}, which {why}, lost {}", stored.path, lost.offset));
            }
        }
        let paths: BTreeSet<&TreePath> = self.stored.iter().map(|stored| &stored.path).collect();
        paths.into_iter().try_for_each(|path| self.judge_rest(view, path))
    }

    /// What nobody stored is zero.
    fn judge_rest(&self, view: &View, path: &TreePath) -> Result<(), String> {
        let Some(seen) = view.entries.get(path) else { return Ok(()) };
        let mut stored: HashSet<(u64, [u8; WORD as usize])> = HashSet::new();
        for words in self.stored.iter().filter(|stored| stored.path == *path) {
            stored.extend(words_of(words));
        }
        let pages = view.files.get(&seen.status.ino).into_iter().flatten();
        for (number, page) in pages {
            let words = page.chunks_exact(WORD as usize).zip((number * BLOCK_SIZE..).step_by(WORD as usize));
            for (bytes, offset) in words.filter(|(bytes, _)| bytes.iter().any(|byte| *byte != 0)) {
                let word = bytes.try_into().map_err(|_| "a page has whole words")?;
                if !stored.contains(&(offset, word)) {
                    return Err(format!("nobody has stored {bytes:02x?} at {offset} of {path}"));
                }
            }
        }
        Ok(())
    }
}

/// A word that was stored.
struct Word {
    offset: u64,
    is_there: bool,
}

/// Where each word was stored.
fn words_of(stored: &Stored) -> impl Iterator<Item = (u64, [u8; WORD as usize])> {
    let words = stored.bytes.chunks_exact(WORD as usize).zip((stored.offset..).step_by(WORD as usize));
    words.filter_map(|(bytes, offset)| Some((offset, bytes.try_into().ok()?)))
}

fn words(view: &View, stored: &Stored) -> Vec<Word> {
    let ino = view.entries.get(&stored.path).map(|seen| seen.status.ino);
    let pages = ino.and_then(|ino| view.files.get(&ino));
    let is_there = |(offset, bytes): (u64, [u8; WORD as usize])| {
        let page = pages.and_then(|pages| pages.get(&(offset / BLOCK_SIZE)));
        let within = (offset % BLOCK_SIZE) as usize;
        let is_there = page.is_some_and(|page| page[within..within + bytes.len()] == bytes);
        Word { offset, is_there }
    };
    words_of(stored).map(is_there).collect()
}
