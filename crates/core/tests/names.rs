//! Directories whose names share hashes: chosen by the test, as if an attacker knew how to choose them.
//!
//! Bits are taken away from the hashes, for the whole process, so one test runs at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodefs_core::{
    DirEntry, Error, FormatOptions, Fs, NewInode, NewKind, NewNames, Node, OpenOptions, RenameMode, fsck,
};
use lodefs_layout::checksum::Seed;
use lodefs_layout::names::weak;
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::MemoryFile;
use proptest::prelude::*;
use rustix::io::Errno;

const FILE: NewInode<'_> = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
const DIRECTORY: NewInode<'_> = NewInode { kind: NewKind::Directory, ..FILE };

/// Which bits of the hashes are left: all names have one hash; four hashes, which differ in the upper bits; few hashes, which
/// differ in bits that a short position leaves out; some of both; all.
const MASKS: [u64; 5] = [0, 3 << 62, 7 << 1, 5 << 61 | 1 << 33 | 3, u64::MAX];

/// Hashes with the bits of a mask, until it is dropped.
struct Weakened {
    _alone: MutexGuard<'static, ()>,
}

impl Weakened {
    fn to(mask: u64) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        weak::set_mask(mask);
        Self { _alone: alone }
    }
}

impl Drop for Weakened {
    fn drop(&mut self) {
        weak::set_mask(u64::MAX);
    }
}

struct Volume {
    file: MemoryFile,
    names: NewNames,
    fs: Arc<Fs>,
}

impl Volume {
    fn new(size: u64, names: NewNames) -> Self {
        let file = MemoryFile::new(size).unwrap();
        let options = FormatOptions { names, ..FormatOptions::default() };
        Fs::format(&file.open(Domain::Volatile).unwrap(), &options).unwrap();
        let fs = Fs::open(file.open(Domain::Volatile).unwrap(), &OpenOptions::default()).unwrap();
        Self { file, names, fs }
    }

    /// Closes it, checks it, and opens it again. No node of it may be left.
    fn reopen(self) -> Self {
        let Self { file, names, fs } = self;
        fs.close().unwrap();
        drop(fs);
        let image = file.read().unwrap();
        let medium = Medium::from_image(&image, Domain::Volatile, Access::ReadOnly).unwrap();
        let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        let fs = Fs::open(file.open(Domain::Volatile).unwrap(), &OpenOptions::default()).unwrap();
        Self { file, names, fs }
    }

    fn is_keyed(&self) -> bool {
        self.names != NewNames::FromUuid
    }
}

/// At most `count` entries from a position on.
fn some(fs: &Fs, dir: &Node, from: u64, count: usize) -> Vec<DirEntry> {
    let mut taken = Vec::new();
    fs.read_dir(dir, from, &mut |entry| {
        if taken.len() == count {
            return false;
        }
        taken.push(entry.clone());
        true
    })
    .unwrap();
    taken
}

/// All entries, so many at a time.
fn all(fs: &Fs, dir: &Node, count: usize) -> Vec<DirEntry> {
    let mut listed: Vec<DirEntry> = Vec::new();
    loop {
        let from = listed.last().map_or(0, |entry| entry.next);
        let more = some(fs, dir, from, count);
        if more.is_empty() {
            return listed;
        }
        listed.extend(more);
        assert!(listed.len() < 100_000, "the listing does not end");
    }
}

fn names_of(entries: &[DirEntry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| entry.name.as_slice()).collect()
}

