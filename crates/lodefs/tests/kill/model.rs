//! What one thread's part of a volume holds.
//!
//! A thread changes what is below its own directory, and names in the common one that start with its number.

use std::collections::BTreeMap;

use lodefs::{Dir, FileType};

/// An extended attribute that files may have.
pub(crate) const XATTR: &str = "user.test";
/// The directory that all threads use.
pub(crate) const COMMON: &str = "common";

/// A file, under one or more names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    File { content: Vec<u8>, mode: u32, xattr: Option<Vec<u8>> },
    Directory,
    Symlink(String),
}

/// Names and what they lead to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Path to number of a thing.
    pub(crate) names: BTreeMap<String, u64>,
    pub(crate) things: BTreeMap<u64, Thing>,
}

impl Model {
    /// What is there now.
    pub(crate) fn read(root: &Dir, thread: u64) -> std::io::Result<Self> {
        let mut model = Self::default();
        let own = root.walk(format!("t{thread}"))?;
        let prefix = format!("{thread}-");
        let is_own = |path: &str| path.split('/').nth(1).is_some_and(|name| name.starts_with(&prefix));
        for (entry, in_common) in own.map(|entry| (entry, false)).chain(root.walk(COMMON)?.map(|e| (e, true)))
        {
            let entry = entry?;
            let path = entry.path().to_str().expect("all names are ASCII").to_owned();
            if in_common && !is_own(&path) {
                continue;
            }
            let thing = read_thing(root, &path, entry.file_type())?;
            model.names.insert(path, entry.ino());
            model.things.insert(entry.ino(), thing);
        }
        Ok(model)
    }

    pub(crate) fn thing(&self, name: &str) -> Option<&Thing> {
        self.things.get(self.names.get(name)?)
    }

    pub(crate) fn content(&mut self, name: &str) -> &mut Vec<u8> {
        match self.names.get(name).and_then(|number| self.things.get_mut(number)) {
            Some(Thing::File { content, .. }) => content,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Names of things of a kind, sorted.
    pub(crate) fn names_of(&self, is_wanted: impl Fn(&Thing) -> bool) -> Vec<String> {
        let wanted = self.names.iter().filter(|(_, number)| is_wanted(&self.things[number]));
        wanted.map(|(name, _)| name.clone()).collect()
    }

    /// Adds a name for something new.
    pub(crate) fn add(&mut self, name: &str, thing: Thing) {
        let number = self.things.keys().next_back().map_or(0, |last| last + 1);
        self.things.insert(number, thing);
        self.names.insert(name.to_owned(), number);
    }

    /// Removes a name, and the thing if it was its last.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(number) = self.names.remove(name)
            && !self.names.values().any(|other| *other == number)
        {
            self.things.remove(&number);
        }
    }

    /// Moves a name, and those below it.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if self.names.get(from) == self.names.get(to) {
            return;
        }
        self.remove(to);
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.names.keys().filter(|name| *name == from || name.starts_with(&below)).cloned().collect();
        for name in moved {
            let number = self.names.remove(&name).expect("just listed");
            self.names.insert(format!("{to}{}", &name[from.len()..]), number);
        }
    }

    /// Says where two differ; `None` if they do not.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.canonical(), other.canonical());
        let names = ours.keys().chain(theirs.keys());
        let differing = names.into_iter().find(|name| ours.get(*name) != theirs.get(*name))?;
        Some(format!("{differing}: {} or {}", describe(ours.get(differing)), describe(theirs.get(differing))))
    }

    /// For each name the thing, and the first name that leads to the same.
    fn canonical(&self) -> BTreeMap<&str, (&Thing, &str)> {
        let first =
            |number| self.names.iter().find(|(_, other)| *other == number).map_or("", |(name, _)| name);
        self.names
            .iter()
            .map(|(name, number)| (name.as_str(), (&self.things[number], first(number))))
            .collect()
    }
}

fn describe(entry: Option<&(&Thing, &str)>) -> String {
    match entry {
        None => "missing".to_owned(),
        Some((Thing::File { content, mode, xattr }, first)) => {
            let sum =
                content.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
            format!("a file of {} bytes ({sum:08x}), {mode:o}, {xattr:?}, as {first}", content.len())
        }
        Some((other, first)) => format!("{other:?} as {first}"),
    }
}

fn read_thing(root: &Dir, path: &str, kind: FileType) -> std::io::Result<Thing> {
    Ok(if kind.is_dir() {
        Thing::Directory
    } else if kind.is_symlink() {
        Thing::Symlink(root.read_link(path)?.to_str().expect("all targets are ASCII").to_owned())
    } else {
        let mode = root.metadata(path)?.mode() & 0o777;
        Thing::File { content: root.read(path)?, mode, xattr: root.xattr(path, XATTR)? }
    })
}
