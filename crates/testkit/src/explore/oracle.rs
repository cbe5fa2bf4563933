//! Whether what a crash left is right.
//!
//! Names, attributes, extended attributes, flags and times must be exactly those of one allowed state. Content must be
//! that state's too, but for what was written since: data is overwritten in place, so any aligned eight bytes may be
//! those of a later state. Nothing else may be there: content that no state has is somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::history::{History, InSteps, State};
use super::stage::POISON;
use super::view::{Pages, Seen, View};
use crate::model::Model;
use crate::model::content::{Content, PAGE};
use crate::operation::{Kind, Status};

/// What is stored whole or not at all.
const WORD: usize = 8;

/// Finds the allowed state that `view` shows.
///
/// # Errors
/// How it differs from the first and the last of them.
pub(crate) fn judge(view: &View, history: &History, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let last = *allowed.end();
    let mut faults = Vec::new();
    for number in allowed.clone().rev() {
        match (Comparison { view, history, number, last }).run() {
            Ok(()) => return Ok(number),
            Err(fault) => faults.push((number, fault)),
        }
    }
    let mut lines: Vec<String> =
        faults.iter().map(|(number, fault)| format!("  not state {number}: {fault}")).collect();
    if lines.len() > 3 {
        lines.drain(2..lines.len() - 1);
    }
    Err(format!("none of the states {allowed:?} is there:\n{}", lines.join("\n")))
}

/// Whether `view` shows exactly what `model` has, all times being those of a clock that stands still at `seconds`.
///
/// # Errors
/// How it differs.
pub(crate) fn shows(view: &View, model: &Model, seconds: i64) -> Result<(), String> {
    let history = History::new(model.clone(), vec![seconds; model.clock() + 1]);
    judge(view, &history, 0..=0).map(|_| ())
}

/// The same, but for the content of files.
///
/// # Errors
/// How it differs.
pub(crate) fn shows_but_content(view: &View, model: &Model, seconds: i64) -> Result<(), String> {
    let history = History::new(model.clone(), vec![seconds; model.clock() + 1]);
    Comparison { view, history: &history, number: 0, last: 0 }.compare_all_but_content()
}

/// A view beside one state.
struct Comparison<'a> {
    view: &'a View,
    history: &'a History,
    number: usize,
    /// The last state of which content may show.
    last: usize,
}

