//! Every kind of operation with every combination of arguments that the engine may treat differently, on the furnished
//! volume. Too many for pairs: these are crashed one by one, or sampled.

use super::stage::{LEAF_NAMES, LINKED, NAMELESS, PLAIN, SPARE, SPARSE, UNLINKED, long_name, path_object};
use crate::operation::{
    Access, AllocateMode, Creation, Node, Object, OpenHow, Operation, RenameMode, Slot, XattrMode, xflag,
};
use crate::path::TreePath;
use crate::pattern::Pattern;

/// Files that are open.
const OPEN: [Slot; 5] = [PLAIN, LINKED, SPARSE, UNLINKED, NAMELESS];

/// One of everything that has a name.
const NAMES: [&str; 14] = ["a", "b", "d/b", "d/f", "h", "x", "s", "l", "p", "d", "d/e", "k", "n", "missing"];

/// Offsets and sizes around the borders of words, lines, blocks and files.
const OFFSETS: [u64; 9] = [0, 7, 64, 4000, 4096, 8191, 12_388, 20_480, 100_000];
const SIZES: [u64; 6] = [1, 8, 100, 4096, 5001, 16_384];

/// All of it.
pub fn grid() -> Vec<Operation> {
    [renames(), links(), writes(), sizes(), ranges(), copies(), names(), attributes()].concat()
}

fn renames() -> Vec<Operation> {
    use RenameMode::{Exchange, NoReplace, NoReplaceWhiteout, Replace, Whiteout};
    let mut targets: Vec<TreePath> = NAMES.iter().map(|name| (*name).into()).collect();
    targets.extend(["d/z".into(), "d/e/z".into(), long_name(0), long_name(LEAF_NAMES)]);
    let mut all = Vec::new();
    for mode in [Replace, NoReplace, Exchange, Whiteout, NoReplaceWhiteout] {
        for from in NAMES {
            for to in &targets {
                all.push(Operation::Rename { from: from.into(), to: to.clone(), mode });
            }
        }
    }
    all
}

fn links() -> Vec<Operation> {
    let mut sources: Vec<Object> = NAMES.iter().map(|name| path_object(name)).collect();
    sources.extend(OPEN.map(Object::Open));
    let targets = ["z".into(), "d/z".into(), "a".into(), long_name(LEAF_NAMES)];
    let pairs = sources.iter().flat_map(|source| targets.iter().map(move |path| (source, path)));
    pairs.map(|(source, path)| Operation::Link { source: source.clone(), path: path.clone() }).collect()
}

fn writes() -> Vec<Operation> {
    let mut all = Vec::new();
    for slot in OPEN {
        for offset in OFFSETS {
            for size in SIZES {
                let data =
                    Pattern { seed: 1 + u32::from(slot.0) + (offset ^ size) as u32, size: size as u32 };
                all.push(Operation::Write { slot, offset, data });
            }
        }
    }
    all
}

fn sizes() -> Vec<Operation> {
    let mut objects: Vec<Object> = ["a", "b", "d/f", "h", "x"].map(path_object).into();
    objects.extend(OPEN.map(Object::Open));
    let sizes = [0, 1, 100, 4000, 4095, 4096, 4097, 8192, 12_288, 12_388, 20_480, 30_001, 1 << 40];
    let pairs = objects.iter().flat_map(|object| sizes.map(|size| (object.clone(), size)));
    pairs.map(|(object, size)| Operation::Truncate { object, size }).collect()
}

fn ranges() -> Vec<Operation> {
    use AllocateMode::{Extend, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize};
    let mut all = Vec::new();
    for mode in [Extend, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize] {
        for slot in [PLAIN, SPARSE, UNLINKED] {
            for offset in [0, 7, 4000, 4096, 12_388] {
                for size in [1, 100, 4096, 5001, 20_000] {
                    all.push(Operation::Fallocate { slot, mode, offset, size });
                }
            }
        }
    }
    all
}

fn copies() -> Vec<Operation> {
    let mut all = Vec::new();
    for (from, to) in [(PLAIN, SPARSE), (SPARSE, PLAIN), (PLAIN, UNLINKED), (PLAIN, PLAIN)] {
        for (from_offset, to_offset) in [(0, 12_288), (100, 16_400), (4096, 0), (0, 30_000)] {
            for size in [1, 4096, 9000] {
                all.push(Operation::CopyRange { from, from_offset, to, to_offset, size });
            }
        }
    }
    all
}

fn names() -> Vec<Operation> {
    let mut all = Vec::new();
    for path in NAMES.into_iter().map(TreePath::from).chain((0..LEAF_NAMES).map(long_name)) {
        all.push(Operation::Unlink { path: path.clone() });
        all.push(Operation::Rmdir { path });
    }
    let free: [TreePath; 5] = ["z".into(), "d/z".into(), "d/e/z".into(), "k/z".into(), long_name(LEAF_NAMES)];
    for path in free {
        let nodes = [Node::File, Node::Fifo, Node::Socket, Node::CharDevice { major: 1, minor: 70_000 }];
        all.extend(nodes.map(|node| Operation::Mknod { path: path.clone(), mode: 0o640, node }));
        all.push(Operation::Mkdir { path: path.clone(), mode: 0o755 });
        let targets = ["a", &"t".repeat(100), &"t".repeat(4000)].map(str::to_owned);
        all.extend(targets.map(|target| Operation::Symlink { path: path.clone(), target }));
        let how = OpenHow { creation: Creation::IfMissing(0o600), ..OpenHow::existing(Access::ReadWrite) };
        all.push(Operation::Open { slot: SPARE, path, how });
    }
    let truncating = OpenHow { truncate: true, ..OpenHow::existing(Access::ReadWrite) };
    let files = ["a", "b", "h", "x", "d/f"];
    all.extend(files.map(|path| Operation::Open { slot: SPARE, path: path.into(), how: truncating }));
    let directories = ["", "d", "d/e", "k"];
    all.extend(directories.map(|path| Operation::Tmpfile {
        slot: SPARE,
        directory: path.into(),
        mode: 0o600,
    }));
    all.extend(OPEN.map(|slot| Operation::Close { slot }));
    all.extend(OPEN.map(|slot| Operation::Fsync { slot }));
    all
}

fn attributes() -> Vec<Operation> {
    let mut objects: Vec<Object> = NAMES.iter().map(|name| path_object(name)).collect();
    objects.extend(OPEN.map(Object::Open));
    let mut all = Vec::new();
    for object in objects {
        for (name, size) in [("trusted.a", 0), ("trusted.b", 3000), ("trusted.c", 9000), ("user.large", 10)] {
            let value = Pattern { seed: 78 + size, size };
            for mode in [XattrMode::Either, XattrMode::Create, XattrMode::Replace] {
                all.push(Operation::SetXattr { object: object.clone(), name: name.into(), value, mode });
            }
            all.push(Operation::RemoveXattr { object: object.clone(), name: name.into() });
        }
        all.push(Operation::Chmod { object: object.clone(), mode: 0o4751 });
        all.push(Operation::Chown { object: object.clone(), uid: Some(7), gid: Some(70_000) });
        for xflags in [xflag::DAX, xflag::IMMUTABLE, xflag::APPEND | xflag::NODUMP, 0] {
            all.push(Operation::SetXflags { object: object.clone(), xflags });
        }
    }
    all
}
