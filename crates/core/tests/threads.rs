//! Threads in each other's way: the same directories, the same files, a nearly full volume, reclaiming while others look.
//! Afterwards fsck finds nothing, whether the volume was closed or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lodefs_core::{
    Error, Fallocate, FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, RenameMode, SetAttr,
    XattrMode, fsck,
};
use lodefs_pmem::{Access, Domain, Medium};
use rustix::io::Errno;
use tempfile::TempDir;

const THREADS: u64 = 4;
const OPERATIONS: u64 = 6000;
/// The whole file is written at once with one byte value, so any mixture that a reader sees is a torn write.
const ATOMIC_SIZE: usize = 20_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

struct Volume {
    scratch: TempDir,
    domain: Domain,
}

impl Volume {
    fn new(size: u64, domain: Domain) -> Self {
        let volume = Self { scratch: tempfile::tempdir_in("/dev/shm").unwrap(), domain };
        lodefs_pmem::create_file(&volume.path(), size, lodefs_pmem::Reserve::Full).unwrap();
        Fs::format(&volume.medium(Access::ReadWrite), &FormatOptions::default()).unwrap();
        volume
    }

    fn path(&self) -> std::path::PathBuf {
        self.scratch.path().join("volume")
    }

    fn medium(&self, access: Access) -> Medium {
        let options = lodefs_pmem::OpenOptions { access, force_domain: Some(self.domain) };
        Medium::open(&self.path(), &options).unwrap()
    }

    fn open(&self) -> Arc<Fs> {
        Fs::open(self.medium(Access::ReadWrite), &OpenOptions::default()).unwrap()
    }

    fn check(&self) {
        let report =
            fsck::check(self.medium(Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

fn file(perm: u32) -> NewInode<'static> {
    NewInode { kind: NewKind::File, perm, umask: 0, uid: 0, gid: 0 }
}

const DIRECTORY: NewInode<'static> =
    NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };

/// What may happen to an operation whose names and inodes others change at the same time.
fn tolerate<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Refused(
            Errno::NOENT
            | Errno::EXIST
            | Errno::NOTEMPTY
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::INVAL
            | Errno::STALE
            | Errno::PERM
            | Errno::NODATA
            | Errno::NOSPC,
        )) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// One random operation in the directories `dirs`, which may be renamed and removed by others meanwhile.
fn disturb(fs: &Fs, root: &Node, random: &mut Random) {
    let name = |random: &mut Random| format!("n{}", random.below(12)).into_bytes();
    let dir = |random: &mut Random| {
        let first = tolerate(fs.lookup(root, &name(random)))?;
        if random.below(2) == 0 {
            tolerate(fs.lookup(&first, &name(random))).or(Some(first))
        } else {
            Some(first)
        }
    };
    let dir_of = |random: &mut Random| dir(random).unwrap_or_else(|| root.clone());
    let (parent, other) = (dir_of(random), dir_of(random));
    let (from, to) = (name(random), name(random));
    match random.below(14) {
        0 | 1 => drop(tolerate(fs.create(&parent, &from, &DIRECTORY))),
        2 | 3 => drop(tolerate(fs.create(&parent, &from, &file(0o644)))),
        4 => drop(tolerate(fs.unlink(&parent, &from))),
        5 => drop(tolerate(fs.rmdir(&parent, &from))),
        6 => drop(tolerate(fs.rename(&parent, &from, &other, &to, RenameMode::Replace, (0, 0)))),
        7 => drop(tolerate(fs.rename(&parent, &from, &other, &to, RenameMode::Exchange, (0, 0)))),
        8 => {
            if let Some(node) = tolerate(fs.lookup(&parent, &from)) {
                tolerate(fs.link(&node, &other, &to));
            }
        }
        9 => {
            let mut last = 0;
            tolerate(fs.read_dir(&parent, 0, &mut |entry| {
                assert!(entry.next >= last, "listed out of order");
                last = entry.next;
                true
            }));
        }
        10 => drop(tolerate(
            fs.tmpfile(&parent, &file(0o600)).and_then(|node| fs.write(&node, 0, &[1; 9000], false)),
        )),
        kind => {
            if let Some(node) = tolerate(fs.lookup(&parent, &from)) {
                let size = random.below(60_000);
                match kind {
                    11 => drop(tolerate(fs.write(&node, size, &[7; 5000], false))),
                    12 => drop(tolerate(fs.set_xattr(&node, b"user.x", &[3; 100], XattrMode::Set))),
                    _ => drop(tolerate(fs.fallocate(&node, Fallocate::PunchHole, size, 9000))),
                }
                tolerate(fs.attr(&node));
            }
        }
    }
}

/// Writes the file as a whole, truncates and extends it, and reads what others wrote.
fn tear(fs: &Fs, node: &Node, random: &mut Random) {
    match random.below(4) {
        0 => drop(fs.write(node, 0, &vec![random.below(255) as u8 + 1; ATOMIC_SIZE], false).unwrap()),
        1 => drop(
            fs.set_attr(node, &SetAttr { size: Some(0), by_handle: true, ..SetAttr::default() }).unwrap(),
        ),
        _ => {
            let mut buffer = vec![0; ATOMIC_SIZE];
            let read = fs.read(node, 0, &mut buffer).unwrap();
            assert!(read == 0 || read == ATOMIC_SIZE, "{read} bytes of a write");
            assert!(buffer[..read].iter().all(|byte| *byte == buffer[0]), "two writes are mixed");
        }
    }
}

fn run(fs: &Arc<Fs>, seed: u64) {
    let root = fs.root().unwrap();
    let shared = fs.lookup(&root, b"shared").or_else(|_| fs.create(&root, b"shared", &file(0o644))).unwrap();
    let appended = AtomicU64::new(0);
    let log = fs.create(&root, format!("log{seed}").as_bytes(), &file(0o644)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (root, shared, appended, log) = (&root, &shared, &appended, &log);
            scope.spawn(move || {
                let mut random = Random((seed << 8 | thread) + 1);
                for i in 0..OPERATIONS {
                    disturb(fs, root, &mut random);
                    if i % 8 == 0 {
                        tear(fs, shared, &mut random);
                    }
                    if i % 16 == 0 {
                        let (at, size) = fs.append(log, &[thread as u8; 100], false).unwrap();
                        assert_eq!((at % 100, size), (0, 100));
                        appended.fetch_add(100, Ordering::Relaxed);
                    }
                    if thread == 0 && i % 1000 == 0 {
                        fs.sync().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(fs.attr(&log).unwrap().size, appended.into_inner());
}

#[test]
fn many_threads_leave_a_sound_volume() {
    for domain in [Domain::MemoryController, Domain::Page] {
        let volume = Volume::new(32 << 20, domain);
        let fs = volume.open();
        run(&fs, 1);
        fs.close().unwrap();
        drop(fs);
        volume.check();
        // The journal of a volume that was not closed is replayed by the check.
        let fs = volume.open();
        run(&fs, 2);
        let image = std::fs::read(volume.path()).unwrap();
        drop(fs);
        let crashed = Medium::from_image(&image, domain, Access::ReadOnly).unwrap();
        let report = fsck::check(crashed, &fsck::Options::default(), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        volume.check();
    }
}