impl Comparison<'_> {
    fn state(&self) -> &State {
        self.history.state(self.number)
    }

    fn run(&self) -> Result<(), String> {
        self.compare_all_but_content()?;
        let steps = self.steps();
        for (path, ino) in &self.state().names {
            let seen = &self.view.entries[path];
            if let Some(pages) = self.view.files.get(&seen.status.ino) {
                let in_steps = steps.is_some_and(|steps| steps.ino == *ino);
                self.compare_content(*ino, pages, seen.status.size, in_steps)
                    .map_err(|fault| format!("{path}: {fault}"))?;
            }
        }
        Ok(())
    }

    /// What may have happened since in steps.
    fn steps(&self) -> Option<InSteps> {
        self.history.steps_after(self.number).filter(|_| self.number < self.last)
    }

    fn compare_all_but_content(&self) -> Result<(), String> {
        let names = &self.state().names;
        if let Some(path) = names.keys().find(|path| !self.view.entries.contains_key(path)) {
            return Err(format!("{path} is missing"));
        }
        if let Some(path) = self.view.entries.keys().find(|path| !names.contains_key(path)) {
            return Err(format!("{path} should not be there"));
        }
        let steps = self.steps();
        let (mut inode_of, mut file_of) = (BTreeMap::new(), BTreeMap::new());
        for ((path, seen), ino) in self.view.entries.iter().zip(names.values()) {
            let same = *inode_of.entry(*ino).or_insert(seen.status.ino) == seen.status.ino
                && *file_of.entry(seen.status.ino).or_insert(*ino) == *ino;
            if !same {
                return Err(format!("{path}: leads to another file"));
            }
            self.compare_inode(*ino, seen, steps).map_err(|fault| format!("{path}: {fault}"))?;
        }
        Ok(())
    }

    fn compare_inode(&self, ino: u64, seen: &Seen, steps: Option<InSteps>) -> Result<(), String> {
        let model = &self.state().model;
        let (Some(expected), Some((xattrs, xflags))) = (model.status_of(ino), model.extras_of(ino)) else {
            return Err("the model has lost it".to_owned());
        };
        let steps = steps.filter(|steps| steps.ino == ino);
        let comparable = |status: &Status| Status {
            ino: 0,
            size: if status.kind == Kind::Directory { 0 } else { status.size },
            mtime: expected.mtime,
            ctime: expected.ctime,
            ..*status
        };
        let mut shown = comparable(&seen.status);
        if steps.is_some_and(|steps| steps.grows && self.is_on_the_way(ino, shown.size)) {
            shown.size = expected.size;
        }
        if shown != comparable(&expected) {
            return Err(format!("attributes are {:?}, not {expected:?}", seen.status));
        }
        let times =
            [("mtime", expected.mtime, seen.status.mtime), ("ctime", expected.ctime, seen.status.ctime)];
        for (name, expected, observed) in times {
            let is_next =
                || self.next_time(ino, name).is_some_and(|next| self.history.is_time(next, observed));
            let is_right = self.history.is_time(expected, observed) || steps.is_some() && is_next();
            if !is_right {
                return Err(format!("{name} is {observed:?}, not {expected:?}"));
            }
        }
        if seen.target.as_deref() != model.target_of(ino) {
            return Err("it has another target".to_owned());
        }
        if seen.xflags.is_some_and(|shown| shown != xflags) {
            return Err(format!("flags are {:?}, not {xflags:#x}", seen.xflags));
        }
        if seen.xattrs != *xattrs {
            let names = |xattrs: &BTreeMap<String, Vec<u8>>| -> Vec<(String, usize)> {
                xattrs.iter().map(|(name, value)| (name.clone(), value.len())).collect()
            };
            let (shown, expected) = (names(&seen.xattrs), names(xattrs));
            return Err(format!("attributes are {shown:?}, not {expected:?}, or have other values"));
        }
        Ok(())
    }

    /// Whether `size` lies between those of a file in this state and in the next.
    fn is_on_the_way(&self, ino: u64, size: u64) -> bool {
        let size_in = |number| self.content(number, ino).map(Content::size);
        match (size_in(self.number), size_in(self.number + 1)) {
            (Some(before), Some(after)) => (before..=after).contains(&size),
            _ => false,
        }
    }

    fn next_time(&self, ino: u64, name: &str) -> Option<crate::operation::Timestamp> {
        let next = self.history.state(self.number + 1).model.status_of(ino)?;
        Some(if name == "mtime" { next.mtime } else { next.ctime })
    }

    fn content(&self, number: usize, ino: u64) -> Option<&Content> {
        self.history.state(number).model.content_of(ino)
    }

    /// Compares the content of a file of `size` bytes. A change in steps may have got to any byte.
    fn compare_content(&self, ino: u64, pages: &Pages, size: u64, in_steps: bool) -> Result<(), String> {
        let versions: Vec<&Content> =
            (self.number..=self.last).filter_map(|number| self.content(number, ino)).collect();
        let Some(first) = versions.first() else { return Err("the model has no content for it".to_owned()) };
        let numbers: BTreeSet<u64> = pages.keys().copied().chain(first.page_numbers()).collect();
        for number in numbers {
            let shown = pages.get(&number).map_or(&ZEROS, AsRef::as_ref);
            if first.size() == size && shown == first.page(number).unwrap_or(&ZEROS) {
                continue;
            }
            compare_page(number, shown, size, &versions, in_steps)?;
        }
        Ok(())
    }
}

const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Checks each word of a page against the versions of the file that it may be of.
fn compare_page(
    number: u64,
    shown: &[u8; PAGE as usize],
    size: u64,
    versions: &[&Content],
    in_steps: bool,
) -> Result<(), String> {
    let start = number * PAGE;
    let used = size.saturating_sub(start).min(PAGE) as usize;
    for at in (0..used).step_by(WORD) {
        let end = (at + WORD).min(used);
        let word = &shown[at..end];
        if !is_of_some_version(word, number, at, versions, in_steps) {
            let expected = versions[0].page(number).unwrap_or(&ZEROS);
            let leaked =
                if is_poison(word) { ", which nobody wrote there: old contents of the medium" } else { "" };
            return Err(format!(
                "byte {}: {word:02x?}{leaked}, not {:02x?}",
                start + at as u64,
                &expected[at..end]
            ));
        }
    }
    Ok(())
}

fn is_of_some_version(word: &[u8], number: u64, at: usize, versions: &[&Content], in_steps: bool) -> bool {
    let start = number * PAGE + at as u64;
    let end = start + word.len() as u64;
    let bytes = |version: &Content| -> Vec<u8> {
        version.page(number).unwrap_or(&ZEROS)[at..at + word.len()].to_vec()
    };
    if versions.iter().any(|version| version.size() >= end && bytes(version) == word) {
        return true;
    }
    if !in_steps && !versions.iter().any(|version| (start + 1..end).contains(&version.size())) {
        return false;
    }
    // Where a version or a step ends within the word, what is behind its end is of another one.
    (0..word.len()).all(|index| {
        let within = |version: &&&Content| version.size() > start + index as u64;
        versions.iter().filter(within).any(|version| bytes(version)[index] == word[index])
    })
}

fn is_poison(word: &[u8]) -> bool {
    word.len() == WORD && *word == POISON
}
