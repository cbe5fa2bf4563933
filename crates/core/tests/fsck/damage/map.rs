//! The inode map.

use lodefs_core::fsck::{Code, Object};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry};
use lodefs_layout::state::State;
use std::collections::BTreeMap;

use crate::image::Image;
use crate::sample::{Content, SAMPLE, contents};
use crate::seeded::Seeded;

fn entries(first: u64, count: u64) -> Object {
    Object::MapEntries { first, count }
}

fn point_to(image: &mut Image, chunk: u64, block: u64) {
    image.put(image.map_at(chunk), &Entry::new(chunk, block, image.seed()));
}

#[test]
fn map_entry_damaged() {
    for chunk in [0, 1] {
        // Everything is found again.
        Seeded::new(|image, _| image.flip(image.map_at(chunk)))
            .finds(Code::MapEntryDamaged, entries(chunk, 1))
            .verify();
    }
}

#[test]
fn map_entry_range() {
    for block in [3, 1 << 40, SAMPLE.image.last_block() / BLOCK_SIZE] {
        Seeded::new(|image, _| point_to(image, 1, block)).finds(Code::MapEntryRange, entries(1, 1)).verify();
    }
}

#[test]
fn map_entry_taken() {
    Seeded::new(|image, _| point_to(image, 1, image.chunk(0)))
        .finds(Code::MapEntryTaken, entries(1, 1))
        .verify();
}

#[test]
fn map_entry_wrong() {
    let block = SAMPLE.image.tree(SAMPLE.ino("/big")).1[0];
    Seeded::new(|image, _| point_to(image, 1, block)).finds(Code::MapEntryWrong, entries(1, 1)).verify();
}

#[test]
fn map_gap() {
    Seeded::new(|image, _| {
        let at = image.map_at(0) as usize;
        image.bytes_mut()[at..at + ENTRY_SIZE as usize].fill(0);
    })
    .finds(Code::MapGap, entries(0, 1))
    .verify();
}

#[test]
fn the_last_entry_is_found_again_by_the_names() {
    let mut image = SAMPLE.image.clone();
    let last = image.chunks() - 1;
    let at = image.map_at(last) as usize;
    image.bytes_mut()[at..at + ENTRY_SIZE as usize].fill(0);
    let report = image.check().unwrap();
    assert!(report.findings.iter().any(|finding| finding.code == Code::EntryDangling));
    assert_found_by_names(&image, &entries(last, 1));
}

/// The inodes are found again by the names that lead to them, and nothing is missing then.
fn assert_found_by_names(image: &Image, expected: &Object) {
    let (report, repaired) = image.repair(&mut |_| true);
    let report = report.unwrap();
    assert_eq!(report.left().count(), 0, "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.code == Code::MapGap && f.object == *expected));
    assert_eq!(repaired.check().unwrap().findings, []);
    assert!(crate::sample::contents(&repaired) == crate::sample::contents(&SAMPLE.image));
}

#[test]
fn entries_behind_one_that_is_not_found_are_found_again() {
    let mut image = SAMPLE.image.clone();
    let last = image.chunks() - 1;
    let start = (image.chunk(last - 1) * BLOCK_SIZE) as usize;
    image.bytes_mut()[start..start + BLOCK_SIZE as usize].fill(0);
    image.put(image.map_at(last - 1), &[0_u8; 2 * ENTRY_SIZE as usize]);
    let (report, repaired) = image.repair(&mut |_| true);
    let report = report.unwrap();
    assert_eq!(report.left().count(), 0, "{:#?}", report.findings);
    assert_eq!(repaired.check().unwrap().findings, []);
    let mut before = crate::sample::contents(&SAMPLE.image);
    before.retain(|_, content| content.ino / CHUNK_INODES != last - 1);
    assert!(before == crate::sample::contents(&repaired));
}

/// Nobody can tell from the map that there are such inodes, nor from the bitmap, and the names that lead to them are below
/// the damage. What they own must not be taken for free.
#[test]
fn inodes_behind_the_end_of_the_map_survive_the_rebuilding_of_a_directory() {
    let sample = &SAMPLE.image;
    let (nodes, leaves) = sample.tree(SAMPLE.ino("/big"));
    for block in [nodes[0], leaves[0]] {
        let mut image = sample.clone();
        image.flip(image.state_at(1 - State::slot_of(image.state().update.get())) + 20);
        let chunks = image.chunks();
        let at = image.map_at(chunks / 2) as usize..image.map_at(chunks) as usize;
        image.bytes_mut()[at].fill(0);
        image.bytes_mut()[(block * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].fill(0xee);
        let (report, repaired) = image.repair(&mut |_| true);
        let report = report.unwrap();
        assert_eq!(report.left().count(), 0, "{:#?}", report.findings);
        assert_eq!(repaired.check().unwrap().findings, []);
        let by_number = |image| -> BTreeMap<u64, Content> {
            contents(image).into_values().map(|content| (content.ino, content)).collect()
        };
        let after = by_number(&repaired);
        for (ino, content) in by_number(sample) {
            assert!(after.get(&ino) == Some(&content), "inode {ino}");
        }
    }
}

#[test]
fn inodes_with_names_are_found_again_though_the_map_says_they_were_given_back() {
    let mut image = SAMPLE.image.clone();
    let seed = image.seed();
    image.put(image.map_at(3), &Entry::gone(3, seed));
    // Another one is damaged, which must not wait for it for ever.
    image.flip(image.map_at(5));
    assert_found_by_names(&image, &entries(3, 1));
}

#[test]
fn inodes_that_are_gone_count_as_given_back() {
    let mut image = SAMPLE.image.clone();
    let last = image.chunks() - 1;
    let start = (image.chunk(last) * BLOCK_SIZE) as usize;
    image.flip(image.map_at(last));
    image.bytes_mut()[start..start + BLOCK_SIZE as usize].fill(0);
    let (report, repaired) = image.repair(&mut |_| true);
    let report = report.unwrap();
    assert_eq!(report.left().count(), 0, "{:#?}", report.findings);
    assert_eq!(repaired.check().unwrap().findings, []);
    let before = crate::sample::contents(&SAMPLE.image);
    for (path, content) in crate::sample::contents(&repaired) {
        assert_ne!(content.ino / CHUNK_INODES, last, "{path}");
        assert!(before[&path] == content, "{path}");
    }
}

#[test]
fn inodes_that_were_given_back_are_not_waited_for() {
    let mut image = SAMPLE.image.clone();
    let (gone, last, seed) = (image.chunks(), image.chunks() - 1, image.seed());
    // What is left of inodes that were given back, in a block that is free.
    image.put(image.map_at(gone), &Entry::gone(gone, seed));
    let ino = gone * CHUNK_INODES;
    let mut remains = image.inode(SAMPLE.ino("/big"));
    remains.ino = ino.into();
    let remains = remains.sealed(ino, seed);
    image.put(image.last_block() - 8 * BLOCK_SIZE, &remains);
    // Others are not to be found.
    let start = (image.chunk(last) * BLOCK_SIZE) as usize;
    image.flip(image.map_at(last));
    image.bytes_mut()[start..start + BLOCK_SIZE as usize].fill(0);
    let (report, repaired) = image.repair(&mut |_| true);
    let report = report.unwrap();
    assert_eq!(report.left().count(), 0, "{:#?}", report.findings);
    assert_eq!(repaired.check().unwrap().findings, []);
}
