//! How the work of an operation grows with what there is. Work is counted, not timed: bytes of the medium that are read and
//! stored, accesses to it, and bytes of memory that are allocated.
//!
//! docs/TESTING.md says which operations may do work that is linear in something, and why.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use lodefs_core::{
    DataAnswer, DataLease, DaxPolicy, DirEntry, Fallocate, FormatOptions, Fs, Lessee, NewInode, NewKind,
    NewNames, Node, OpenOptions, Recall, RenameMode, SetAttr, XattrMode,
};
use lodefs_layout::names::NameKey;
use lodefs_pmem::{Domain, Medium, Recording, What};

const BLOCK: u64 = 4096;
const FILE: NewInode<'_> = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
const DIRECTORY: NewInode<'_> = NewInode { kind: NewKind::Directory, ..FILE };

/// What an access to the medium counts beside its bytes.
const ACCESS: u64 = 64;

thread_local! {
    /// Bytes that this thread has allocated.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Counts what is allocated.
struct Counting;

// SAFETY: all requests go to the system's allocator as they are, which keeps its contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size() as u64);
        // SAFETY: by the caller's promise about the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise: the memory is from `alloc`, so from the system's allocator, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A volume whose accesses are logged.
struct World {
    fs: Arc<Fs>,
    log: Recording,
}

impl World {
    fn new() -> Self {
        let (medium, log) = Medium::anonymous(256 << 20, Domain::CpuCache).unwrap().watched();
        // The same each time, so that a leaf that is split is so always or never.
        let names = NewNames::Key(NameKey([1; 16]));
        let options = FormatOptions { uuid: Some([1; 16]), names, ..FormatOptions::default() };
        Fs::format(&medium, &options).unwrap();
        let options = OpenOptions { dax: DaxPolicy::Always, ..OpenOptions::default() };
        let fs = Fs::open(medium, &options).unwrap();
        drop(log.take());
        Self { fs, log }
    }

    fn root(&self) -> Node {
        self.fs.root().unwrap()
    }

    /// What is logged before the operation is of no use.
    fn forget(&self) {
        drop(self.log.take());
    }

    /// The work of an operation.
    fn work(&self, operation: Ready) -> u64 {
        self.forget();
        let before = ALLOCATED.get();
        operation();
        let allocated = ALLOCATED.get() - before;
        let of_event = |what: &What| match what {
            What::Store { bytes, .. } => bytes.len() as u64,
            What::Read { size, .. } => *size,
            _ => 0,
        };
        allocated + self.log.take().iter().map(|event| ACCESS + of_event(&event.what)).sum::<u64>()
    }
}

/// An operation that is ready to be done.
type Ready = Box<dyn FnOnce()>;

/// An operation, and what makes it ready on a volume with so much of what may matter.
struct Operation {
    name: &'static str,
    prepare: fn(&World, u64) -> Ready,
    /// How much there is: few and many.
    sizes: [u64; 2],
}

/// How much more work is allowed for many than for few, in percent. It is more than the logarithm of the larger number takes
/// in place of that of the smaller one.
const PERCENT: u64 = 200;

const EXTENTS: [u64; 2] = [1000, 16_000];
const NAMES: [u64; 2] = [1000, 30_000];
const DEPTH: [u64; 2] = [60, 3000];
const FILES: [u64; 2] = [100, 5000];
const ATTRIBUTES: [u64; 2] = [200, 2000];

const OPERATIONS: [Operation; 17] = [
    Operation { name: "read", prepare: read_in_extents, sizes: EXTENTS },
    Operation { name: "fill a hole", prepare: fill_a_hole, sizes: EXTENTS },
    Operation { name: "punch a hole", prepare: punch, sizes: EXTENTS },
    Operation { name: "append", prepare: append, sizes: EXTENTS },
    Operation { name: "hand over the right to append", prepare: append_right, sizes: EXTENTS },
    Operation { name: "truncate a few extents", prepare: truncate_few, sizes: EXTENTS },
    Operation { name: "truncate many extents", prepare: truncate_many, sizes: EXTENTS },
    Operation { name: "create", prepare: create, sizes: NAMES },
    Operation { name: "look up", prepare: lookup, sizes: NAMES },
    Operation { name: "unlink", prepare: unlink, sizes: NAMES },
    Operation { name: "rename", prepare: rename, sizes: NAMES },
    Operation { name: "list one entry", prepare: list_one, sizes: NAMES },
    Operation { name: "move a directory", prepare: move_directory, sizes: DEPTH },
    Operation { name: "move a file", prepare: move_file, sizes: DEPTH },
    Operation { name: "make a directory", prepare: make_directory, sizes: DEPTH },
    Operation { name: "use one more file", prepare: hold, sizes: FILES },
    Operation { name: "create beside many files", prepare: create_beside_many, sizes: FILES },
];

/// A file of so many extents of one block, one to every other block.
fn scattered(world: &World, extents: u64) -> Node {
    let file = world.fs.create(&world.root(), b"scattered", &FILE).unwrap();
    for number in 0..extents {
        world.fs.write(&file, 2 * number * BLOCK, &[1; 100], false).unwrap();
        world.forget();
    }
    file
}

/// A directory of so many names of one file.
fn wide(world: &World, names: u64) -> Node {
    let root = world.root();
    let file = world.fs.create(&root, b"file", &FILE).unwrap();
    let dir = world.fs.create(&root, b"wide", &DIRECTORY).unwrap();
    for number in 0..names {
        world.fs.link(&file, &dir, format!("name {number}").as_bytes()).unwrap();
        world.forget();
    }
    dir
}

/// A path of so many directories; the last of them.
fn deep(world: &World, depth: u64) -> Node {
    let mut dir = world.root();
    for _ in 0..depth {
        dir = world.fs.create(&dir, b"d", &DIRECTORY).unwrap();
        world.forget();
    }
    dir
}

/// A file with so many attributes of about 50 bytes.
fn attributed(world: &World, attributes: u64) -> Node {
    let file = world.fs.create(&world.root(), b"attributed", &FILE).unwrap();
    for number in 0..attributes {
        let name = format!("user.attribute {number:08}");
        world.fs.set_xattr(&file, name.as_bytes(), &[7; 20], XattrMode::Create).unwrap();
        world.forget();
    }
    file
}

fn resize(fs: &Fs, file: &Node, size: u64) {
    fs.set_attr(file, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

fn read_in_extents(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || assert_eq!(fs.read(&file, extents / 2 * 2 * BLOCK, &mut [0; 50]).unwrap(), 50))
}

fn fill_a_hole(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || {
        fs.write(&file, (extents / 2 * 2 + 1) * BLOCK, &[1; 50], false).unwrap();
    })
}

fn punch(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || fs.fallocate(&file, Fallocate::PunchHole, extents / 2 * 2 * BLOCK, BLOCK).unwrap())
}

