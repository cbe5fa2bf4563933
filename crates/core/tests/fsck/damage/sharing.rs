//! Blocks with two owners.

use lodefs_core::fsck::{Code, Object};
use lodefs_layout::BLOCK_SIZE;

use crate::image::Image;
use crate::sample::SAMPLE;
use crate::seeded::Seeded;

/// Makes the first extent of a file lie elsewhere, and marks free what it occupied, so that nothing else is wrong.
fn move_to(image: &mut Image, ino: u64, physical: u64) {
    let (_, extent) = image.first_extent(ino);
    image.edit_first_extent(ino, |extent| extent.physical = physical.into());
    let (start, blocks) = (extent.physical.get(), u64::from(extent.blocks.get()));
    for block in start..start + blocks {
        image.flip_saved(block);
    }
    image.edit_state(|state| state.free_blocks = (state.free_blocks.get() + blocks).into());
}

#[test]
fn blocks_shared_between_files() {
    let (first, second) = ("/plain", "/other");
    assert!(SAMPLE.ino(first) < SAMPLE.ino(second));
    let source = SAMPLE.image.first_extent(SAMPLE.ino(first)).1;
    let seeded = Seeded::new(|image, sample| move_to(image, sample.ino(second), source.physical.get()));
    let after = seeded.finds_at(Code::BlocksShared, second).touches(second).verify();
    // The second owner has a copy of its own.
    let plain = &crate::sample::contents(&SAMPLE.image)[first].bytes;
    assert!(after[second].bytes[..] == plain[..29_999]);
}

#[test]
fn blocks_shared_with_metadata() {
    for block in [SAMPLE.image.chunk(0) + 3, SAMPLE.image.chunk(1)] {
        let seeded = Seeded::new(|image, sample| move_to(image, sample.ino("/few"), block));
        let after = seeded.finds_at(Code::BlocksShared, "/few").touches("/few").verify();
        let hole = SAMPLE.image.first_extent(SAMPLE.ino("/few")).1.logical.get() * BLOCK_SIZE;
        for start in [0, 40_960, 81_920] {
            let expected = if start == hole { 0 } else { 3 };
            assert!(after["/few"].bytes[start as usize..][..5000].iter().all(|byte| *byte == expected));
        }
    }
}

#[test]
fn part_of_an_extent_is_shared() {
    // Only the end of the second owner's extent.
    let target = SAMPLE.image.first_extent(SAMPLE.ino("/plain")).1;
    let blocks = u64::from(SAMPLE.image.first_extent(SAMPLE.ino("/other")).1.blocks.get());
    let start = target.physical.get() - blocks + 2;
    let report = {
        let mut image = SAMPLE.image.clone();
        move_to(&mut image, SAMPLE.ino("/other"), start);
        let (report, repaired) = image.repair(&mut |_| true);
        assert_eq!(repaired.check().unwrap().findings, []);
        assert!(
            crate::sample::contents(&repaired)["/plain"] == crate::sample::contents(&SAMPLE.image)["/plain"]
        );
        report.unwrap()
    };
    assert!(report.findings.iter().any(|finding| finding.code == Code::BlocksShared));
    assert_eq!(report.left().count(), 0);
}

#[test]
fn three_owners_are_parted() {
    let mut image = SAMPLE.image.clone();
    let source = image.first_extent(SAMPLE.ino("/plain")).1.physical.get();
    for path in ["/few", "/dir/sub/deep/file"] {
        move_to(&mut image, SAMPLE.ino(path), source);
    }
    let report = image.check().unwrap();
    let shared: Vec<&Object> =
        report.findings.iter().filter(|f| f.code == Code::BlocksShared).map(|f| &f.object).collect();
    assert_eq!(shared.len(), 2);
    let plain = SAMPLE.ino("/plain");
    assert!(
        report.findings.iter().all(|f| f.detail.contains(&format!("inode {plain}"))),
        "{:#?}",
        report.findings
    );
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
}
