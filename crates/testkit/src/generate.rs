//! Random operations, the same for the same seed.
//!
//! The generator runs a model of its own along, so that most operations name something that exists and offsets lie
//! near the end of a file; a part of them goes wrong on purpose. What an operation does on the target has no
//! influence, so a sequence is known before it is run.

use crate::model::Model;
use crate::operation::{
    Access, AllocateMode, Creation, Kind, Node, Object, OpenHow, Operation, RenameMode, SetTime, Slot,
    Timestamp, Whence, XattrMode, xflag,
};
use crate::path::{NAME_MAX, TreePath};
use crate::pattern::Pattern;
use crate::profile::Profile;
use crate::rng::Rng;
use crate::target::Target;

const BLOCK: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;
/// Offsets that are not chosen near anything are below this.
const NEAR: u64 = 200 << 10;

const S_ISVTX: u32 = 0o1000;
const S_ISGID: u32 = 0o2000;

/// An endless iterator of operations.
#[derive(Clone, Debug)]
pub struct Generator {
    rng: Rng,
    model: Model,
    profile: Profile,
}

/// Makes an operation of one sort.
type Maker = fn(&mut Generator) -> Operation;

/// How often each sort of operation is made, in relation to the others.
const WEIGHTS: [(u64, Maker); 29] = [
    (12, Generator::open),
    (2, Generator::tmpfile),
    (2, Generator::close),
    (7, Generator::mknod),
    (6, Generator::mkdir),
    (2, Generator::symlink),
    (4, Generator::link),
    (5, Generator::unlink),
    (3, Generator::rmdir),
    (8, Generator::rename),
    (6, Generator::read),
    (16, Generator::write),
    (7, Generator::truncate),
    (8, Generator::fallocate),
    (5, Generator::seek),
    (5, Generator::copy_range),
    (8, Generator::set_xattr),
    (2, Generator::get_xattr),
    (1, Generator::list_xattr),
    (2, Generator::remove_xattr),
    (2, Generator::chmod),
    (2, Generator::chown),
    (2, Generator::utimens),
    (1, Generator::readlink),
    (2, Generator::stat),
    (1, Generator::readdir),
    (1, Generator::get_xflags),
    (4, Generator::set_xflags),
    (1, Generator::sync_or_statfs),
];

impl Iterator for Generator {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let total: u64 = WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.below(total);
        let maker = WEIGHTS.iter().find_map(|(weight, maker)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here.then_some(maker)
        })?;
        let operation = maker(self);
        self.model.apply(&operation).ok();
        Some(operation)
    }
}

