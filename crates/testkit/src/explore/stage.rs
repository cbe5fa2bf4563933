//! The volumes that workloads begin with, and the representative operations on them.
//!
//! A furnished volume has one of everything that operations treat differently. It is furnished before the log begins,
//! so that only the operations under test cost images.

use serde::{Deserialize, Serialize};

use crate::operation::{
    Access, AllocateMode, Creation, Node, Object, OpenHow, Operation, RenameMode, SetTime, Slot, Timestamp,
    XattrMode, xflag,
};
use crate::path::{NAME_MAX, TreePath};
use crate::pattern::Pattern;

/// What every block holds before it is first used, again and again.
pub(super) const POISON: [u8; 8] = *b"stale \xa5\x5a";

/// What a volume holds before the operations of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing.
    Empty,
    /// One of everything.
    Furnished,
}

/// A file of three blocks and a part of a fourth: `a`.
pub(super) const PLAIN: Slot = Slot(0);
/// A file of one block with two names: `b` and `d/b`, opened to append.
pub(super) const LINKED: Slot = Slot(1);
/// A file with a hole between two blocks: `h`.
pub(super) const SPARSE: Slot = Slot(2);
/// A file whose name was removed.
pub(super) const UNLINKED: Slot = Slot(3);
/// A file that never had a name.
pub(super) const NAMELESS: Slot = Slot(4);
/// Free for operations that open something.
pub(super) const SPARE: Slot = Slot(5);

/// Size of `a`, in bytes.
const PLAIN_SIZE: u64 = 3 * 4096 + 100;

impl Stage {
    /// What makes the volume, before it is closed.
    pub(super) fn furnishing(self) -> Vec<Operation> {
        match self {
            Self::Empty => Vec::new(),
            Self::Furnished => furnish(),
        }
    }

    /// What opens the files that the operations use, after the volume is opened again.
    pub(super) fn opening(self) -> Vec<Operation> {
        match self {
            Self::Empty => Vec::new(),
            Self::Furnished => vec![
                open(PLAIN, "a", Access::ReadWrite),
                Operation::Open {
                    slot: LINKED,
                    path: "b".into(),
                    how: OpenHow { append: true, ..OpenHow::existing(Access::ReadWrite) },
                },
                open(SPARSE, "h", Access::ReadWrite),
                open(UNLINKED, "u", Access::ReadWrite),
                Operation::Unlink { path: "u".into() },
                Operation::Tmpfile { slot: NAMELESS, directory: "d".into(), mode: 0o600 },
                write(NAMELESS, 0, 5000),
            ],
        }
    }
}

fn open(slot: Slot, path: &str, access: Access) -> Operation {
    Operation::Open { slot, path: path.into(), how: OpenHow::existing(access) }
}

fn make(slot: Slot, path: &str, creation: Creation) -> Operation {
    let how = OpenHow { creation, ..OpenHow::existing(Access::ReadWrite) };
    Operation::Open { slot, path: path.into(), how }
}

/// Content that tells by itself where it was written.
fn write(slot: Slot, offset: u64, size: u32) -> Operation {
    let seed = 1 + u32::from(slot.0) + (offset as u32 ^ size).rotate_left(8);
    Operation::Write { slot, offset, data: Pattern { seed, size } }
}

pub(super) fn path_object(path: &str) -> Object {
    Object::Path(path.into())
}

fn set_xattr(path: &str, name: &str, size: u32) -> Operation {
    let value = Pattern { seed: 77 + size, size };
    Operation::SetXattr { object: path_object(path), name: name.into(), value, mode: XattrMode::Either }
}

/// The names with which directory `n` is so full that the next one splits its leaf.
pub(super) fn long_name(number: usize) -> TreePath {
    TreePath::new(format!("n/{}", format!("{number:x}").repeat(NAME_MAX - 5)))
}

