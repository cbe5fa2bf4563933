//! Programs that hold leases, and threads in their way: whatever the schedule, what was stored or written last is loaded and read,
//! nobody reaches a block that is another file's, and nobody waits for ever.
//!
//! Two programs map one file, a third one maps another, and two more read and write the first by themselves. They touch, load and store; sometimes one does not answer a recall before
//! somebody gives up on it, and goes on to store meanwhile. Other threads write, read, cut, punch, allocate, unlink, switch the
//! file between direct and buffered, and open it to see which it is. The properties are those of `model/`.

mod content;
mod data;
mod program;

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use lodefs_core::{
    DataLease, DaxPolicy, Fallocate, Flags, FormatOptions, Fs, HolderKind, LeaseOptions, Lessee, NewInode,
    NewKind, Node, SetAttr, Switch, fsck,
};
use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::Domain;
use lodefs_sync::{Arc, point};
use rustix::io::Errno;

use self::content::{Act, Content, Done, explain};
use self::data::DataProgram;
use self::program::{Access, Program, World};
use super::{SIZE, options, told};
use crate::memory_file::MemoryFile;
use crate::rng::Rng;

/// How programs and the server behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As they should.
    Right,
    /// What was granted before a recall is mapped after it.
    LateGrant,
    /// A program that does not answer is taken for one that has answered, so that blocks which it reaches are given away.
    EarlyReuse,
    /// Zeroes that are mapped in place of a hole stay when it gets a block.
    ZeroesStay,
    /// The kind of a mapping is looked up at each fault, and a switch takes nothing back.
    KindAtFault,
    /// A program that reads and writes by itself gives that back while it is still at it.
    AnswersAtOnce,
}

/// Something that a thread did.
#[derive(Clone, Debug)]
pub struct Deed(Done);

/// A thread's work, to be done in whatever way the caller has threads.
pub type Share = Box<dyn FnOnce() -> Vec<Deed> + Send>;

/// The files that programs 0, 1 and 2 map; and the place of one that only opens a file.
const MAPPED: [usize; 4] = [0, 0, 1, 0];
const PROGRAMS: usize = 3;
const FILES: usize = 2;
const OPENER: usize = 3;

/// Accesses of a program, operations of a thread.
const ACCESSES: u64 = 4;
const OPERATIONS: u64 = 3;

/// Blocks that anybody touches.
const BLOCKS: u64 = 5;
/// More than a file ever has.
const BLOCKS_MAX: u64 = 8;
/// Blocks that are free when the threads start: on most volumes hardly any, so that what is freed is used again at once.
const ROOM: [u64; 4] = [1, 3, 7, 1 << 20];

/// A volume on which programs and threads are about to start.
pub struct Meeting {
    file: MemoryFile,
    fs: Arc<Fs>,
    nodes: Vec<Node>,
    contents: Vec<Content>,
    world: Arc<World>,
    seed: u64,
    clock: Arc<AtomicU64>,
}

/// A value that tells which file it was stored to, and that is stored only once.
fn value(file: usize, thread: usize, number: u64) -> u64 {
    (file as u64 + 1) << 32 | (thread as u64 + 1) << 16 | (number + 1)
}

fn file_of(value: u64) -> usize {
    (value >> 32) as usize - 1
}

/// A block that holds a value all over.
fn block_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK_SIZE as usize / 8)
}

impl Meeting {
    /// Makes the volume.
    ///
    /// # Errors
    /// Of the engine.
    pub fn new(seed: u64, variant: Variant) -> Result<Self, String> {
        let domain = [Domain::MemoryController, Domain::CpuCache, Domain::Volatile][seed as usize % 3];
        let file = MemoryFile::new(SIZE).map_err(told)?;
        Fs::format(&file.open(domain).map_err(told)?, &FormatOptions::default()).map_err(told)?;
        let medium = file.open(domain).map_err(told)?;
        let shared = File::from(medium.share(true).map_err(told)?);
        let options = lodefs_core::OpenOptions { dax: DaxPolicy::Inode, ..options() };
        let fs = Fs::open(medium, &options).map_err(told)?;
        let (mut nodes, mut contents) = (Vec::new(), Vec::new());
        for number in 0..FILES {
            let (node, content) = make_file(&fs, number, BLOCKS).map_err(told)?;
            nodes.push(node);
            contents.push(content);
        }
        let size = fs.space().blocks_available.saturating_sub(ROOM[seed as usize % 4]) * BLOCK_SIZE;
        if size > 0 {
            let filling = create(&fs, "filling").map_err(told)?;
            fs.fallocate(&filling, Fallocate::Allocate { keep_size: false }, 0, size).map_err(told)?;
        }
        let world = Arc::new(World::new(shared, &MAPPED, variant));
        Ok(Self { file, fs, nodes, contents, world, seed, clock: Arc::default() })
    }

