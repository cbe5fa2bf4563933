//! Leases: what is granted to a program that maps a file, and how it is taken back. Here is what the tests are made of.

mod appends;
mod cached;
mod data;
mod grants;
mod recalls;
mod switches;
mod tails;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use lodefs_core::{
    DaxPolicy, Flags, FormatOptions, Fs, Lease, LeaseOptions, Lessee, NewInode, NewKind, Node, OpenOptions,
    Part, Recall, SetAttr, Touch, Touched, What,
};
use lodefs_pmem::{Access, Domain, Medium, Reserve};
use rustix::io::Errno;

const BLOCK: u64 = 4096;
const SIZE: u64 = 8 << 20;

/// A volume in a file, through which a program reaches the medium.
struct Volume {
    fs: Arc<Fs>,
    medium: File,
    dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        Self::with(DaxPolicy::Always)
    }

    fn with(dax: DaxPolicy) -> Self {
        Self::of_size(SIZE, dax)
    }

    fn of_size(size: u64, dax: DaxPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vol");
        lodefs_pmem::create_file(&path, size, Reserve::Full).unwrap();
        let options =
            lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::CpuCache) };
        let open = || Medium::open(&path, &options).unwrap();
        Fs::format(&open(), &FormatOptions::default()).unwrap();
        let options = OpenOptions { dax, ..OpenOptions::default() };
        let fs = Fs::open(open(), &options).unwrap();
        let medium = File::options().read(true).write(true).open(&path).unwrap();
        Self { fs, medium, dir }
    }

    /// One that looks at flags, with a direct file of so many blocks of hole.
    fn with_direct_file(blocks: u64) -> (Self, Node) {
        let volume = Self::with(DaxPolicy::Inode);
        let file = volume.hole("f", blocks);
        volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
        (volume, file)
    }

    fn file(&self, name: &str) -> Node {
        let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
        self.fs.create(&self.fs.root().unwrap(), name.as_bytes(), &new).unwrap()
    }

    /// A file of so many blocks of hole.
    fn hole(&self, name: &str, blocks: u64) -> Node {
        let file = self.file(name);
        self.resize(&file, blocks * BLOCK);
        file
    }

    fn resize(&self, file: &Node, size: u64) {
        self.fs.set_attr(file, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    }

    fn free(&self) -> u64 {
        self.fs.space().blocks_free
    }

    fn block(&self, file: &Node, number: u64) -> Vec<u8> {
        let mut bytes = vec![0xee; BLOCK as usize];
        assert_eq!(self.fs.read(file, number * BLOCK, &mut bytes).unwrap(), BLOCK as usize);
        bytes
    }

    /// What a program finds that has mapped this part.
    fn mapped(&self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        self.medium.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

/// Programs, which answer recalls as they like.
#[derive(Default)]
struct Program {
    waiting: Mutex<Vec<Recall>>,
    keeps: bool,
    epochs: Mutex<Vec<(u64, u64, u64)>>,
    arrived: Option<mpsc::Sender<()>>,
}

/// Tells that a program was asked for what it has.
struct Asked(mpsc::Receiver<()>);

impl Asked {
    /// Waits for it; in vain if nobody asks within a minute.
    fn wait(&self) {
        self.0.recv_timeout(Duration::from_mins(1)).expect("the program is asked");
    }
}

impl Program {
    /// One that answers only when the test lets it; and who tells that it was asked.
    fn that_keeps() -> (Arc<Self>, Asked) {
        let (arrived, asked) = mpsc::channel();
        (Arc::new(Self { keeps: true, arrived: Some(arrived), ..Self::default() }), Asked(asked))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Recall>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recalls(&self) -> Vec<(u64, u64, u64)> {
        std::mem::take(&mut self.epochs.lock().unwrap())
    }
}

impl Lessee for Program {
    fn recall(&self, recall: Recall) {
        self.epochs.lock().unwrap().push((recall.epoch, recall.offset / BLOCK, recall.end / BLOCK));
        if self.keeps {
            self.waiting().push(recall);
        }
        if let Some(arrived) = &self.arrived {
            arrived.send(()).unwrap();
        }
    }
}

const WRITABLE: LeaseOptions = LeaseOptions { writable: true, sync: false, pid: 7 };

fn lease(file: &Node, program: &Arc<Program>) -> Lease {
    file.fs().lease(file, Arc::clone(program) as Arc<dyn Lessee>, WRITABLE).unwrap()
}

fn touch_of(block: u64, write: bool) -> Touch {
    Touch { offset: block * BLOCK, write, from: 0, to: 1 << 30, window: BLOCK }
}

fn try_touch(lease: &Lease, touch: &Touch) -> Result<(u64, Vec<Part>), Errno> {
    let mut answers = Vec::new();
    lease.touch(touch, |touched| answers.push(touched)).map_err(|error| error.errno())?;
    assert_eq!(answers.len(), 1, "a touch is answered once");
    Ok(match answers.pop() {
        Some(Touched::Granted(grant)) => (grant.epoch, grant.parts.to_vec()),
        Some(Touched::BeyondEnd { epoch }) => (epoch, Vec::new()),
        other => panic!("not granted: {other:?}"),
    })
}

fn touch(lease: &Lease, block: u64, write: bool) -> (u64, Vec<Part>) {
    try_touch(lease, &touch_of(block, write)).unwrap()
}

/// Where on the medium the one block is that was granted.
fn at(parts: &[Part]) -> u64 {
    match parts {
        [Part { what: What::Medium(at), .. }] => *at,
        other => panic!("not one part of the medium: {other:?}"),
    }
}