/// Whatever the number of entries at a time, and wherever it goes on, a listing gives each name once.
fn check_listings(volume: &Volume, dir: &Node, expected: &BTreeMap<Vec<u8>, u64>) {
    let whole = some(&volume.fs, dir, 0, usize::MAX);
    let found: BTreeMap<Vec<u8>, u64> =
        whole.iter().skip(2).map(|entry| (entry.name.clone(), entry.ino.0)).collect();
    assert_eq!(&found, expected);
    assert_eq!(whole.len(), expected.len() + 2, "a name comes twice");
    let positions: HashSet<u64> = whole.iter().map(|entry| entry.next).collect();
    assert_eq!(positions.len(), whole.len(), "a position comes twice");
    assert!(positions.iter().all(|position| i64::try_from(*position).is_ok()));
    for count in [1, 2, 7] {
        assert_eq!(names_of(&all(&volume.fs, dir, count)), names_of(&whole), "{count} at a time");
    }
    for (i, entry) in whole.iter().enumerate() {
        let rest = some(&volume.fs, dir, entry.next, 5);
        let expected = &whole[i + 1..whole.len().min(i + 6)];
        assert_eq!(names_of(&rest), names_of(expected), "behind {:?}", entry.name);
    }
}

/// What is done with names of two directories.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8),
    Unlink(u8, u8),
    Rename(u8, u8, u8, u8),
    Exchange(u8, u8, u8, u8),
    /// Lists some entries, unlinks one of them, makes another, and goes on.
    ListAcrossChanges(u8, u8, u8, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (dir, name) = (0..2_u8, 0..90_u8);
    let create = (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Create(d, n));
    let unlink = (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Unlink(d, n));
    let two = (dir.clone(), name.clone(), dir.clone(), name.clone());
    let rename = two.clone().prop_map(|(d, n, e, m)| Step::Rename(d, n, e, m));
    let exchange = two.prop_map(|(d, n, e, m)| Step::Exchange(d, n, e, m));
    let list = (dir, name.clone(), name, 1..9_usize)
        .prop_map(|(d, n, m, count)| Step::ListAcrossChanges(d, n, m, count));
    let step = prop_oneof![6 => create, 2 => unlink, 1 => rename, 1 => exchange, 1 => list];
    prop::collection::vec(step, 1..250)
}

/// The name with this number: every third is long, so that leaves overflow soon.
fn name(number: u8) -> Vec<u8> {
    let mut name = format!("{number}").into_bytes();
    if number.is_multiple_of(3) {
        name.resize(220, b'n');
    }
    name
}

/// The directories and what should be in them.
struct World {
    volume: Volume,
    dirs: [Node; 2],
    expected: [BTreeMap<Vec<u8>, u64>; 2],
}

