//! Several processes change and read one file, by mappings, by the library and through the mount, while another switches it between direct and
//! buffered; whatever is read is compared, byte for byte, with what was written last.
//!
//! The file is divided into slots of all sizes, at all offsets. A copy of what should be there is in memory that the processes
//! share, and with it a lock for each slot: so what is in a slot is known, and neighbours in the same page are changed at the same
//! time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lodefs_direct::dax::{self, Effect, How};
use lodefs_direct::{MapOptions, Mapping};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The environment variables by which a process is told what to do.
const ROLE: &str = "LODEFS_TEST_ROLE";
const MODEL: &str = "LODEFS_TEST_MODEL";
const SEED: &str = "LODEFS_TEST_SEED";
/// So many operations, of all processes.
pub(crate) const OPERATIONS: &str = "LODEFS_TEST_OPERATIONS";

/// Bytes of the file: some of it small pages' worth, and more than a huge page.
const SIZE: usize = 5 << 20;
const SLOTS: usize = 2048;
/// Operations of the mount between opening the file and closing it.
const OPENED_FOR: u64 = 16;

/// What the processes share.
#[repr(C)]
struct Shared {
    /// Operations that are left.
    left: AtomicU64,
    /// Switches that were made, and that were refused because somebody held the file.
    switches: [AtomicU64; 2],
    locks: [AtomicU32; SLOTS],
    content: [u8; SIZE],
}

/// The shared memory of this process.
struct Model(*mut Shared);

impl Model {
    fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(size_of::<Shared>() as u64).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let size = size_of::<Shared>();
        // SAFETY: the kernel chooses the address; the file is as long.
        let base = unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, &file, 0) };
        Self(base.unwrap().cast())
    }

    fn left(&self) -> &AtomicU64 {
        // SAFETY: mapped for ever, and all zeroes are a valid one; atomics may be shared.
        unsafe { &(*self.0).left }
    }

    fn switches(&self) -> &[AtomicU64; 2] {
        // SAFETY: as in `left`.
        unsafe { &(*self.0).switches }
    }

    fn locks(&self) -> &[AtomicU32; SLOTS] {
        // SAFETY: as in `left`.
        unsafe { &(*self.0).locks }
    }

    /// The bytes of a slot that the caller has locked.
    #[expect(clippy::mut_from_ref, reason = "whoever has the lock is alone")]
    fn content(&self, slot: usize) -> &mut [u8] {
        let (from, to) = (start_of(slot), start_of(slot + 1));
        // SAFETY: nobody else uses these bytes while the caller has the lock.
        unsafe {
            std::slice::from_raw_parts_mut((&raw mut (*self.0).content).cast::<u8>().add(from), to - from)
        }
    }

    /// Locks a slot for this operation.
    fn lock(&self, slot: usize) {
        let start = Instant::now();
        while self.locks()[slot].swap(1, Ordering::Acquire) != 0 {
            std::thread::yield_now();
            assert!(start.elapsed() < Duration::from_mins(1), "slot {slot}: whoever has it does not go on");
        }
    }

    fn unlock(&self, slot: usize) {
        self.locks()[slot].store(0, Ordering::Release);
    }

    /// Takes one of the operations that are left.
    fn take(&self) -> bool {
        self.left().fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }
}

/// Where a slot begins: at any byte, with slots of a few bytes and of more than a page.
fn start_of(slot: usize) -> usize {
    // Squares of the position in a group of 32 slots: 0, 1, 4, ... of 1024 parts.
    let (group, within) = (slot / 32, slot % 32);
    let group_size = SIZE / (SLOTS / 32);
    group * group_size + within * within * group_size / 1024
}

/// Random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// A way to the file.
trait Way {
    fn read(&mut self, at: usize, into: &mut [u8]);
    fn write(&mut self, at: usize, bytes: &[u8]);
    /// Makes a page a hole.
    fn punch(&mut self, at: usize);
}

struct Mapped {
    mapping: Mapping,
    path: PathBuf,
}

impl Way for Mapped {
    fn read(&mut self, at: usize, into: &mut [u8]) {
        self.mapping.read(at, into).unwrap();
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.mapping.write(at, bytes).unwrap();
    }

    fn punch(&mut self, at: usize) {
        Opened::<File>::new(&self.path).punch(at);
    }
}

/// An open file.
trait Handle: AsFd {
    fn of(file: File) -> Self;
    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
}

impl Handle for File {
    fn of(file: File) -> Self {
        file
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.read_at(into, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.write_at(bytes, at)
    }
}

impl Handle for lodefs_direct::File {
    fn of(file: File) -> Self {
        Self::new(file).unwrap()
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.read_at(into, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.write_at(bytes, at)
    }
}

/// The file, which is not kept open for ever: it could not be switched.
struct Opened<H> {
    path: PathBuf,
    file: Option<H>,
    left: u64,
}

impl<H: Handle> Opened<H> {
    fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: None, left: 0 }
    }

    fn file(&mut self) -> &H {
        if self.left == 0 {
            self.file = None;
            self.left = OPENED_FOR;
        }
        self.left -= 1;
        let open = || H::of(OpenOptions::new().read(true).write(true).open(&self.path).unwrap());
        self.file.get_or_insert_with(open)
    }
}