    /// What each thread is to do.
    pub fn begin(&self) -> Vec<Share> {
        let rng = |number: u64| Rng::new(self.seed << 8 | number);
        let programs: Vec<Arc<Program>> =
            (0..PROGRAMS).map(|number| Arc::new(Program::new(number, MAPPED[number], &self.world))).collect();
        let mut all: Vec<Share> = Vec::new();
        for (number, program) in programs.iter().enumerate() {
            let actor = self.actor(MAPPED[number], number, rng(number as u64));
            let work = Arc::clone(program);
            all.push(Box::new(move || actor.map_and_access(&work)));
        }
        for number in 0..3 {
            let actor = self.actor([0, 0, 1][number], PROGRAMS + number, rng(10 + number as u64));
            all.push(Box::new(move || actor.operate()));
        }
        for number in 0..2 {
            let actor = self.actor(0, PROGRAMS + 3 + number, rng(40 + number as u64));
            let program = DataProgram::new(self.world.medium(), self.world.variant);
            all.push(Box::new(move || actor.read_and_write(&program)));
        }
        let (fs, node, world) = (Arc::clone(&self.fs), self.nodes[0].clone(), Arc::clone(&self.world));
        let rng = rng(30);
        all.push(Box::new(move || switch_and_open(&fs, &node, &world, rng)));
        // Whoever is the last one of these tells the pumps.
        let left = Arc::new(AtomicU64::new(all.len() as u64));
        let mut all: Vec<Share> = all
            .into_iter()
            .map(|work| {
                let (left, programs) = (Arc::clone(&left), programs.clone());
                let work = move || {
                    let deeds = work();
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        for program in &programs {
                            program.end();
                        }
                    }
                    deeds
                };
                Box::new(work) as Share
            })
            .collect();
        for (number, program) in programs.into_iter().enumerate() {
            let rng = Rng::new(self.seed << 8 | (20 + number as u64));
            all.push(Box::new(move || {
                program.pump(rng);
                Vec::new()
            }));
        }
        all
    }

    fn actor(&self, file: usize, thread: usize, rng: Rng) -> Actor {
        let (fs, node) = (Arc::clone(&self.fs), self.nodes[file].clone());
        let (clock, variant) = (Arc::clone(&self.clock), self.world.variant);
        Actor { fs, node, file, thread, rng, clock, variant, deeds: Vec::new() }
    }

    /// Judges what the threads did, and the volume.
    ///
    /// # Errors
    /// What cannot be explained, or is not right.
    pub fn judge(self, mut threads: Vec<Vec<Deed>>) -> Result<(), String> {
        for file in 0..FILES {
            let mut last = self.actor(file, 0, Rng::new(0));
            (0..BLOCKS_MAX).for_each(|block| last.read(block));
            threads.push(last.deeds);
        }
        for (file, content) in self.contents.iter().enumerate() {
            let of_file = |thread: &Vec<Deed>| -> Vec<Done> {
                thread.iter().map(|deed| deed.0).filter(|done| done.file == file).collect()
            };
            let threads: Vec<Vec<Done>> = threads.iter().map(of_file).collect();
            explain(content, &threads).map_err(|fault| format!("file {file}: {fault}"))?;
        }
        let Self { file, fs, nodes, world, .. } = self;
        drop((nodes, world));
        fs.close().map_err(told)?;
        drop(fs);
        let medium = file.open_read_only(Domain::Volatile).map_err(told)?;
        let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).map_err(told)?;
        match report.findings.first() {
            None => Ok(()),
            Some(finding) => Err(format!("fsck finds {finding:?}")),
        }
    }
}

