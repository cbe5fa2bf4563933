//! The whole state of a file system, taken by walking it, to be compared with another.

use std::collections::BTreeMap;
use std::fmt;

use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::LAST_PAGES;
use crate::operation::{Access, Kind, Object, OpenHow, Operation, Outcome, Slot, Status, Whence};
use crate::path::TreePath;
use crate::target::{Reply, Target};

/// Bytes in the pages by which content is compared.
const PAGE: u64 = 4096;
/// Most bytes that are read at once.
const READ_MAX: u64 = 1 << 20;
/// Most bytes of data that a file may report: more than any test writes, less than takes all day to read.
const DATA_MAX: u64 = 1 << 30;

/// Everything about one file that two file systems must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Kind, permissions, links, owner, group, device and size, without times and inode number.
    pub status: Option<Status>,
    /// The first path, in the order of paths, of the same file.
    pub same_file_as: Option<TreePath>,
    /// Hashes of the pages that are not all zeros, by page number.
    pub pages: BTreeMap<u64, u64>,
    /// Target of a symbolic link.
    pub target: Option<String>,
    /// Extended attributes: sizes and hashes of the values.
    pub xattrs: BTreeMap<String, (usize, u64)>,
    /// Flags, of a file or directory.
    pub xflags: Option<u32>,
}

/// State of a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Everything that has a path.
    pub entries: BTreeMap<TreePath, Entry>,
    /// Everything that is open in the slots below [`Slot::COUNT`], with a name or without.
    pub open: BTreeMap<Slot, Entry>,
}

/// A file system that could not be walked.
#[derive(Debug, thiserror::Error)]
#[error("{operation:?} failed while the tree was read: {reply:?}")]
pub struct WalkError {
    operation: Box<Operation>,
    reply: Box<Reply>,
}

impl WalkError {
    fn new(operation: Operation, reply: Reply) -> Self {
        Self { operation: Box::new(operation), reply: Box::new(reply) }
    }
}

/// Takes the whole state of `target`, using [`Slot::RESERVED`].
///
/// # Errors
/// If something that is there cannot be read.
pub fn snapshot(target: &mut dyn Target) -> Result<Tree, WalkError> {
    let mut walk = Walk { target, tree: Tree::default(), first_path: BTreeMap::new() };
    walk.directory(&TreePath::ROOT)?;
    for slot in (0..Slot::COUNT).map(Slot) {
        walk.slot(slot)?;
    }
    Ok(walk.tree)
}

struct Walk<'a> {
    target: &'a mut dyn Target,
    tree: Tree,
    first_path: BTreeMap<u64, TreePath>,
}

/// Unpacks the one outcome that makes sense, or fails the walk.
macro_rules! ask {
    ($walk:expr, $operation:expr, $outcome:pat $(if $guard:expr)? => $value:expr) => {{
        let operation = $operation;
        match $walk.target.apply(&operation) {
            Ok($outcome) $(if $guard)? => $value,
            reply => return Err(WalkError::new(operation, reply)),
        }
    }};
}

