//! What threads do at the same time, in each other's way.

use crate::operation::{
    Access, AllocateMode, Creation, Node, Object, OpenHow, Operation, RenameMode, Slot, XattrMode,
};
use crate::path::TreePath;
use crate::pattern::Pattern;
use crate::rng::Rng;

/// What the threads have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Names in one directory and one below it.
    Names,
    /// The content of one file.
    Content,
    /// A volume with hardly any space left.
    Full,
    /// Names, while the volume is closed, by two at once.
    Closing,
    /// Names in a directory whose leaves are nearly full.
    Tree,
}

/// Operations for some threads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is about.
    pub theme: Theme,
    /// What makes the volume, before it is closed.
    pub(super) before: Vec<Operation>,
    /// What the threads have open when they start.
    pub(super) opening: Vec<Operation>,
    /// What each thread does.
    pub(super) threads: Vec<Vec<Operation>>,
}

/// Threads, and operations of each.
const THREADS: u8 = 3;
const OPERATIONS: usize = 3;

/// Records after which a lane of the journal is to be emptied, about.
const FILLERS_MAX: u64 = 97;

/// Bytes that are taken before the threads start, where space is to be scarce. What is left is less than they want.
const FILLING: u64 = 620 << 10;

/// Inodes that fill the first chunk, with the others there are.
const CHUNK_REST: u8 = 11;

/// Names in the directory that has a node above its leaves, and bytes of each: one leaf holds about 16.
const TREE_NAMES: u8 = 28;
const TREE_NAME_SIZE: usize = 240;

/// The file that each thread has open: its own slots, so that one model can stand for all.
fn slot(thread: u8) -> Slot {
    Slot(thread)
}

fn open(thread: u8, path: &str, append: bool) -> Operation {
    let how = OpenHow { append, ..OpenHow::existing(Access::ReadWrite) };
    Operation::Open { slot: slot(thread), path: path.into(), how }
}

fn create(thread: u8, path: &str) -> Operation {
    let how = OpenHow { creation: Creation::Exclusive(0o644), ..OpenHow::existing(Access::ReadWrite) };
    Operation::Open { slot: slot(thread), path: path.into(), how }
}

fn mknod(path: TreePath) -> Operation {
    Operation::Mknod { path, mode: 0o600, node: Node::File }
}

fn write(thread: u8, offset: u64, size: u64) -> Operation {
    // Content tells who wrote it where.
    let seed = (1 + u32::from(thread)) << 24 | (offset as u32) << 4 | (size as u32 & 0xf);
    Operation::Write { slot: slot(thread), offset, data: Pattern { seed, size: size as u32 } }
}

/// A name that takes much room in the large directory.
fn long(stem: &str) -> String {
    format!("d/{stem:x<TREE_NAME_SIZE$}")
}

/// The file of a thread's own.
fn own(thread: u8) -> String {
    format!("own{thread}")
}

impl Plan {
    /// Operations that follow from `seed`.
    pub fn random(theme: Theme, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let threads = (0..THREADS).map(|thread| {
            (0..OPERATIONS).map(|number| Self::operation(theme, thread, number, &mut rng)).collect()
        });
        let threads = threads.collect();
        Self {
            theme,
            before: Self::before(theme, &mut rng),
            opening: Self::opening(theme, &mut rng),
            threads,
        }
    }

    fn before(theme: Theme, rng: &mut Rng) -> Vec<Operation> {
        let mkdir = |path: &str| Operation::Mkdir { path: path.into(), mode: 0o755 };
        let mut before = vec![mkdir("d")];
        match theme {
            Theme::Names | Theme::Closing => {
                before.extend([create(0, "p"), create(0, "d/p"), write(0, 0, 100)]);
                if rng.one_in(2) {
                    before.extend([mkdir("q"), mkdir("d/q")]);
                }
                // What the threads make then lies in a chunk of inodes that comes and goes.
                let nodes = (0..CHUNK_REST).map(|number| format!("n{number}"));
                before.extend(nodes.map(|name| mknod(name.as_str().into())));
            }
            Theme::Tree => {
                before.extend([create(0, "p"), create(0, &long("p"))]);
                before
                    .extend((0..TREE_NAMES).map(|number| mknod(long(&format!("n{number}")).as_str().into())));
            }
            Theme::Content => before.extend([create(0, "f"), write(0, 0, 9000)]),
            Theme::Full => {
                before.extend([create(0, "filling"), write(0, 0, FILLING)]);
                before.extend((0..THREADS).map(|thread| create(0, &own(thread))));
            }
        }
        before.push(Operation::Close { slot: slot(0) });
        before
    }