fn append(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || {
        fs.append(&file, &[1; 50], false).unwrap();
    })
}

/// A program that has nothing mapped.
struct Program;

impl Lessee for Program {
    fn recall(&self, recall: Recall) {
        drop(recall);
    }
}

fn reserve(lease: &DataLease, end: u64) {
    let mut granted = false;
    lease.reserve(0, end, |answer| granted = matches!(answer, DataAnswer::Granted(_))).unwrap();
    assert!(granted);
}

/// The right to append goes from one program to another.
fn append_right(world: &World, extents: u64) -> Ready {
    let file = scattered(world, extents);
    let lease = || file.fs().lease_data(&file, Arc::new(Program), true, 7).unwrap();
    let (first, second) = (lease(), lease());
    let end = (2 * extents + 1) * BLOCK;
    reserve(&first, end);
    Box::new(move || {
        reserve(&second, end);
        std::mem::forget((first, second, file));
    })
}

/// Some extents go at the end.
fn truncate_few(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || resize(&fs, &file, (2 * (extents - 5) + 1) * BLOCK))
}

/// More extents go than a record has room for.
fn truncate_many(world: &World, extents: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), scattered(world, extents));
    Box::new(move || resize(&fs, &file, (2 * (extents - 600) + 1) * BLOCK))
}

fn create(world: &World, names: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), wide(world, names));
    Box::new(move || drop(fs.create(&dir, b"another", &FILE).unwrap()))
}

fn lookup(world: &World, names: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), wide(world, names));
    Box::new(move || drop(fs.lookup(&dir, b"name 17").unwrap()))
}

fn unlink(world: &World, names: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), wide(world, names));
    Box::new(move || fs.unlink(&dir, b"name 17").unwrap())
}

fn rename(world: &World, names: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), wide(world, names));
    Box::new(move || {
        fs.rename(&dir, b"name 17", &dir, b"renamed", RenameMode::Replace, (0, 0)).unwrap();
    })
}

