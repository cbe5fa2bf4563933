//! Directory entries by themselves.

use std::collections::HashMap;
use std::sync::Arc;

use lodefs_core::fsck::{Code, Object, Outcome};
use lodefs_core::{Fs, Ino, Kind, NewInode, NewKind};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{EntryHead, entry_size, tag, tag_position};

use crate::image::{EntryAt, Image};
use crate::sample::SAMPLE;
use crate::seeded::Seeded;

const NAME: &str = "a file with a longer name, number 77";
const PATH: &str = "/big/a file with a longer name, number 77";

fn big() -> u64 {
    SAMPLE.ino("/big")
}

fn object(at: EntryAt, name: &str) -> Object {
    Object::Entry { directory: Ino(big()), block: at.block, tag: at.tag, name: name.into() }
}

/// Damages an entry of the large directory. Its inode goes to lost+found.
fn lost(damage: impl FnOnce(&mut Image, EntryAt), code: Code, name: &str) {
    let at = SAMPLE.image.entry(big(), NAME);
    let after =
        Seeded::new(|image, _| damage(image, at)).finds(code, object(at, name)).touches(PATH).verify();
    let found = &after[&format!("/lost+found/#{}", SAMPLE.ino(PATH))];
    assert!(*found == crate::sample::contents(&SAMPLE.image)[PATH]);
}

#[test]
fn entry_place() {
    for place in [1, 71, 511] {
        lost(
            |image, at| image.put(Image::tag_at(at.block, at.tag), &(0x1234_0000_u32 | place)),
            Code::EntryPlace,
            "",
        );
    }
    // The name would go beyond the end of the leaf.
    lost(
        |image, at| {
            let last = image.entries(at.block).into_iter().max_by_key(|entry| entry.head).unwrap();
            let place = (BLOCK_SIZE - 24) as usize;
            assert!(last.head < at.block * BLOCK_SIZE + place as u64);
            image.put(at.block * BLOCK_SIZE + place as u64 + 4, &200_u8);
            image.put(Image::tag_at(at.block, at.tag), &tag(1, place).to_le_bytes());
        },
        Code::EntryPlace,
        "",
    );
}

#[test]
fn entry_checksum() {
    lost(|image, at| image.flip(at.head + 30), Code::EntryChecksum, "");
    lost(|image, at| image.flip(at.head + 16), Code::EntryChecksum, "");
}

#[test]
fn entry_tag() {
    let at = SAMPLE.image.entry(big(), NAME);
    Seeded::new(|image, _| image.flip(Image::tag_at(at.block, at.tag) + 3))
        .finds(Code::EntryTag, object(at, NAME))
        .verify();
}

#[test]
fn entry_hash() {
    let at = SAMPLE.image.entry(big(), NAME);
    Seeded::new(|image, _| image.edit_entry(at, |head| head.hash = (head.hash.get() ^ 1).into()))
        .finds(Code::EntryHash, object(at, NAME))
        .verify();
}

/// Two names in one bucket of the sample's hashes.
fn two_of_one_bucket() -> [String; 2] {
    let mut by_bucket: HashMap<u64, String> = HashMap::new();
    for number in 0_u32.. {
        let name = format!("name {number}");
        let bucket = SAMPLE.image.seed().name_range(name.as_bytes()).first;
        if let Some(other) = by_bucket.insert(bucket, name.clone()) {
            return [other, name];
        }
    }
    unreachable!("there are fewer buckets than numbers")
}

/// The names in the root directory, listed one at a time.
fn listed_singly(fs: &Arc<Fs>) -> Vec<Vec<u8>> {
    let root = fs.root().unwrap();
    let (mut next, mut listed) = (Some(0), Vec::new());
    while let Some(from) = next.take() {
        fs.read_dir(&root, from, &mut |entry| {
            let is_first = next.is_none();
            if is_first {
                next = Some(entry.next);
                listed.push(entry.name.clone());
            }
            is_first
        })
        .unwrap();
    }
    listed
}

/// Names of one bucket must not have one hash.
#[test]
fn entry_hash_of_another_name() {
    let [first, second] = two_of_one_bucket();
    let mut image = SAMPLE.image.clone();
    let made = image.open_and(|fs| {
        let root = fs.root().unwrap();
        let new = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
        for name in [&first, &second] {
            fs.create(&root, name.as_bytes(), &new).unwrap();
        }
    });
    image = made.unwrap();
    let [one, other] = [&first, &second].map(|name| image.entry(1, name));
    let hashes = [one, other].map(|at| image.get::<EntryHead>(at.head).hash);
    assert_ne!(hashes[0], hashes[1]);
    image.edit_entry(other, |head| head.hash = hashes[0]);
    let found = image.check().unwrap().findings;
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::EntryHash]);
    // Until it is repaired, both are found and listed.
    let both = image.open_and(|fs| {
        let listed = listed_singly(fs);
        for name in [&first, &second] {
            assert_eq!(listed.iter().filter(|listed| *listed == name.as_bytes()).count(), 1);
            fs.lookup(&fs.root().unwrap(), name.as_bytes()).unwrap();
        }
    });
    both.unwrap();
    let (report, repaired) = image.repair(&mut |_| panic!("nothing is lost"));
    assert!(report.unwrap().findings.iter().all(|finding| finding.outcome == Outcome::Repaired));
    assert!(repaired.check().unwrap().is_clean());
    let [one, other] = [&first, &second].map(|name| repaired.entry(1, name));
    assert_ne!(repaired.get::<EntryHead>(one.head).hash, repaired.get::<EntryHead>(other.head).hash);
}

