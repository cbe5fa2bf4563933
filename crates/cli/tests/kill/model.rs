//! What the part of one process holds: as it must be, and as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{getxattr, listxattr};

use crate::operation::Operation;

/// The directory in which all have names.
pub(crate) const COMMON: &str = "c";

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// The file with this number; several names may lead to it.
    File(u64),
    Directory,
    Symlink(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
}

/// Names, from the root of the mount on, and files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) names: BTreeMap<String, Thing>,
    pub(crate) files: BTreeMap<u64, Content>,
}

impl Model {
    /// Reads the part of a process: its directory, and its names in the common one.
    pub(crate) fn read(root: &Path, worker: u64) -> io::Result<Self> {
        let mut model = Self::default();
        let mut links = BTreeMap::new();
        model.read_directory(root, &format!("w{worker}"), "", &mut links)?;
        model.read_directory(root, COMMON, &format!("{worker}-"), &mut links)?;
        for (number, count) in links {
            let names = model.names_of(|thing| *thing == Thing::File(number));
            assert_eq!(names.len() as u64, count, "links of {names:?}");
        }
        Ok(model)
    }

    fn read_directory(
        &mut self,
        root: &Path,
        directory: &str,
        prefix: &str,
        links: &mut BTreeMap<u64, u64>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(root.join(directory))? {
            let entry = entry?;
            let own = entry.file_name().into_string().expect("text");
            if !own.starts_with(prefix) {
                continue;
            }
            let (path, name) = (entry.path(), format!("{directory}/{own}"));
            let metadata = fs::symlink_metadata(&path)?;
            let thing = if metadata.is_dir() {
                self.read_directory(root, &name, "", links)?;
                Thing::Directory
            } else if metadata.is_symlink() {
                Thing::Symlink(fs::read_link(&path)?.into_os_string().into_string().expect("text"))
            } else {
                self.files.insert(metadata.ino(), read_content(&path)?);
                links.insert(metadata.ino(), metadata.nlink());
                Thing::File(metadata.ino())
            };
            self.names.insert(name, thing);
        }
        Ok(())
    }

    /// The names of things that are `wanted`.
    pub(crate) fn names_of(&self, wanted: impl Fn(&Thing) -> bool) -> Vec<&String> {
        self.names.iter().filter(|(_, thing)| wanted(thing)).map(|(name, _)| name).collect()
    }

    /// The content of the file that `name` leads to.
    pub(crate) fn content(&self, name: &str) -> &Content {
        let Some(Thing::File(number)) = self.names.get(name) else { panic!("{name} is no file") };
        &self.files[number]
    }

    /// The content of the file that `name` leads to, to be changed.
    pub(crate) fn content_mut(&mut self, name: &str) -> &mut Content {
        let Some(Thing::File(number)) = self.names.get(name) else { panic!("{name} is no file") };
        self.files.get_mut(number).expect("a name leads to a file that exists")
    }

    /// Removes a name, and the file if it was the last.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(Thing::File(number)) = self.names.remove(name)
            && !self.names.values().any(|thing| *thing == Thing::File(number))
        {
            self.files.remove(&number);
        }
    }

    /// The model must be as `before`, or as after the operation that was `under_way`.
    pub(crate) fn judge(&self, before: &Self, under_way: &Operation) -> Result<(), String> {
        let Some(difference) = self.difference(before) else { return Ok(()) };
        let mut after = before.clone();
        under_way.apply(&mut after);
        if let Some(torn) = under_way.may_tear()
            && let (Some(Thing::File(number)), true) = (self.names.get(torn), after.names.contains_key(torn))
        {
            let (found, old) = (&self.files[number].bytes, &before.content(torn).bytes);
            if is_mixture(found, old, &after.content(torn).bytes) {
                after.content_mut(torn).bytes.clone_from(found);
            }
        }
        match self.difference(&after) {
            None => Ok(()),
            Some(other) => Err(format!("{difference}; and if {under_way:?} was done: {other}")),
        }
    }

    /// The first thing that is otherwise in `expected`.
    fn difference(&self, expected: &Self) -> Option<String> {
        let (found, wanted) = (self.shown(), expected.shown());
        let mut names = self.names.keys().chain(expected.names.keys());
        let name = names.find(|name| found.get(name.as_str()) != wanted.get(name.as_str()))?;
        let describe = |shown: Option<&Shown<'_>>| match shown {
            None => "nothing".to_owned(),
            Some((Thing::File(_), first, Some(content))) => {
                let Content { bytes, mode, attributes } = content;
                format!("the file of {first}: {} bytes, {mode:o}, {attributes:?}", bytes.len())
            }
            Some((thing, ..)) => format!("{thing:?}"),
        };
        let bytes =
            |shown: Option<&Shown<'_>>| shown.and_then(|shown| shown.2).map(|content| content.bytes.clone());
        let place = bytes(found.get(name.as_str())).zip(bytes(wanted.get(name.as_str())));
        let place = place.and_then(|(left, right)| left.iter().zip(&right).position(|(a, b)| a != b));
        Some(format!(
            "{name} is {}, not {}, first different byte: {place:?}",
            describe(found.get(name.as_str())),
            describe(wanted.get(name.as_str()))
        ))
    }

    /// What can be seen at each name: files have no numbers, but the first of their names.
    fn shown(&self) -> BTreeMap<&str, Shown<'_>> {
        let mut first = BTreeMap::new();
        let show = |(name, thing): (&'_ String, &'_ Thing)| match thing {
            Thing::File(number) => {
                let first: &mut String = first.entry(*number).or_insert_with(|| name.clone());
                (Thing::File(0), first.clone(), self.files.get(number))
            }
            other => (other.clone(), name.clone(), None),
        };
        self.names.keys().map(String::as_str).zip(self.names.iter().map(show)).collect()
    }
}

/// What is seen at a name: the thing, the first name of the same file, and its content.
type Shown<'m> = (Thing, String, Option<&'m Content>);

/// Whether a write was done for some bytes, and the file grew or shrank part of the way.
fn is_mixture(found: &[u8], old: &[u8], new: &[u8]) -> bool {
    let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
    let (short, long) = (old.len().min(new.len()), old.len().max(new.len()));
    (short..=long).contains(&found.len())
        && found.iter().enumerate().all(|(at, found)| [byte(old, at), byte(new, at)].contains(found))
}

fn read_content(path: &Path) -> io::Result<Content> {
    let mut attributes = BTreeMap::new();
    let mut list = [0; 4096];
    let size = listxattr(path, &mut list)?;
    for name in list[..size].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let name = std::str::from_utf8(name).expect("text");
        let mut value = [0; 4096];
        let size = getxattr(path, name, &mut value)?;
        attributes.insert(name.to_owned(), value[..size].to_vec());
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok(Content { bytes: fs::read(path)?, mode, attributes })
}
