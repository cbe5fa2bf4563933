//! Volumes that were stored by a released format are opened, compared with what was on them, used, and opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lodefs_core::fsck::{self, Code, Options};
use lodefs_core::{Fs, OpenOptions};
use lodefs_layout::directory::BlockHead;
use lodefs_layout::inode_map::{Entry, Found};
use lodefs_pmem::Domain;
use lodefs_testkit::MemoryFile;
use lodefs_testkit::golden::{self, Golden, LATER_BOOT, describe, inodes_of};
use lodefs_testkit::hostile::atlas::{Atlas, Kind, Structure};
use lodefs_testkit::hostile::exercise;
use lodefs_testkit::hostile::image::{BOOT, Image};

fn load(name: &str) -> Golden {
    Golden::load(name).unwrap_or_else(|error| panic!("the golden image {name} or its text: {error}"))
}

fn all() -> impl Iterator<Item = (&'static str, Golden)> {
    golden::ALL.into_iter().map(|name| (name, load(name)))
}

/// What is expected in each boot of the host.
fn expected(golden: &Golden) -> [([u8; 16], &str); 2] {
    let later = golden.text_later.as_ref().unwrap_or(&golden.text);
    [(BOOT, &golden.text), (LATER_BOOT, later)]
}

#[track_caller]
fn assert_same(what: &str, expected: &str, found: &str) {
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    if let Some((number, (expected, found))) = lines.find(|(_, (expected, found))| expected != found) {
        panic!("{what}, line {}: {expected:?} is expected, {found:?} is there", number + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{what}: lines");
}

#[test]
fn each_image_is_there_and_no_other() {
    let names: BTreeSet<String> = golden::ALL.map(str::to_owned).into();
    assert_eq!(names, golden::stored().unwrap().into_iter().collect());
}

#[test]
fn what_is_found_without_changing_anything() {
    for (name, golden) in all() {
        for (boot, expected) in expected(&golden) {
            assert_same(name, expected, &describe(&golden.image, boot).unwrap());
        }
    }
}

#[test]
fn a_restart_of_the_host_makes_a_difference_only_where_it_should() {
    for (name, golden) in all() {
        assert_eq!(golden.text_later.is_some(), name == "1-gated", "{name}");
    }
}

/// The inodes in a text, by number.
fn inodes_in(text: &str) -> BTreeMap<u64, String> {
    let inodes = text.split("\n\n").skip(1).map(|inode| format!("{}\n", inode.trim_end()));
    let number = |inode: &str| inode.lines().next().unwrap().strip_prefix("inode ").unwrap().parse().unwrap();
    inodes.map(|inode| (number(&inode), inode)).collect()
}

/// A volume in memory that is opened several times.
struct Volume {
    file: MemoryFile,
    domain: Domain,
    boot: [u8; 16],
}

impl Volume {
    fn of(image: &Image, domain: Domain, boot: [u8; 16]) -> Self {
        let file = MemoryFile::new(image.bytes().len() as u64).unwrap();
        file.write(image.bytes()).unwrap();
        Self { file, domain, boot }
    }

    fn open(&self) -> Arc<Fs> {
        let options = OpenOptions { no_atime: true, ..OpenOptions::default() };
        Fs::open(self.file.open(self.domain).unwrap().with_boot_id(self.boot), &options).unwrap()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let medium = self.file.open_read_only(self.domain).unwrap().with_boot_id(self.boot);
        let report = fsck::check(medium, &Options::default(), &mut |_| ()).unwrap();
        assert_eq!(report.findings, []);
        assert!(report.was_clean);
    }
}

#[test]
fn what_is_found_when_it_is_opened_used_closed_and_opened_again() {
    for (name, golden) in all() {
        for (boot, text) in expected(&golden) {
            for domain in Domain::ALL {
                let what = format!("{name} on {domain}");
                open_and_use(&what, &Volume::of(&golden.image, domain, boot), text);
            }
        }
    }
}

fn open_and_use(what: &str, volume: &Volume, text: &str) {
    let expected = inodes_in(text);
    let orphans = text.lines().filter(|line| line.starts_with(Code::Orphan.name())).count();
    let replayed = text.contains("\nnot closed, ");
    let same_as_expected = |fs: &Arc<Fs>| {
        for (ino, found) in inodes_of(fs).unwrap() {
            assert_same(what, expected.get(&ino).map_or("", String::as_str), &found);
        }
    };
    let fs = volume.open();
    assert_eq!(fs.recovery().was_clean, !replayed, "{what}");
    assert_eq!(fs.recovery().orphans_reclaimed, orphans as u64, "{what}");
    same_as_expected(&fs);
    assert_eq!(inodes_of(&fs).unwrap().len(), expected.len(), "{what}");
    fs.close().unwrap();
    drop(fs);
    volume.assert_clean();
    let fs = volume.open();
    assert!(fs.recovery().was_clean, "{what}");
    same_as_expected(&fs);
    for salt in 0..4 {
        exercise::use_it(&fs, &exercise::look(&fs), &[], salt);
    }
    let used = inodes_of(&fs).unwrap();
    fs.close().unwrap();
    drop(fs);
    volume.assert_clean();
    let fs = volume.open();
    assert_eq!(inodes_of(&fs).unwrap(), used, "{what}");
    exercise::demand_use(&fs).unwrap();
    fs.close().unwrap();
    drop(fs);
    volume.assert_clean();
}

#[test]
fn they_have_everything_that_the_format_has() {
    let closed = load("1-closed").image;
    let atlas = Atlas::of(&closed);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Record) {
        assert!(!atlas.of_kind(kind).is_empty(), "{kind:?}");
    }
    let entries = (0..closed.chunks())
        .map(|chunk| closed.get::<Entry>(closed.map_at(chunk)).interpret(chunk, closed.seed()));
    assert!(entries.into_iter().any(|found| found == Found::Gone));
    assert!(
        atlas.inodes().iter().any(|ino| closed.inode(*ino).generation.get() > 2),
        "a number that is used again"
    );
    assert!(
        atlas.of_kind(Kind::ExtentHead).windows(2).any(|two| two[0].ino == two[1].ino),
        "a chain of extent blocks"
    );
    let tree = load("1-tree").image;
    let is_high = |node: &Structure| tree.get::<BlockHead>(node.at).claimed_level() > 1;
    assert!(Atlas::of(&tree).of_kind(Kind::Node).iter().any(is_high), "nodes below a node");
}

/// Without its journal a crashed volume would be another one.
#[test]
fn what_is_in_the_journal_is_not_at_home() {
    for name in ["1-crashed", "1-gated"] {
        let golden = load(name);
        let inodes = inodes_in(&golden.text);
        let (ino, _) = inodes.iter().find(|(_, inode)| inode.contains("name /empty\n")).unwrap();
        assert!(inodes[ino].contains("size 13000,"), "{name}");
        assert_eq!(golden.image.inode(*ino).size.get(), 0, "{name}");
    }
}

/// So that whoever makes a new one gets the same as whoever reviews it.
#[test]
fn making_one_twice_gives_the_same() {
    for name in golden::ALL {
        let made = || golden::make(name).unwrap().unwrap();
        assert!(made() == made(), "{name}");
        let elsewhere = std::thread::spawn(move || golden::make(name).unwrap().unwrap());
        assert!(made() == elsewhere.join().unwrap(), "{name}");
    }
}