impl Generator {
    /// Operations that follow from `seed`, within the bounds of `profile`.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self { rng: Rng::new(seed), model: Model::new(), profile }
    }

    // What operations act on.

    fn kind_of(&self, path: &TreePath) -> Option<Kind> {
        self.model.status(&Object::Path(path.clone())).map(|status| status.kind)
    }

    fn name(&mut self) -> String {
        match self.rng.below(40) {
            0 => "x".repeat(NAME_MAX),
            1 => "x".repeat(NAME_MAX + 1),
            2 => "two words, \u{fc}ber".to_owned(),
            _ => self.rng.pick(&["a", "b", "c", "d", "e", "f"]).to_string(),
        }
    }

    /// A path that exists, of the kind wanted if there is one.
    fn existing(&mut self, wanted: Option<Kind>) -> TreePath {
        let mut paths = self.model.paths();
        if let Some(wanted) = wanted {
            let fits = |path: &&TreePath| self.kind_of(path) == Some(wanted);
            let fitting: Vec<_> = paths.iter().filter(fits).cloned().collect();
            if !fitting.is_empty() {
                paths = fitting;
            }
        }
        self.rng.pick(&paths).clone()
    }

    /// A path for something new; now and then it exists, or cannot exist.
    fn place(&mut self) -> TreePath {
        let directory =
            if self.rng.one_in(20) { self.existing(None) } else { self.existing(Some(Kind::Directory)) };
        let name = self.name();
        directory.join(&name)
    }

    /// A path of something, of the kind wanted for the most part.
    fn path(&mut self, wanted: Option<Kind>) -> TreePath {
        match self.rng.below(12) {
            0 => self.place(),
            1 => self.existing(None),
            _ => self.existing(wanted),
        }
    }

    fn slot(&mut self) -> Slot {
        let open: Vec<_> = self.model.open_slots().collect();
        if open.is_empty() || self.rng.one_in(12) {
            Slot(self.rng.below(u64::from(Slot::COUNT)) as u8)
        } else {
            *self.rng.pick(&open)
        }
    }

    fn object(&mut self, wanted: Option<Kind>) -> Object {
        if self.rng.one_in(3) { Object::Open(self.slot()) } else { Object::Path(self.path(wanted)) }
    }

    fn size_of(&self, object: &Object) -> u64 {
        self.model.status(object).map_or(0, |status| status.size)
    }

    /// An offset that is interesting for a file of `size` bytes.
    fn offset(&mut self, size: u64) -> u64 {
        let nudge = self.rng.below(3);
        let around = |edge: u64| (edge + nudge).saturating_sub(1);
        match self.rng.below(24) {
            0 if !self.profile.far.is_empty() => *self.rng.pick(self.profile.far),
            1 => around(HUGE_PAGE * (1 + self.rng.below(3))),
            2..=3 => 0,
            4..=8 => around(size.min(u64::MAX - 2)),
            9..=10 => around(size.min(1 << 62).next_multiple_of(BLOCK)),
            11..=15 => around(BLOCK * self.rng.below(NEAR / BLOCK)),
            16..=19 => self.rng.below(size.clamp(1, NEAR)),
            _ => self.rng.below(NEAR),
        }
    }

    /// A number of bytes to transfer.
    fn size(&mut self) -> u64 {
        match self.rng.below(20) {
            0 => 0,
            1..=3 => 1 + self.rng.below(16),
            4..=8 => BLOCK * (1 + self.rng.below(4)) + self.rng.below(3) - 1,
            9 => self.rng.below(NEAR),
            _ => self.rng.below(4 * BLOCK),
        }
    }

    fn pattern(&mut self, size: u64) -> Pattern {
        let seed = if self.rng.one_in(10) { 0 } else { self.rng.next_u64() as u32 };
        Pattern { seed, size: size as u32 }
    }

    fn mode(&mut self) -> u32 {
        let usual = [0o644, 0o755, 0o600, 0o2775, 0o1755];
        let mode = if self.rng.one_in(4) { self.rng.below(0o10_000) as u32 } else { *self.rng.pick(&usual) };
        // In sticky directories that others may write to, sysctls decide what can be opened.
        if mode & S_ISVTX == 0 { mode } else { mode & !0o022 }
    }

    // The operations.

    fn open(&mut self) -> Operation {
        let slot = Slot(self.rng.below(u64::from(Slot::COUNT)) as u8);
        let access = *self.rng.pick(&[Access::ReadWrite, Access::ReadWrite, Access::Read, Access::Write]);
        let mode = self.mode();
        let creation = match self.rng.below(5) {
            0 => Creation::IfMissing(mode),
            1 => Creation::Exclusive(mode),
            _ => Creation::Never,
        };
        let path = match creation {
            Creation::Never if self.rng.one_in(10) => self.path(Some(Kind::Directory)),
            Creation::Never => self.path(Some(Kind::File)),
            _ => self.place(),
        };
        let is_directory = self.kind_of(&path) == Some(Kind::Directory);
        let access = if is_directory && !self.rng.one_in(4) { Access::Read } else { access };
        let how = OpenHow { access, creation, append: self.rng.one_in(4), truncate: self.rng.one_in(8) };
        Operation::Open { slot, path, how }
    }

    fn tmpfile(&mut self) -> Operation {
        if !self.profile.tmpfile {
            return self.open();
        }
        let slot = self.slot();
        Operation::Tmpfile { slot, directory: self.path(Some(Kind::Directory)), mode: self.mode() }
    }

    fn close(&mut self) -> Operation {
        Operation::Close { slot: self.slot() }
    }

    fn mknod(&mut self) -> Operation {
        let (major, minor) = (240 + self.rng.below(15) as u32, self.rng.below(1 << 18) as u32);
        let node = match self.rng.below(10) {
            0 => Node::Fifo,
            1 => Node::Socket,
            2 => Node::CharDevice { major, minor },
            _ => Node::File,
        };
        Operation::Mknod { path: self.place(), mode: self.mode(), node }
    }

    fn mkdir(&mut self) -> Operation {
        Operation::Mkdir { path: self.place(), mode: self.mode() }
    }

    fn symlink(&mut self) -> Operation {
        let longest = self.profile.symlink_max;
        let sizes = [0, 1, 5, 90, 95, 96, 97, 500, 1023, 4071, 4072, longest];
        let size = (*self.rng.pick(&sizes)).min(longest);
        Operation::Symlink { path: self.place(), target: "t".repeat(size) }
    }

    fn link(&mut self) -> Operation {
        Operation::Link { source: self.object(Some(Kind::File)), path: self.place() }
    }

    fn unlink(&mut self) -> Operation {
        Operation::Unlink { path: self.path(Some(Kind::File)) }
    }

    fn rmdir(&mut self) -> Operation {
        // What was found last is deepest, and so most likely empty.
        let deepest = |path: &TreePath| self.kind_of(path) == Some(Kind::Directory);
        let deepest = self.model.paths().into_iter().rfind(deepest);
        let path = if self.rng.one_in(2) { deepest } else { None };
        Operation::Rmdir { path: path.unwrap_or_else(|| self.path(Some(Kind::Directory))) }
    }

    /// Whether the directory that a path is in has the set-group-id bit.
    fn gives_group(&self, path: &TreePath) -> bool {
        let parent = path.split().map(|(parent, _)| Object::Path(parent));
        parent.and_then(|parent| self.model.status(&parent)).is_some_and(|status| status.mode & S_ISGID != 0)
    }

    fn rename(&mut self) -> Operation {
        let wanted = if self.rng.one_in(3) { Some(Kind::Directory) } else { None };
        let mode = match self.rng.below(12) {
            0 => RenameMode::NoReplace,
            1..=3 => RenameMode::Exchange,
            4 => RenameMode::Whiteout,
            5 => RenameMode::NoReplaceWhiteout,
            _ => RenameMode::Replace,
        };
        let replaces = mode == RenameMode::Exchange || self.rng.one_in(3);
        let from = self.path(wanted);
        let to = if replaces { self.path(wanted) } else { self.place() };
        // From which set-group-id directory a whiteout takes its group, file systems do not agree.
        let disputed = mode.leaves_whiteout() && (self.gives_group(&from) || self.gives_group(&to));
        let mode = if disputed { RenameMode::Replace } else { mode };
        Operation::Rename { from, to, mode }
    }

    fn slot_and_offset(&mut self) -> (Slot, u64) {
        // Empty files are many, and little can be seen of them.
        let candidates = [(); 3].map(|()| self.slot());
        let largest = candidates.into_iter().max_by_key(|slot| self.size_of(&Object::Open(*slot)));
        let slot = largest.unwrap_or(candidates[0]);
        let size = self.size_of(&Object::Open(slot));
        (slot, self.offset(size))
    }

    fn read(&mut self) -> Operation {
        let (slot, offset) = self.slot_and_offset();
        Operation::Read { slot, offset, size: self.size() as u32 }
    }

    fn write(&mut self) -> Operation {
        let (slot, offset) = self.slot_and_offset();
        let size = self.size();
        Operation::Write { slot, offset, data: self.pattern(size) }
    }

    fn truncate(&mut self) -> Operation {
        let object = self.object(Some(Kind::File));
        let size = self.size_of(&object);
        Operation::Truncate { object, size: self.offset(size) }
    }

    fn fallocate(&mut self) -> Operation {
        use AllocateMode::{Extend, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize};
        let mode = *self.rng.pick(&[Extend, KeepSize, PunchHole, PunchHole, ZeroRange, ZeroRangeKeepSize]);
        let unable = !self.profile.zero_range && matches!(mode, ZeroRange | ZeroRangeKeepSize);
        let mode = if unable { PunchHole } else { mode };
        let (slot, offset) = self.slot_and_offset();
        let huge = self.profile.is_unlimited();
        let size = match self.rng.below(30) {
            0 if huge && matches!(mode, Extend | KeepSize | PunchHole) => 1 << 50,
            1 if huge && mode == PunchHole => u64::MAX >> 1,
            2 => u64::MAX,
            3 => HUGE_PAGE,
            _ => self.size(),
        };
        Operation::Fallocate { slot, mode, offset, size }
    }

    fn seek(&mut self) -> Operation {
        let (slot, offset) = self.slot_and_offset();
        let whence = if self.rng.one_in(2) { Whence::Data } else { Whence::Hole };
        Operation::Seek { slot, offset, whence }
    }

    fn copy_range(&mut self) -> Operation {
        let (from, from_offset) = self.slot_and_offset();
        let (to, to_offset) = self.slot_and_offset();
        Operation::CopyRange { from, from_offset, to, to_offset, size: self.size() }
    }

    fn xattr_name(&mut self) -> String {
        let longest = format!("user.{}", "n".repeat(250));
        let usual = ["user.a", "user.b", "user.c", "trusted.a", "security.a"];
        let odd = ["user.", "trusted.", "nospace", "unknown.a", "", &longest, &format!("{longest}n")];
        if self.rng.one_in(6) { self.rng.pick(&odd).to_string() } else { self.rng.pick(&usual).to_string() }
    }

    fn set_xattr(&mut self) -> Operation {
        let longest = u64::from(self.profile.xattr_max);
        let size = match self.rng.below(20) {
            0 => longest,
            1 => longest - 1,
            2..=4 => self.rng.below(longest.min(10_000)),
            _ => self.rng.below(100),
        };
        let object = self.object(None);
        let name = self.xattr_name();
        let mode = match self.rng.below(6) {
            0 => XattrMode::Create,
            1 => XattrMode::Replace,
            _ => XattrMode::Either,
        };
        Operation::SetXattr { object, name, value: self.pattern(size), mode }
    }

    /// An object and the name of an attribute, which it has for the most part.
    fn object_and_xattr(&mut self) -> (Object, String) {
        let mut objects: Vec<_> = (0..8).map(|_| self.object(None)).collect();
        objects.sort_by_key(|object| self.model.xattrs(object).len());
        let object = objects.pop().unwrap_or(Object::Path(TreePath::ROOT));
        let names = self.model.xattrs(&object);
        let name = if names.is_empty() || self.rng.one_in(8) {
            self.xattr_name()
        } else {
            self.rng.pick(&names).clone()
        };
        (object, name)
    }

    fn get_xattr(&mut self) -> Operation {
        let (object, name) = self.object_and_xattr();
        Operation::GetXattr { object, name }
    }

    fn list_xattr(&mut self) -> Operation {
        Operation::ListXattr { object: self.object(None) }
    }

    fn remove_xattr(&mut self) -> Operation {
        let (object, name) = self.object_and_xattr();
        Operation::RemoveXattr { object, name }
    }

    fn chmod(&mut self) -> Operation {
        Operation::Chmod { object: self.object(None), mode: self.mode() }
    }

    fn chown(&mut self) -> Operation {
        let object = self.object(None);
        let mut id = || [None, Some(0), Some(1000), Some(70_000)][self.rng.below(4) as usize];
        Operation::Chown { object, uid: id(), gid: id() }
    }

    fn utimens(&mut self) -> Operation {
        let object = self.object(None);
        let mut time = || match self.rng.below(4) {
            0 => SetTime::Omit,
            1 => SetTime::Now,
            _ => SetTime::To(Timestamp {
                seconds: self.rng.below(3 << 30).cast_signed() - (1 << 30),
                nanoseconds: self.rng.below(1_000_000_000) as u32,
            }),
        };
        Operation::Utimens { object, atime: time(), mtime: time() }
    }

    fn readlink(&mut self) -> Operation {
        Operation::Readlink { path: self.path(Some(Kind::Symlink)) }
    }

    fn stat(&mut self) -> Operation {
        Operation::Stat { object: self.object(None) }
    }

    fn readdir(&mut self) -> Operation {
        Operation::Readdir { path: self.path(Some(Kind::Directory)) }
    }

    fn get_xflags(&mut self) -> Operation {
        Operation::GetXflags { object: self.object(None) }
    }

    fn set_xflags(&mut self) -> Operation {
        let object = self.object(None);
        let forbidding = xflag::IMMUTABLE | xflag::APPEND;
        let wanted = match self.rng.below(6) {
            // Nothing at all could be done below an immutable root.
            0 if object != Object::Path(TreePath::ROOT) => *self.rng.pick(&[xflag::IMMUTABLE, xflag::APPEND]),
            1 => xflag::NOATIME | xflag::NODUMP,
            2..=3 => xflag::DAX,
            _ => 0,
        };
        let also = if self.rng.one_in(8) { self.rng.next_u64() as u32 & !forbidding } else { 0 };
        Operation::SetXflags { object, xflags: (wanted | also) & self.profile.xflags }
    }

    fn sync_or_statfs(&mut self) -> Operation {
        match self.rng.below(8) {
            0 => Operation::Syncfs,
            1..=3 => Operation::Fsync { slot: self.slot() },
            _ => Operation::Statfs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_seed_always_gives_the_same_operations() {
        let operations = |seed| Generator::new(seed, Profile::LODEFS).take(300).collect::<Vec<_>>();
        assert_eq!(operations(5), operations(5));
        assert_ne!(operations(5), operations(6));
    }

    /// A generator whose operations mostly fail, or never do, would test little.
    #[test]
    fn every_sort_of_operation_succeeds_often_and_fails_sometimes() {
        let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for seed in 0..400 {
            let mut model = Model::new();
            for operation in Generator::new(seed, Profile::LODEFS).take(100) {
                let sort = format!("{operation:?}").split_whitespace().next().unwrap_or_default().to_owned();
                let failed = model.apply(&operation).is_err();
                counts.entry(sort).or_default()[usize::from(failed)] += 1;
            }
        }
        assert_eq!(counts.len(), 31);
        for (sort, [succeeded, failed]) in counts {
            assert!(succeeded * 4 > failed, "{sort}: {succeeded} succeed, {failed} fail");
            assert!(failed > 0 || ["Syncfs", "Statfs"].contains(&sort.as_str()), "{sort} never fails");
        }
    }
}
