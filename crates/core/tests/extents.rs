//! Changes of more extents than a record has room for: the file is what it should be, and after a crash what it was or what
//! it should be.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use lodefs_core::{Fallocate, FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, SetAttr, fsck};
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::MemoryFile;
use lodefs_testkit::crash::{Options, Snapshot, for_each_crash_image};
use proptest::prelude::*;

const BLOCK: u64 = 4096;
const FILE: NewInode<'_> = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };

fn resize(fs: &Fs, file: &Node, size: u64) {
    fs.set_attr(file, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

/// Writes every other block of a file, beginning at its end if `backwards`.
fn scatter(fs: &Fs, file: &Node, extents: u64, backwards: bool) {
    for number in 0..extents {
        let number = if backwards { extents - 1 - number } else { number };
        fs.write(file, 2 * number * BLOCK, &[number as u8 | 1; 8], false).unwrap();
    }
}

/// The blocks of a file that have data, with the first byte of each.
fn blocks(fs: &Fs, file: &Node) -> Vec<(u64, u8)> {
    let size = fs.attr(file).unwrap().size;
    let mut found = Vec::new();
    for block in 0..size.div_ceil(BLOCK) {
        let mut byte = [0];
        fs.read(file, block * BLOCK, &mut byte).unwrap();
        if byte[0] != 0 {
            found.push((block, byte[0]));
        }
    }
    found
}

fn check(bytes: &[u8], domain: Domain) {
    let medium = Medium::from_image(bytes, domain, Access::ReadOnly).unwrap();
    let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[derive(Clone, Debug)]
enum Step {
    Truncate(u64),
    Punch(u64, u64),
    Fill(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..2400_u64;
    let step = prop_oneof![
        at.clone().prop_map(Step::Truncate),
        (at.clone(), 1..1500_u64).prop_map(|(from, count)| Step::Punch(from, count)),
        (at, 1..1000_u64).prop_map(|(from, count)| Step::Fill(from, count)),
    ];
    prop::collection::vec(step, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Compared with a set of blocks, and read again from the volume.
    #[test]
    fn a_file_of_many_extents_is_what_was_done_to_it(backwards in any::<bool>(), steps in steps()) {
        let memory = MemoryFile::new(24 << 20).unwrap();
        let open = || Fs::open(memory.open(Domain::Volatile).unwrap(), &OpenOptions::default()).unwrap();
        Fs::format(&memory.open(Domain::Volatile).unwrap(), &FormatOptions::default()).unwrap();
        let fs = open();
        let file = fs.create(&fs.root().unwrap(), b"f", &FILE).unwrap();
        scatter(&fs, &file, 1200, backwards);
        let mut expected: Vec<(u64, u8)> = (0..1200).map(|number| (2 * number, number as u8 | 1)).collect();
        for step in steps {
            match step {
                Step::Truncate(block) => {
                    resize(&fs, &file, block * BLOCK);
                    expected.retain(|(at, _)| *at < block);
                }
                Step::Punch(from, count) => {
                    fs.fallocate(&file, Fallocate::PunchHole, from * BLOCK, count * BLOCK).unwrap();
                    expected.retain(|(at, _)| !(from..from + count).contains(at));
                }
                Step::Fill(from, count) => {
                    let how = Fallocate::Allocate { keep_size: false };
                    fs.fallocate(&file, how, from * BLOCK, count * BLOCK).unwrap();
                }
            }
            prop_assert_eq!(&blocks(&fs, &file), &expected);
        }
        let sectors = fs.attr(&file).unwrap().sectors;
        fs.close().unwrap();
        drop((file, fs));
        check(&memory.read().unwrap(), Domain::Volatile);
        let fs = open();
        let file = fs.lookup(&fs.root().unwrap(), b"f").unwrap();
        prop_assert_eq!(&blocks(&fs, &file), &expected);
        prop_assert_eq!(fs.attr(&file).unwrap().sectors, sectors);
    }
}

/// What a volume is after each crash while `change` is made.
fn crash(backwards: bool, change: impl FnOnce(&Fs, &Node)) {
    const SIZE: usize = 8 << 20;
    let domain = Domain::MemoryController;
    let memory = MemoryFile::new(SIZE as u64).unwrap();
    Fs::format(&memory.open(domain).unwrap(), &FormatOptions::default()).unwrap();
    let fs = Fs::open(memory.open(domain).unwrap(), &OpenOptions::default()).unwrap();
    scatter(&fs, &fs.create(&fs.root().unwrap(), b"f", &FILE).unwrap(), 700, backwards);
    fs.close().unwrap();
    drop(fs);
    let image = memory.read().unwrap();
    let (medium, log) = Medium::recording_from_image(&image, domain, Access::ReadWrite).unwrap();
    let fs = Fs::open(medium, &OpenOptions::default()).unwrap();
    let file = fs.lookup(&fs.root().unwrap(), b"f").unwrap();
    let look = |fs: &Arc<Fs>, file: &Node| (fs.attr(file).unwrap().size, blocks(fs, file));
    let before = look(&fs, &file);
    change(&fs, &file);
    let after = look(&fs, &file);
    let log = log.take();
    let start = Snapshot::new(image, 0);
    let options =
        Options { exhaustive_max: 4, singles_max: 2, random: 2, stores_between: 40, ..Options::new(domain) };
    let mut seen = BTreeSet::new();
    let _all = for_each_crash_image(&start, &[&log], &options, |crash| {
        let medium = Medium::from_image(crash.bytes(), domain, Access::ReadWrite).unwrap();
        let fs = Fs::open(medium, &OpenOptions::default()).unwrap();
        let found = look(&fs, &fs.lookup(&fs.root().unwrap(), b"f").unwrap());
        assert!(found == before || found == after, "neither: {} bytes", found.0);
        seen.insert(found == after);
        check(crash.bytes(), domain);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(seen.len(), 2, "both were seen");
}

#[test]
fn a_crash_leaves_all_extents_or_those_that_stay() {
    for backwards in [false, true] {
        // The blocks at the end of the chain become empty, or some of the slots of all blocks.
        crash(backwards, |fs, file| resize(fs, file, 700 * BLOCK));
        crash(backwards, |fs, file| {
            fs.fallocate(file, Fallocate::PunchHole, 100 * BLOCK, 700 * BLOCK).unwrap();
        });
    }
}