impl Walk<'_> {
    fn directory(&mut self, path: &TreePath) -> Result<(), WalkError> {
        self.path(path)?;
        let entries = ask!(self, Operation::Readdir { path: path.clone() }, Outcome::Entries(all) => all);
        for (name, kind) in entries {
            let child = path.join(&name);
            if kind == Kind::Directory { self.directory(&child) } else { self.path(&child) }?;
        }
        Ok(())
    }

    fn path(&mut self, path: &TreePath) -> Result<(), WalkError> {
        let object = Object::Path(path.clone());
        let status = ask!(self, Operation::Stat { object: object.clone() }, Outcome::Status(it) => it);
        let mut entry = self.attributes(&object, status)?;
        match status.kind {
            Kind::File => {
                let (slot, how) = (Slot::RESERVED, OpenHow::existing(Access::Read));
                ask!(self, Operation::Open { slot, path: path.clone(), how }, Outcome::Done => ());
                entry.pages = self.pages(slot, status.size)?;
                ask!(self, Operation::Close { slot }, Outcome::Done => ());
            }
            Kind::Symlink => {
                let target =
                    ask!(self, Operation::Readlink { path: path.clone() }, Outcome::Target(it) => it);
                entry.target = Some(target);
            }
            _ => {}
        }
        let first = self.first_path.entry(status.ino).or_insert_with(|| path.clone());
        entry.same_file_as = (first != path).then(|| first.clone());
        self.tree.entries.insert(path.clone(), entry);
        Ok(())
    }

    fn slot(&mut self, slot: Slot) -> Result<(), WalkError> {
        let object = Object::Open(slot);
        let status = match self.target.apply(&Operation::Stat { object: object.clone() }) {
            Err(Errno::BADF) => return Ok(()),
            Ok(Outcome::Status(status)) => status,
            reply => return Err(WalkError::new(Operation::Stat { object }, reply)),
        };
        let mut entry = self.attributes(&object, status)?;
        let probe = Operation::Read { slot, offset: 0, size: 0 };
        // A file that is open for writing only shows its attributes.
        if status.kind == Kind::File && self.target.apply(&probe).is_ok() {
            entry.pages = self.pages(slot, status.size)?;
        }
        entry.same_file_as = self.first_path.get(&status.ino).cloned();
        self.tree.open.insert(slot, entry);
        Ok(())
    }

    fn attributes(&mut self, object: &Object, status: Status) -> Result<Entry, WalkError> {
        let object = || object.clone();
        let names = ask!(self, Operation::ListXattr { object: object() }, Outcome::Names(it) => it);
        let mut xattrs = BTreeMap::new();
        for name in names {
            let get = Operation::GetXattr { object: object(), name: name.clone() };
            let value = ask!(self, get, Outcome::Bytes(value) => value);
            xattrs.insert(name, (value.len(), xxh3_64(&value)));
        }
        let xflags = match status.kind {
            Kind::File | Kind::Directory => {
                Some(ask!(self, Operation::GetXflags { object: object() }, Outcome::Xflags(it) => it))
            }
            _ => None,
        };
        let size = if status.kind == Kind::Directory { 0 } else { status.size };
        let (mtime, ctime) = Default::default();
        let status = Some(Status { ino: 0, size, mtime, ctime, ..status });
        Ok(Entry { status, xattrs, xflags, ..Entry::default() })
    }

    /// Hashes of the pages of an open file that are not zero.
    fn pages(&mut self, slot: Slot, size: u64) -> Result<BTreeMap<u64, u64>, WalkError> {
        let mut pages = BTreeMap::new();
        let (mut position, mut read) = (0, 0);
        while position < size && read < DATA_MAX {
            let seek = Operation::Seek { slot, offset: position, whence: Whence::Data };
            position = match self.target.apply(&seek) {
                Ok(Outcome::Position(data)) => data / PAGE * PAGE,
                // At the end of all offsets XFS sometimes overlooks data.
                Err(Errno::NXIO) if size > LAST_PAGES => position.max(LAST_PAGES),
                Err(Errno::NXIO) => break,
                reply => return Err(WalkError::new(seek, reply)),
            };
            let wanted = READ_MAX.min(size - position) as u32;
            let get = Operation::Read { slot, offset: position, size: wanted };
            let bytes =
                ask!(self, get, Outcome::Bytes(bytes) if bytes.len() as u64 == u64::from(wanted) => bytes);
            for (number, page) in (position / PAGE..).zip(bytes.chunks(PAGE as usize)) {
                if page.iter().any(|byte| *byte != 0) {
                    pages.insert(number, xxh3_64(page));
                }
            }
            position += bytes.len() as u64;
            read += bytes.len() as u64;
        }
        Ok(pages)
    }
}

impl Tree {
    /// What is different in `observed`, one line for each difference; empty if they are equal.
    pub fn diff(&self, observed: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        diff_maps("", &self.entries, &observed.entries, &mut lines);
        let named = |map: &BTreeMap<Slot, Entry>| -> BTreeMap<String, Entry> {
            map.iter().map(|(slot, entry)| (format!("slot {}", slot.0), entry.clone())).collect()
        };
        diff_maps("open ", &named(&self.open), &named(&observed.open), &mut lines);
        lines
    }
}

fn diff_maps<K: Ord + fmt::Display>(
    prefix: &str,
    expected: &BTreeMap<K, Entry>,
    observed: &BTreeMap<K, Entry>,
    lines: &mut Vec<String>,
) {
    for (name, entry) in expected {
        match observed.get(name) {
            None => lines.push(format!("{prefix}{name}: missing; expected {:?}", entry.status)),
            Some(found) => entry.diff(found, &format!("{prefix}{name}"), lines),
        }
    }
    for (name, entry) in observed.iter().filter(|(name, _)| !expected.contains_key(name)) {
        lines.push(format!("{prefix}{name}: should not be there: {:?}", entry.status));
    }
}