impl World {
    fn new(names: NewNames) -> Self {
        let volume = Volume::new(8 << 20, names);
        let root = volume.fs.root().unwrap();
        let dirs = [b"a", b"b"].map(|name| volume.fs.create(&root, name, &DIRECTORY).unwrap());
        Self { volume, dirs, expected: Default::default() }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Create(d, n) => self.create(usize::from(d), &name(n)),
            Step::Unlink(d, n) => self.unlink(usize::from(d), &name(n)),
            Step::Rename(d, n, e, m) => self.rename(usize::from(d), &name(n), usize::from(e), &name(m)),
            Step::Exchange(d, n, e, m) => self.exchange(usize::from(d), name(n), usize::from(e), name(m)),
            Step::ListAcrossChanges(d, gone, made, count) => {
                self.list_across_changes(usize::from(d), &name(gone), &name(made), count);
            }
        }
    }

    fn create(&mut self, d: usize, name: &[u8]) {
        let made = self.volume.fs.create(&self.dirs[d], name, &FILE);
        if self.expected[d].contains_key(name) {
            assert_eq!(made.unwrap_err().errno(), Errno::EXIST);
            return;
        }
        let ino = made.as_ref().map(|node| node.ino().0).unwrap_or_default();
        if !self.is_refused(d, name, made.map(drop)) {
            self.expected[d].insert(name.to_vec(), ino);
        }
    }

    fn unlink(&mut self, d: usize, name: &[u8]) {
        let done = self.volume.fs.unlink(&self.dirs[d], name);
        match self.expected[d].remove(name) {
            Some(_) => done.unwrap(),
            None => assert_eq!(done.unwrap_err().errno(), Errno::NOENT),
        }
    }

    fn rename(&mut self, d: usize, from: &[u8], e: usize, to: &[u8]) {
        let (mode, nobody) = (RenameMode::Replace, (0, 0));
        let done = self.volume.fs.rename(&self.dirs[d], from, &self.dirs[e], to, mode, nobody);
        let Some(ino) = self.expected[d].get(from).copied() else {
            assert_eq!(done.unwrap_err().errno(), Errno::NOENT);
            return;
        };
        if !self.is_refused(e, to, done) {
            self.expected[d].remove(from);
            self.expected[e].insert(to.to_vec(), ino);
        }
    }

    fn exchange(&mut self, d: usize, from: Vec<u8>, e: usize, to: Vec<u8>) {
        let (mode, nobody) = (RenameMode::Exchange, (0, 0));
        let done = self.volume.fs.rename(&self.dirs[d], &from, &self.dirs[e], &to, mode, nobody);
        let found = (self.expected[d].get(&from).copied(), self.expected[e].get(&to).copied());
        let (Some(one), Some(other)) = found else {
            assert_eq!(done.unwrap_err().errno(), Errno::NOENT);
            return;
        };
        done.unwrap();
        self.expected[d].insert(from, other);
        self.expected[e].insert(to, one);
    }

    /// Only a volume without keyed names may refuse a name, and only when the names with its hash fill a leaf.
    fn is_refused(&self, d: usize, name: &[u8], done: Result<(), Error>) -> bool {
        let Err(error) = done else { return false };
        assert_eq!(error.errno(), Errno::NOSPC, "{error}");
        assert!(!self.volume.is_keyed(), "a volume with keyed names takes every name");
        let size = |name: &[u8]| (24 + name.len()).next_multiple_of(8);
        let others: usize = self.expected[d].keys().map(|name| size(name)).sum();
        assert!(others + size(name) > 3520, "{} names leave room", self.expected[d].len());
        true
    }

    fn list_across_changes(&mut self, d: usize, gone: &[u8], made: &[u8], count: usize) {
        let fs = Arc::clone(&self.volume.fs);
        let before: BTreeSet<Vec<u8>> = self.expected[d].keys().cloned().collect();
        let (mut seen, mut from, mut calls) = (Vec::new(), 0, 0);
        loop {
            let batch = some(&fs, &self.dirs[d], from, count);
            let Some(last) = batch.last() else { break };
            from = last.next;
            seen.extend(batch.iter().map(|entry| entry.name.clone()));
            calls += 1;
            match calls {
                2 => self.unlink(d, gone),
                3 => self.create(d, made),
                // The last of what was listed goes, as with rm -r.
                4 => self.unlink(d, &seen.last().unwrap().clone()),
                _ => {}
            }
            assert!(calls < 1000, "the listing does not end");
        }
        let unique: BTreeSet<&Vec<u8>> = seen.iter().collect();
        let changed = |name: &&Vec<u8>| name.as_slice() == gone || name.as_slice() == made;
        for name in before.iter().filter(|name| !changed(name)) {
            assert_eq!(seen.iter().filter(|other| *other == name).count(), 1, "{name:?} is listed once");
        }
        assert!(unique.len() + 1 >= seen.len(), "only a name that was made anew may come again");
    }

    fn check(&self) {
        for (dir, expected) in self.dirs.iter().zip(&self.expected) {
            check_listings(&self.volume, dir, expected);
            for number in 0..90 {
                let name = name(number);
                let found = self.volume.fs.lookup(dir, &name).map(|node| node.ino().0);
                match expected.get(&name) {
                    Some(ino) => assert_eq!(found.unwrap(), *ino),
                    None => assert_eq!(found.unwrap_err().errno(), Errno::NOENT),
                }
            }
        }
    }
}