impl<H: Handle> Way for Opened<H> {
    fn read(&mut self, at: usize, into: &mut [u8]) {
        assert_eq!(self.file().read(into, at as u64).unwrap(), into.len());
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert_eq!(self.file().write(bytes, at as u64).unwrap(), bytes.len());
    }

    fn punch(&mut self, at: usize) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.file(), flags, at as u64, 4096).unwrap();
    }
}

fn change_and_compare(model: &Model, way: &mut dyn Way, seed: u64) {
    let mut random = Random(seed);
    while model.take() {
        let slot = random.below(SLOTS as u64) as usize;
        match random.below(100) {
            0 => punch(model, way, slot),
            1..=45 => {
                model.lock(slot);
                let content = model.content(slot);
                let value = random.below(256) as u8;
                // Bytes that differ, so that a piece that is out of place is seen.
                for (i, byte) in content.iter_mut().enumerate() {
                    *byte = value.wrapping_add((i % 251) as u8);
                }
                way.write(start_of(slot), content);
                model.unlock(slot);
            }
            _ => {
                model.lock(slot);
                let content = model.content(slot);
                let mut found = vec![0; content.len()];
                way.read(start_of(slot), &mut found);
                let differs = found.iter().zip(&*content).position(|(found, expected)| found != expected);
                assert_eq!(
                    differs,
                    None,
                    "slot {slot} at {}: {:?} and not {:?}",
                    start_of(slot),
                    &found[..8.min(found.len())],
                    &content[..8.min(content.len())]
                );
                model.unlock(slot);
            }
        }
    }
}

/// Makes a page a hole, and all slots that it touches with it.
fn punch(model: &Model, way: &mut dyn Way, slot: usize) {
    let page = start_of(slot) / 4096 * 4096;
    let touched: Vec<usize> =
        (0..SLOTS).filter(|slot| start_of(*slot) < page + 4096 && start_of(slot + 1) > page).collect();
    // In order, so that nobody waits for each other.
    for slot in &touched {
        model.lock(*slot);
    }
    way.punch(page);
    for slot in &touched {
        let from = page.saturating_sub(start_of(*slot));
        let content = model.content(*slot);
        let to = (page + 4096 - start_of(*slot)).min(content.len());
        content[from..to].fill(0);
    }
    for slot in &touched {
        model.unlock(*slot);
    }
}

/// Switches the file to and fro.
fn switch(model: &Model, path: &Path) {
    let mut on = false;
    while model.left().load(Ordering::Acquire) > 0 {
        let file = File::open(path).unwrap();
        let (made, refused) = (&model.switches()[0], &model.switches()[1]);
        match dax::set(&file, on, How::Revoke) {
            Ok(answer) => {
                let expected = if on { Effect::Direct } else { Effect::Buffered };
                assert_eq!(answer.effect, expected);
                made.fetch_add(1, Ordering::Relaxed);
                on = !on;
            }
            Err(Errno::BUSY) => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// What one process does.
pub(crate) fn run() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os(super::program::FILE).unwrap());
    let model = Model::open(Path::new(&std::env::var_os(MODEL).unwrap()));
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    match role.to_str().unwrap() {
        "switch" => switch(&model, &path),
        "mount" => change_and_compare(&model, &mut Opened::<File>::new(&path), seed),
        "library" => change_and_compare(&model, &mut Opened::<lodefs_direct::File>::new(&path), seed),
        _ => {
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let options = MapOptions { offset: 0, size: SIZE, writable: true, sync: false };
            let mapping = lodefs_direct::map(&file, &options).unwrap();
            drop(file);
            change_and_compare(&model, &mut Mapped { mapping, path }, seed);
        }
    }
}

fn start(role: &str, path: &Path, model: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["a_process", "--exact", "--ignored", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .env(super::program::FILE, path)
        .env(MODEL, model)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets them all loose on a file, and compares it in the end. Returns the switches that were made, and that were refused.
pub(crate) fn let_loose(path: &Path, model_path: &Path, operations: u64) -> [u64; 2] {
    File::create(path).unwrap().set_len(SIZE as u64).unwrap();
    let model = Model::open(model_path);
    model.left().store(operations, Ordering::Release);
    let roles = ["mapping", "mount", "library", "library", "mapping", "switch"];
    let children: Vec<Child> =
        roles.iter().zip(1..).map(|(role, seed)| start(role, path, model_path, seed)).collect();
    let failed: Vec<&str> = children
        .into_iter()
        .zip(roles)
        .filter_map(|(mut child, role)| (!child.wait().unwrap().success()).then_some(role))
        .collect();
    assert!(failed.is_empty(), "{failed:?} failed, and said why");
    let mut way = Opened::<File>::new(path);
    for slot in 0..SLOTS {
        let mut found = vec![0; start_of(slot + 1) - start_of(slot)];
        way.read(start_of(slot), &mut found);
        assert!(found == model.content(slot), "slot {slot}, in the end");
    }
    model.switches().each_ref().map(|count| count.load(Ordering::Relaxed))
}