impl Entry {
    fn diff(&self, observed: &Self, name: &str, lines: &mut Vec<String>) {
        let mut line = |what: &str, expected: &dyn fmt::Debug, found: &dyn fmt::Debug| {
            lines.push(format!("{name}: {what}: expected {expected:?}, found {found:?}"));
        };
        if self.status != observed.status {
            line("attributes", &self.status, &observed.status);
        }
        if self.same_file_as != observed.same_file_as {
            line("same file as", &self.same_file_as, &observed.same_file_as);
        }
        if self.target != observed.target {
            line("target", &self.target, &observed.target);
        }
        if self.xattrs != observed.xattrs {
            line("extended attributes", &self.xattrs, &observed.xattrs);
        }
        if self.xflags != observed.xflags {
            line("flags", &self.xflags, &observed.xflags);
        }
        let numbers = self.pages.keys().chain(observed.pages.keys());
        let mut differing: Vec<u64> =
            numbers.copied().filter(|page| self.pages.get(page) != observed.pages.get(page)).collect();
        differing.sort_unstable();
        differing.dedup();
        if let Some(first) = differing.first() {
            let bytes = |entry: &Self| if entry.pages.contains_key(first) { "data" } else { "zeros" };
            let (expected, found) = (bytes(self), bytes(observed));
            let what = format!("content of {} pages, the first at {:#x}", differing.len(), first * PAGE);
            line(&what, &expected, &found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::operation::{Node, XattrMode, xflag};
    use crate::pattern::Pattern;

    fn model_with(operations: &[Operation]) -> Model {
        let mut model = Model::new();
        for operation in operations {
            model.apply(operation).unwrap_or_else(|errno| panic!("{operation:?}: {errno:?}"));
        }
        model
    }

    fn base() -> Vec<Operation> {
        let how = OpenHow::existing(Access::ReadWrite);
        vec![
            Operation::Mkdir { path: "d".into(), mode: 0o755 },
            Operation::Mknod { path: "d/f".into(), mode: 0o644, node: Node::File },
            Operation::Link { source: Object::Path("d/f".into()), path: "g".into() },
            Operation::Open { slot: Slot(0), path: "g".into(), how },
        ]
    }

    fn diff_after(change: Operation) -> Vec<String> {
        let before = snapshot(&mut model_with(&base())).unwrap();
        let after = snapshot(&mut model_with(&[base(), vec![change]].concat())).unwrap();
        assert_eq!(before.diff(&before), Vec::<String>::new());
        before.diff(&after)
    }

    #[test]
    fn every_part_of_the_state_shows_in_a_difference() {
        let object = || Object::Path("g".into());
        let data = Pattern { seed: 1, size: 10 };
        let far = i64::MAX as u64 - 10;
        let cases = [
            (Operation::Chmod { object: object(), mode: 0o600 }, "attributes"),
            (Operation::Write { slot: Slot(0), offset: far, data }, "content of 1 pages"),
            (Operation::SetXflags { object: object(), xflags: xflag::DAX }, "flags"),
            (
                Operation::SetXattr {
                    object: object(),
                    name: "user.x".into(),
                    value: data,
                    mode: XattrMode::Either,
                },
                "extended attributes",
            ),
            (Operation::Unlink { path: "g".into() }, "missing"),
            (Operation::Symlink { path: "s".into(), target: "t".into() }, "should not be there"),
            (Operation::Close { slot: Slot(0) }, "open slot 0: missing"),
        ];
        for (change, words) in cases {
            let lines = diff_after(change);
            assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:?}");
        }
    }

    #[test]
    fn an_unlinked_open_file_is_part_of_the_state() {
        let mut orphaned = base();
        orphaned.extend(["d/f", "g"].map(|path| Operation::Unlink { path: path.into() }));
        let write = Operation::Write { slot: Slot(0), offset: 0, data: Pattern { seed: 1, size: 1 } };
        let before = snapshot(&mut model_with(&orphaned)).unwrap();
        let after = snapshot(&mut model_with(&[orphaned, vec![write]].concat())).unwrap();
        assert!(before.diff(&after).iter().any(|line| line.starts_with("open slot 0: content")));
    }
}