fn create(fs: &Arc<Fs>, name: &str) -> lodefs_core::Result<Node> {
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    fs.create(&fs.root()?, name.as_bytes(), &new)
}

/// A direct file of some blocks, the first two of which are there.
fn make_file(fs: &Arc<Fs>, number: usize, blocks: u64) -> lodefs_core::Result<(Node, Content)> {
    let node = create(fs, if number == 0 { "f" } else { "g" })?;
    fs.set_flags(&node, Flags::DAX, None)?;
    fs.set_attr(&node, &SetAttr { size: Some(blocks * BLOCK_SIZE), ..SetAttr::default() })?;
    let mut content = vec![0; blocks as usize];
    for block in 0..2 {
        content[block as usize] = value(number, 0x100, block);
        fs.write(&node, block * BLOCK_SIZE, &block_of(content[block as usize]), false)?;
    }
    Ok((node, content))
}

/// Sets the flag, in each of the ways there are, and looks how the file is reached then.
fn switch_and_open(fs: &Arc<Fs>, node: &Node, world: &World, mut rng: Rng) -> Vec<Deed> {
    // Where something else is done wrong, that alone is to be found.
    let may_switch = matches!(world.variant, Variant::Right | Variant::KindAtFault);
    for _ in 0..if may_switch { OPERATIONS } else { 0 } {
        let on = rng.one_in(2);
        let mut patience = 10;
        let mut waits = || {
            point();
            patience -= 1;
            patience > 0
        };
        let switched = match rng.below(4) {
            0 => fs.set_dax(node, on, Switch::Pending, None),
            1 => fs.set_dax(node, on, Switch::Now, None),
            _ => fs.revoke_dax(node, on, None, &mut waits),
        };
        let errno = switched.map_err(|error| error.errno());
        assert!(matches!(errno, Ok(false) | Err(Errno::BUSY)), "{errno:?}");
        let hold = fs.hold(node, HolderKind::OpenFile, 1).expect("everybody may open it");
        world.open(OPENER, Some(Arc::new(hold)));
        (0..5).for_each(|_| point());
        world.open(OPENER, None);
    }
    Vec::new()
}

/// A thread, and what it has done.
struct Actor {
    fs: Arc<Fs>,
    node: Node,
    file: usize,
    thread: usize,
    rng: Rng,
    clock: Arc<AtomicU64>,
    variant: Variant,
    deeds: Vec<Deed>,
}