/// The entry behind a position.
fn list_one(world: &World, names: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), wide(world, names));
    let mut positions = Vec::new();
    fs.read_dir(&dir, 0, &mut |entry: &DirEntry| {
        positions.push(entry.next);
        true
    })
    .unwrap();
    let from = positions[positions.len() / 2];
    Box::new(move || {
        let mut taken = 0;
        fs.read_dir(&dir, from, &mut |_| {
            taken += 1;
            taken == 1
        })
        .unwrap();
    })
}

/// A directory with a subdirectory goes to the end of a path. It was moved there before: the first time, every directory on the
/// way is looked at once.
fn move_directory(world: &World, depth: u64) -> Ready {
    let (fs, to, root) = (Arc::clone(&world.fs), deep(world, depth), world.root());
    let moved = fs.create(&root, b"moved", &DIRECTORY).unwrap();
    fs.create(&moved, b"below", &DIRECTORY).unwrap();
    let step = |from: &Node, to: &Node| {
        fs.rename(from, b"moved", to, b"moved", RenameMode::Replace, (0, 0)).unwrap();
    };
    step(&root, &to);
    step(&to, &root);
    let again = Arc::clone(&fs);
    Box::new(move || again.rename(&root, b"moved", &to, b"moved", RenameMode::Replace, (0, 0)).unwrap())
}

fn move_file(world: &World, depth: u64) -> Ready {
    let (fs, to, root) = (Arc::clone(&world.fs), deep(world, depth), world.root());
    fs.create(&root, b"moved", &FILE).unwrap();
    Box::new(move || fs.rename(&root, b"moved", &to, b"moved", RenameMode::Replace, (0, 0)).unwrap())
}

fn make_directory(world: &World, depth: u64) -> Ready {
    let (fs, dir) = (Arc::clone(&world.fs), deep(world, depth));
    Box::new(move || drop(fs.create(&dir, b"another", &DIRECTORY).unwrap()))
}

/// So many files in use.
fn used(world: &World, files: u64) -> Vec<Node> {
    let root = world.root();
    let create = |number| world.fs.create(&root, format!("{number}").as_bytes(), &FILE).unwrap();
    (0..files).map(create).inspect(|_| world.forget()).collect()
}

/// One more file is opened and closed beside many that are in use.
fn hold(world: &World, files: u64) -> Ready {
    let (fs, nodes) = (Arc::clone(&world.fs), used(world, files));
    let root = world.root();
    drop(fs.create(&root, b"closed", &FILE).unwrap());
    Box::new(move || {
        drop(fs.lookup(&root, b"closed").unwrap());
        std::mem::forget(nodes);
    })
}

fn create_beside_many(world: &World, files: u64) -> Ready {
    let (fs, nodes) = (Arc::clone(&world.fs), used(world, files));
    let dir = fs.create(&world.root(), b"dir", &DIRECTORY).unwrap();
    Box::new(move || {
        drop(fs.create(&dir, b"file", &FILE).unwrap());
        std::mem::forget(nodes);
    })
}

fn set_attribute(world: &World, attributes: u64) -> Ready {
    let (fs, file) = (Arc::clone(&world.fs), attributed(world, attributes));
    Box::new(move || fs.set_xattr(&file, b"user.another", &[1; 20], XattrMode::Create).unwrap())
}

fn work(prepare: fn(&World, u64) -> Ready, size: u64) -> u64 {
    let world = World::new();
    let ready = prepare(&world, size);
    world.work(ready)
}

#[test]
fn no_operation_does_much_more_work_as_things_grow() {
    let mut too_much = Vec::new();
    for Operation { name, prepare, sizes } in OPERATIONS {
        let [few, many] = sizes.map(|size| work(prepare, size));
        println!("{name}: {few} for {}, {many} for {}", sizes[0], sizes[1]);
        if many * 100 > few * PERCENT {
            too_much.push(format!("{name}: {few} for {}, {many} for {}", sizes[0], sizes[1]));
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}

/// All attributes of a file are one blob, which is written anew. Its bytes are read, moved, stored; nothing is done for each
/// attribute.
#[test]
fn an_attribute_costs_no_more_than_the_bytes_of_all() {
    let [few, many] = ATTRIBUTES.map(|size| work(set_attribute, size));
    let bytes = (ATTRIBUTES[1] - ATTRIBUTES[0]) * (8 + 23 + 20);
    println!("{few}, {many}: {} for {bytes} bytes", many - few);
    // They are read, into memory; with the new one, into memory that is twice as large; put behind a head, in memory; stored;
    // and copied to the log.
    assert!(many - few < 8 * bytes, "{} for {bytes} bytes", many - few);
}