/// Puts an entry for `ino` with the name of one that is there into another leaf of the large directory.
fn misplace(image: &mut Image, ino: u64) -> EntryAt {
    let at = image.entry(big(), NAME);
    let head: EntryHead = image.get(at.head);
    let room = |block: &u64| {
        let end =
            image.entries(*block).iter().map(|e| e.head + entry_size(image.name(*e).len()) as u64).max();
        *block != at.block && end.is_some_and(|end| end + 100 < (block + 1) * BLOCK_SIZE)
    };
    let other = image.tree(big()).1.into_iter().find(room).unwrap();
    image.add_entry_to(other, big(), NAME.as_bytes(), head.hash.get(), ino, head.kind)
}

#[test]
fn entry_misplaced() {
    let mut image = SAMPLE.image.clone();
    let at = image.entry(big(), NAME);
    let new = misplace(&mut image, SAMPLE.ino(PATH));
    image.put(Image::tag_at(at.block, at.tag), &0_u32);
    // Its position would not ascend, and looking it up would not find it.
    let listed = image.open_and(|fs| {
        let directory = fs.node_by_handle(Ino(big()), None).unwrap();
        let refusal = fs.read_dir(&directory, 0, &mut |_| true).unwrap_err();
        assert!(matches!(refusal, lodefs_core::Error::Corrupt { .. }), "{refusal}");
    });
    listed.unwrap();
    Seeded::of(image).finds(Code::EntryMisplaced, object(new, NAME)).verify();
}

#[test]
fn entry_duplicate_in_another_leaf() {
    let mut image = SAMPLE.image.clone();
    let new = misplace(&mut image, SAMPLE.ino("/empty"));
    image.edit_inode(big(), |slot| slot.size = (slot.size.get() + 1).into());
    let found: Vec<_> = image.check().unwrap().findings.into_iter().map(|it| (it.code, it.object)).collect();
    assert_eq!(found, [Code::EntryMisplaced, Code::EntryDuplicate].map(|code| (code, object(new, NAME))));
    // Only whoever agrees to drop the second gets the directory built again.
    let (report, _) = image.repair(&mut |_| false);
    assert_eq!(report.unwrap().left().count(), 2);
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
    let contents = crate::sample::contents;
    assert!(contents(&repaired) == contents(&SAMPLE.image));
}

#[test]
fn entry_name() {
    for name in ["with/slash", "with\0zero", ".", ".."] {
        let mut image = SAMPLE.image.clone();
        let at = image.entry(big(), NAME);
        let head: EntryHead = image.get(at.head);
        image.put(Image::tag_at(at.block, at.tag), &0_u32);
        let new = image.add_entry(big(), name.as_bytes(), head.ino.get(), head.kind);
        let after = Seeded::of(image).finds(Code::EntryName, object(new, name)).touches(PATH).verify();
        assert!(after.contains_key(&format!("/lost+found/#{}", SAMPLE.ino(PATH))));
    }
}

#[test]
fn entry_duplicate() {
    let mut image = SAMPLE.image.clone();
    let other = SAMPLE.ino("/empty");
    let new = image.add_entry(big(), NAME.as_bytes(), other, Kind::File.d_type());
    image.edit_inode(big(), |slot| slot.size = (slot.size.get() + 1).into());
    let first = image.entry(big(), NAME);
    assert!(first.tag < new.tag);
    Seeded::of(image).finds(Code::EntryDuplicate, object(new, NAME)).verify();
}

#[test]
fn entry_overlap() {
    let mut image = SAMPLE.image.clone();
    let at = image.entry(big(), NAME);
    let free = (0..128).find(|tag| image.entries(at.block).iter().all(|entry| entry.tag != *tag)).unwrap();
    let same: u32 = u32::from_le_bytes(image.get::<[u8; 4]>(Image::tag_at(at.block, at.tag)));
    image.put(Image::tag_at(at.block, free), &same.to_le_bytes());
    image.edit_inode(big(), |slot| slot.size = (slot.size.get() + 1).into());
    let second = EntryAt { tag: free.max(at.tag), ..at };
    assert!(tag_position(same) > 0);
    Seeded::of(image).finds(Code::EntryOverlap, object(second, NAME)).verify();
}