fn run(mask: u64, names: NewNames, steps: &[Step]) {
    let _weakened = Weakened::to(mask);
    let mut world = World::new(names);
    for step in steps {
        world.apply(step);
    }
    world.check();
    let World { volume, dirs, expected } = world;
    drop(dirs);
    let volume = volume.reopen();
    let root = volume.fs.root().unwrap();
    let dirs = [b"a", b"b"].map(|name| volume.fs.lookup(&root, name).unwrap());
    World { volume, dirs, expected }.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_directory_is_right_for_any_set_of_names(
        mask in prop::sample::select(&MASKS[..]),
        keyed in any::<bool>(),
        steps in steps(),
    ) {
        run(mask, if keyed { NewNames::Secret } else { NewNames::FromUuid }, &steps);
    }
}

/// Many times what a leaf holds, all in one bucket.
#[test]
fn one_bucket_holds_as_many_names_as_are_made() {
    let _weakened = Weakened::to(0);
    let volume = Volume::new(16 << 20, NewNames::Secret);
    let root = volume.fs.root().unwrap();
    let dir = volume.fs.create(&root, b"d", &DIRECTORY).unwrap();
    let file = volume.fs.create(&root, b"f", &FILE).unwrap();
    let mut expected = BTreeMap::new();
    for i in 0..1500_u32 {
        let name = format!("{i:>100}").into_bytes();
        volume.fs.link(&file, &dir, &name).unwrap();
        expected.insert(name, file.ino().0);
    }
    check_listings(&volume, &dir, &expected);
    let short = some(&volume.fs, &dir, 0, usize::MAX).iter().filter(|entry| entry.next < 1 << 31).count();
    assert_eq!(short, 2 + 16, "the dots, and the first of each upper part");
    drop((dir, file, root));
    let volume = volume.reopen();
    let root = volume.fs.root().unwrap();
    let dir = volume.fs.lookup(&root, b"d").unwrap();
    let order: Vec<Vec<u8>> = all(&volume.fs, &dir, 40).into_iter().skip(2).map(|entry| entry.name).collect();
    for name in &order {
        volume.fs.unlink(&dir, name).unwrap();
        expected.remove(name);
        if expected.len() % 500 == 1 {
            check_listings(&volume, &dir, &expected);
        }
    }
    volume.fs.rmdir(&root, b"d").unwrap();
}

/// Names of one hash that fill the only leaf of a volume without keyed names keep no other name out.
#[test]
fn a_leaf_full_of_one_hash_keeps_no_other_name_out() {
    let _weakened = Weakened::to(1 << 63);
    let volume = Volume::new(4 << 20, NewNames::FromUuid);
    let seed = Seed::of_volume(&volume.fs.info().uuid);
    let root = volume.fs.root().unwrap();
    let dir = volume.fs.create(&root, b"d", &DIRECTORY).unwrap();
    let mut names: [Vec<Vec<u8>>; 2] = Default::default();
    for i in 0..60_u32 {
        let name = format!("{i:>230}").into_bytes();
        names[usize::from(seed.name_range(&name).first > 1 << 60)].push(name);
    }
    let [same, others] = names;
    let mut expected = BTreeMap::new();
    let mut create = |name: &Vec<u8>| {
        let node = volume.fs.create(&dir, name, &FILE)?;
        expected.insert(name.clone(), node.ino().0);
        Ok::<(), Error>(())
    };
    // A leaf has room for thirteen.
    same[..13].iter().try_for_each(&mut create).unwrap();
    others[..13].iter().try_for_each(&mut create).unwrap();
    assert_eq!(create(&same[13]).unwrap_err().errno(), Errno::NOSPC);
    check_listings(&volume, &dir, &expected);
}

/// As 32-bit programs need.
#[test]
fn positions_of_keyed_names_are_short() {
    let _weakened = Weakened::to(u64::MAX);
    let volume = Volume::new(32 << 20, NewNames::Secret);
    let root = volume.fs.root().unwrap();
    let file = volume.fs.create(&root, b"f", &FILE).unwrap();
    for i in 0..60_000_u32 {
        volume.fs.link(&file, &root, format!("{i}").as_bytes()).unwrap();
    }
    let listed = some(&volume.fs, &root, 0, usize::MAX);
    assert_eq!(listed.len(), 60_003);
    assert!(listed.iter().all(|entry| entry.next < 1 << 31));
}