fn furnish() -> Vec<Operation> {
    let mut operations = vec![
        make(SPARE, "gone", Creation::Exclusive(0o600)),
        write(SPARE, 0, 60_000),
        Operation::Mkdir { path: "d".into(), mode: 0o755 },
        Operation::Mkdir { path: "d/e".into(), mode: 0o755 },
        Operation::Mkdir { path: "k".into(), mode: 0o2755 },
        Operation::Mkdir { path: "n".into(), mode: 0o755 },
        make(SPARE, "d/f", Creation::Exclusive(0o644)),
        write(SPARE, 0, 5000),
        make(SPARE, "a", Creation::Exclusive(0o644)),
        write(SPARE, 0, PLAIN_SIZE as u32),
        make(SPARE, "b", Creation::Exclusive(0o4755)),
        write(SPARE, 0, 4000),
        Operation::Link { source: path_object("b"), path: "d/b".into() },
        make(SPARE, "h", Creation::Exclusive(0o644)),
        write(SPARE, 0, 4096),
        write(SPARE, 4 * 4096, 4096),
        make(SPARE, "x", Creation::Exclusive(0o644)),
        write(SPARE, 0, 9000),
        set_xattr("x", "user.large", 5000),
        set_xattr("d", "user.small", 50),
        make(SPARE, "u", Creation::Exclusive(0o644)),
        write(SPARE, 0, 8000),
        Operation::Symlink { path: "s".into(), target: "a".into() },
        Operation::Symlink { path: "l".into(), target: "t".repeat(1000) },
        Operation::Mknod { path: "p".into(), mode: 0o644, node: Node::Fifo },
        Operation::Close { slot: SPARE },
        Operation::Unlink { path: "gone".into() },
    ];
    let link = |number| Operation::Link { source: path_object("b"), path: long_name(number) };
    operations.extend((0..LEAF_NAMES).map(link));
    operations
}

/// So many long names fit into a leaf.
pub(super) const LEAF_NAMES: usize = 12;

/// Operations that, one by one and in pairs, reach everything that the engine does differently.
pub fn representatives() -> Vec<Operation> {
    [data(), allocation(), making(), removing(), renaming(), attributes()].concat()
}

fn data() -> Vec<Operation> {
    let truncate = |object, size| Operation::Truncate { object, size };
    let copy = |from, from_offset, to, to_offset, size| Operation::CopyRange {
        from,
        from_offset,
        to,
        to_offset,
        size,
    };
    vec![
        write(PLAIN, 51, 100),
        write(PLAIN, 5000, 3),
        write(PLAIN, 4000, 5001),
        write(PLAIN, 4096, 4096),
        write(PLAIN, PLAIN_SIZE, 200),
        write(PLAIN, PLAIN_SIZE - 10, 5000),
        write(PLAIN, PLAIN_SIZE + 7613, 13),
        write(PLAIN, 1 << 40, 8),
        write(LINKED, 0, 3000),
        write(SPARSE, 6000, 3000),
        write(SPARSE, 4096, 3 * 4096),
        write(UNLINKED, 100, 9000),
        write(NAMELESS, 4999, 2),
        truncate(path_object("a"), 0),
        truncate(path_object("a"), 100),
        truncate(path_object("a"), 4096),
        truncate(path_object("a"), 20_001),
        truncate(Object::Open(PLAIN), 6001),
        truncate(Object::Open(SPARSE), 9000),
        truncate(Object::Open(UNLINKED), 10),
        copy(PLAIN, 100, SPARSE, 5000, 9000),
        copy(SPARSE, 0, PLAIN, 2048, 20_480),
        copy(PLAIN, 0, PLAIN, 8192, 4096),
        Operation::Fsync { slot: PLAIN },
        Operation::Syncfs,
    ]
}

fn allocation() -> Vec<Operation> {
    use AllocateMode::{Extend, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize};
    let fallocate = |slot, mode, offset, size| Operation::Fallocate { slot, mode, offset, size };
    vec![
        fallocate(PLAIN, Extend, 10_000, 20_000),
        fallocate(SPARSE, KeepSize, 0, 40_000),
        fallocate(PLAIN, PunchHole, 103, 200),
        fallocate(PLAIN, PunchHole, 4096, 4096),
        fallocate(PLAIN, PunchHole, 1000, 9000),
        fallocate(SPARSE, ZeroRange, 1000, 25_000),
        fallocate(PLAIN, ZeroRangeKeepSize, 12_000, 9000),
    ]
}