impl Actor {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&mut self, began: u64, act: Act, happened: bool) {
        let ended = self.tick();
        self.deeds.push(Deed(Done { file: self.file, act, happened, began, ended }));
    }

    /// What a program does.
    fn map_and_access(mut self, program: &Arc<Program>) -> Vec<Deed> {
        let options = LeaseOptions { writable: true, sync: false, pid: 1 };
        let lessee = Arc::clone(program) as Arc<dyn Lessee>;
        let lease = self.fs.lease(&self.node, lessee, options).expect("the medium can be attached");
        let mut done = Vec::new();
        for number in 0..ACCESSES {
            let (began, block) = (self.tick(), self.rng.below(BLOCKS));
            let store = self.rng.one_in(2).then(|| value(self.file, self.thread, number));
            let window = *self.rng.pick(&[1, 1, 4]);
            if let Access::Done(act, happened) = program.access(&lease, block, store, (window, &mut self.rng))
            {
                done.push((began, act, happened, self.tick()));
            }
        }
        program.unmap();
        drop(lease);
        let file = self.file;
        let deed = |(began, act, happened, ended)| Deed(Done { file, act, happened, began, ended });
        self.deeds.extend(done.into_iter().map(deed));
        self.deeds
    }

    /// What a program does that reads and writes by itself, and by the mount what it cannot.
    fn read_and_write(mut self, program: &Arc<DataProgram>) -> Vec<Deed> {
        let lessee = Arc::clone(program) as Arc<dyn Lessee>;
        let lease = self.fs.lease_data(&self.node, lessee, true, 1).expect("the medium can be attached");
        for number in 0..ACCESSES {
            let (began, block) = (self.tick(), self.rng.below(BLOCKS));
            if self.rng.one_in(2) {
                match program.read(&lease, block) {
                    Some(act) => self.note(began, act, true),
                    None => self.read(block),
                }
            } else {
                let value = value(self.file, self.thread, number);
                // As above: where something else is done wrong, that alone is to be found.
                if self.variant == Variant::Right && self.rng.one_in(3) {
                    self.append(program, &lease, value);
                    continue;
                }
                match program.write(&lease, block, value) {
                    Some(act) => self.note(began, act, true),
                    None => self.write(block, value),
                }
            }
        }
        self.deeds
    }

    /// A program appends, where the file ends just now.
    fn append(&mut self, program: &Arc<DataProgram>, lease: &DataLease, value: u64) {
        let began = self.tick();
        let block = self.fs.attr(&self.node).expect("it is there").size / BLOCK_SIZE;
        if block >= BLOCKS {
            return;
        }
        match program.append(lease, block, value) {
            Some(act) => self.note(began, act, true),
            None => self.write(block, value),
        }
    }

    /// What somebody does who uses the mount.
    fn operate(mut self) -> Vec<Deed> {
        for number in 0..OPERATIONS {
            let (block, blocks) = (self.rng.below(BLOCKS), self.rng.below(BLOCKS + 1));
            match self.rng.below(8) {
                _ if self.variant == Variant::KindAtFault => self.read(block),
                // What it takes is that blocks of one file become the other's, just then.
                _ if self.variant == Variant::AnswersAtOnce && self.file == 0 => self.punch(0, BLOCKS),
                _ if self.variant == Variant::AnswersAtOnce => {
                    self.write(block, value(self.file, self.thread, number));
                }
                0 | 1 => self.read(block),
                2 | 3 => self.write(block, value(self.file, self.thread, number)),
                4 => self.punch(block, (block + 1).max(blocks)),
                5 => self.cut(blocks),
                6 => self.allocate(block),
                _ => self.unlink(),
            }
        }
        self.deeds
    }

    fn read(&mut self, block: u64) {
        let began = self.tick();
        let mut bytes = [0; 8];
        let count = self.fs.read(&self.node, block * BLOCK_SIZE, &mut bytes).expect("it can be read");
        let value = (count == bytes.len()).then(|| u64::from_le_bytes(bytes));
        self.note(began, Act::Read { block, value }, true);
    }

    fn write(&mut self, block: u64, value: u64) {
        let began = self.tick();
        let written = self.fs.write(&self.node, block * BLOCK_SIZE, &block_of(value), false);
        match written.map_err(|error| error.errno()) {
            Ok(count) => {
                assert_eq!(count as u64, BLOCK_SIZE);
                self.note(began, Act::Write { block, value }, true);
            }
            Err(errno) => assert_eq!(errno, Errno::NOSPC),
        }
    }

    fn punch(&mut self, from: u64, to: u64) {
        let (began, size) = (self.tick(), (to - from) * BLOCK_SIZE);
        let punched = self.fs.fallocate(&self.node, Fallocate::PunchHole, from * BLOCK_SIZE, size);
        assert!(punched.is_ok(), "{punched:?}");
        self.note(began, Act::Punch { from, to }, true);
    }

    fn cut(&mut self, blocks: u64) {
        let began = self.tick();
        let size = SetAttr { size: Some(blocks * BLOCK_SIZE), ..SetAttr::default() };
        let cut = self.fs.set_attr(&self.node, &size);
        assert!(cut.is_ok(), "{cut:?}");
        self.note(began, Act::Cut { blocks }, true);
    }

    /// Blocks for holes, which changes nothing that can be read.
    fn allocate(&mut self, block: u64) {
        let how = Fallocate::Allocate { keep_size: true };
        let done = self.fs.fallocate(&self.node, how, block * BLOCK_SIZE, 2 * BLOCK_SIZE);
        let errno = done.map_err(|error| error.errno());
        assert!(matches!(errno, Ok(()) | Err(Errno::NOSPC)), "{errno:?}");
    }

    /// The file has no name any more, which its programs do not notice.
    fn unlink(&mut self) {
        let name: &[u8] = if self.file == 0 { b"f" } else { b"g" };
        let done = self.fs.root().and_then(|root| self.fs.unlink(&root, name));
        let errno = done.map_err(|error| error.errno());
        assert!(matches!(errno, Ok(()) | Err(Errno::NOENT)), "{errno:?}");
    }
}