    fn opening(theme: Theme, rng: &mut Rng) -> Vec<Operation> {
        let path = |thread| match theme {
            Theme::Names | Theme::Closing | Theme::Tree => "p".to_owned(),
            Theme::Content => "f".to_owned(),
            Theme::Full => own(thread),
        };
        let appends = theme == Theme::Content && rng.one_in(3);
        let fillers =
            if rng.one_in(2) { rng.below(FILLERS_MAX) } else { FILLERS_MAX - 1 - rng.below(8) } as u32;
        let opened = (0..THREADS).map(|thread| open(thread, &path(thread), appends && thread == 0));
        // The journal is more or less full when they start.
        let filler =
            |number| Operation::Chmod { object: Object::Path(TreePath::ROOT), mode: 0o700 | (number & 7) };
        opened.chain((0..fillers).map(filler)).collect()
    }

    fn operation(theme: Theme, thread: u8, number: usize, rng: &mut Rng) -> Operation {
        match theme {
            Theme::Names | Theme::Closing => names(theme, thread, rng),
            Theme::Tree => tree(thread, rng),
            Theme::Content => content(thread, rng),
            Theme::Full => full(thread, number, rng),
        }
    }
}

fn path(rng: &mut Rng) -> TreePath {
    (*rng.pick(&["p", "q", "d/p", "d/q"])).into()
}

/// Only what is one step of the engine: a name that is looked up first may lead elsewhere by the time it is used.
fn names(theme: Theme, thread: u8, rng: &mut Rng) -> Operation {
    use RenameMode::{Exchange, Replace, Whiteout};
    let (path, other) = (path(rng), path(rng));
    match rng.below(20) {
        0 | 15 => mknod(path),
        // Whoever is refused a file has lost the one that was open there.
        16 if theme == Theme::Names => {
            Operation::Tmpfile { slot: slot(thread), directory: "d".into(), mode: 0o600 }
        }
        1 => Operation::Mkdir { path, mode: 0o700 },
        2 => Operation::Symlink { path, target: "somewhere".into() },
        3 => Operation::Link { source: Object::Open(slot(thread)), path },
        4 | 5 => Operation::Unlink { path },
        6 => Operation::Rmdir { path },
        7 => {
            let value = Pattern { seed: 5, size: 200 };
            let (object, name) = (Object::Open(slot(thread)), "trusted.a".into());
            Operation::SetXattr { object, name, value, mode: XattrMode::Either }
        }
        8 => Operation::Chmod { object: Object::Open(slot(thread)), mode: 0o640 },
        9 => Operation::Stat { object: Object::Open(slot(thread)) },
        10 => Operation::Readdir { path: "d".into() },
        11 => Operation::GetXattr { object: Object::Open(slot(thread)), name: "trusted.a".into() },
        12 => Operation::ListXattr { object: Object::Open(slot(thread)) },
        13 => Operation::Readlink { path },
        14 => Operation::Syncfs,
        _ => {
            let mode = *rng.pick(&[Replace, Replace, Exchange, Whiteout]);
            Operation::Rename { from: path, to: other, mode }
        }
    }
}

fn tree(thread: u8, rng: &mut Rng) -> Operation {
    let stems: [&str; 7] = ["p", "q", "r", "s", "n1", "n2", "n17"];
    let path = |rng: &mut Rng| TreePath::from(long(stems[rng.below(7) as usize]).as_str());
    let (path, other) = (path(rng), path(rng));
    match rng.below(10) {
        0..=3 => mknod(path),
        4 => Operation::Link { source: Object::Open(slot(thread)), path },
        5 | 6 => Operation::Unlink { path },
        7 => Operation::Rename { from: path, to: other, mode: RenameMode::Replace },
        _ => Operation::Readdir { path: "d".into() },
    }
}

fn content(thread: u8, rng: &mut Rng) -> Operation {
    let slot = slot(thread);
    let offset = *rng.pick(&[0, 8, 4000, 4096, 8000, 9000, 12_288, 20_000]);
    let size = *rng.pick(&[8, 100, 4096, 5000]);
    match rng.below(8) {
        0 | 1 => Operation::Read { slot, offset: 0, size: 30_000 },
        2 | 3 => Operation::Truncate { object: Object::Open(slot), size: offset },
        4 => Operation::Fallocate { slot, mode: AllocateMode::PunchHole, offset, size },
        5 => Operation::Fallocate { slot, mode: AllocateMode::Extend, offset, size },
        _ => write(thread, offset, size),
    }
}

fn full(thread: u8, number: usize, rng: &mut Rng) -> Operation {
    match rng.below(8) {
        6 | 7 => Operation::Syncfs,
        0 => Operation::Mkdir { path: format!("d{thread}{number}").as_str().into(), mode: 0o755 },
        1 => Operation::Truncate { object: Object::Open(slot(thread)), size: 0 },
        2 if thread == 0 => Operation::Unlink { path: "filling".into() },
        _ => write(thread, number as u64 * 70_000, 20_000 + rng.below(3) * 20_000),
    }
}