fn making() -> Vec<Operation> {
    let mknod = |path: &str, node| Operation::Mknod { path: path.into(), mode: 0o644, node };
    let link = |source, path: TreePath| Operation::Link { source, path };
    let truncating = OpenHow { truncate: true, ..OpenHow::existing(Access::ReadWrite) };
    vec![
        mknod("new", Node::File),
        mknod("d/new", Node::CharDevice { major: 240, minor: 70_000 }),
        mknod("new", Node::Socket),
        Operation::Mkdir { path: "d/m".into(), mode: 0o755 },
        Operation::Mkdir { path: "k/m".into(), mode: 0o755 },
        Operation::Symlink { path: "new".into(), target: "d".into() },
        Operation::Symlink { path: "d/e/new".into(), target: "t".repeat(2000) },
        make(SPARE, "c", Creation::IfMissing(0o640)),
        make(SPARE, "a", Creation::Exclusive(0o640)),
        Operation::Open { slot: SPARE, path: "x".into(), how: truncating },
        Operation::Tmpfile { slot: SPARE, directory: "d/e".into(), mode: 0o600 },
        link(path_object("a"), "d/new".into()),
        link(Object::Open(NAMELESS), "t".into()),
        link(Object::Open(UNLINKED), "t".into()),
        link(path_object("a"), long_name(LEAF_NAMES)),
        link(path_object("x"), "s".into()),
    ]
}

fn removing() -> Vec<Operation> {
    let unlink = |path: TreePath| Operation::Unlink { path };
    let rmdir = |path: &str| Operation::Rmdir { path: path.into() };
    vec![
        unlink("a".into()),
        unlink("x".into()),
        unlink("d/b".into()),
        unlink("b".into()),
        unlink("s".into()),
        unlink("l".into()),
        unlink("p".into()),
        unlink(long_name(3)),
        rmdir("d/e"),
        rmdir("k"),
        rmdir("d"),
        Operation::Close { slot: UNLINKED },
        Operation::Close { slot: NAMELESS },
        Operation::Close { slot: PLAIN },
    ]
}

fn renaming() -> Vec<Operation> {
    use RenameMode::{Exchange, NoReplace, NoReplaceWhiteout, Replace, Whiteout};
    let rename = |from: &str, to: TreePath, mode| Operation::Rename { from: from.into(), to, mode };
    vec![
        rename("a", "z".into(), Replace),
        rename("a", "d/z".into(), Replace),
        rename("a", "x".into(), Replace),
        rename("x", "a".into(), Replace),
        rename("d/f", "b".into(), Replace),
        rename("s", "d/b".into(), Replace),
        rename("b", "d/b".into(), Replace),
        rename("a", long_name(LEAF_NAMES), Replace),
        rename("d/e", "z".into(), Replace),
        rename("d/e", "k".into(), Replace),
        rename("k", "d/e".into(), Replace),
        rename("d", "k/d".into(), Replace),
        rename("a", "d/f".into(), Exchange),
        rename("a", "d/e".into(), Exchange),
        rename("d/e", "k".into(), Exchange),
        rename("a", "z".into(), Whiteout),
        rename("a", "d/f".into(), Whiteout),
        rename("a", "z".into(), NoReplace),
        rename("x", "d/z".into(), NoReplaceWhiteout),
    ]
}

fn attributes() -> Vec<Operation> {
    let chown = |path, uid, gid| Operation::Chown { object: path_object(path), uid, gid };
    let given = SetTime::To(Timestamp { seconds: 1_000_000, nanoseconds: 5 });
    let xflags = |path, xflags| Operation::SetXflags { object: path_object(path), xflags };
    vec![
        set_xattr("a", "user.first", 100),
        set_xattr("x", "user.large", 9000),
        set_xattr("x", "user.second", 20),
        set_xattr("d", "trusted.large", 30_000),
        Operation::RemoveXattr { object: path_object("x"), name: "user.large".into() },
        Operation::RemoveXattr { object: path_object("a"), name: "user.large".into() },
        Operation::Chmod { object: path_object("a"), mode: 0o2600 },
        Operation::Chmod { object: path_object("d"), mode: 0o1700 },
        chown("b", Some(1000), Some(70_000)),
        chown("b", None, None),
        Operation::Utimens { object: path_object("a"), atime: SetTime::Now, mtime: given },
        xflags("d", xflag::DAX),
        xflags("x", xflag::IMMUTABLE),
        xflags("a", xflag::APPEND),
    ]
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::model::Model;
    use crate::target::Target as _;

    #[test]
    fn the_representatives_act_on_what_is_there() {
        let mut model = Model::new();
        for operation in [Stage::Furnished.furnishing(), Stage::Furnished.opening()].concat() {
            assert!(model.apply(&operation).is_ok(), "{operation:?}");
        }
        let failures: Vec<_> =
            representatives().into_iter().filter_map(|it| model.clone().apply(&it).err()).collect();
        let on_purpose = [Errno::EXIST, Errno::NOENT, Errno::EXIST, Errno::NOTEMPTY, Errno::NODATA];
        assert_eq!(failures, on_purpose);
    }
}
