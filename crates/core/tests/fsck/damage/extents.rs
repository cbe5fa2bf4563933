//! The extents of files.

use lodefs_core::fsck::Code;
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::extent::{ExtentBlockHead, ExtentSlot, InlineExtent};

use crate::image::Image;
use crate::sample::SAMPLE;
use crate::seeded::Seeded;

const FILE: &str = "/scattered";

/// Damages the file with several extent blocks.
fn scattered(damage: impl FnOnce(&mut Image, u64)) -> Seeded {
    Seeded::new(|image, sample| damage(image, sample.ino(FILE))).touches(FILE)
}

/// Replaces the extent in a slot, with a right checksum.
fn edit_slot(image: &mut Image, ino: u64, at: u64, edit: impl FnOnce(&mut InlineExtent)) {
    let mut extent = image.get::<ExtentSlot>(at).extent;
    edit(&mut extent);
    image.put(at, &ExtentSlot::new(extent, ino, image.seed()));
}

fn link(image: &mut Image, ino: u64, block: u64, next: u64) {
    image.put(block * BLOCK_SIZE, &ExtentBlockHead::new(ino, next, block, image.seed()));
}

/// The blocks of the file that are not as before.
fn differing(after: &[u8]) -> usize {
    let before = &crate::sample::contents(&SAMPLE.image)[FILE].bytes;
    assert_eq!(before.len(), after.len());
    let blocks = before.chunks(4096).zip(after.chunks(4096));
    blocks
        .filter(|(before, after)| before != after)
        .inspect(|(_, after)| assert!(after.iter().all(|b| *b == 0)))
        .count()
}

#[test]
fn extent_checksum() {
    let after = scattered(|image, ino| {
        let slot = image.extent_slots(image.chain(ino)[1])[5];
        image.flip(slot + 1);
    })
    .finds_at(Code::ExtentChecksum, FILE)
    .verify();
    assert_eq!(differing(&after[FILE].bytes), 1);
}

#[test]
fn extent_range() {
    let edits: [fn(&mut InlineExtent); 5] = [
        |extent| extent.physical = 5.into(),
        |extent| extent.physical = u64::MAX.into(),
        |extent| extent.blocks = 0.into(),
        |extent| extent.blocks = u32::MAX.into(),
        |extent| extent.logical = u64::MAX.into(),
    ];
    for edit in edits {
        let after = scattered(|image, ino| {
            let slot = image.extent_slots(image.chain(ino)[0])[3];
            edit_slot(image, ino, slot, edit);
        })
        .finds_at(Code::ExtentRange, FILE)
        .verify();
        assert_eq!(differing(&after[FILE].bytes), 1);
    }
}

#[test]
fn extent_range_in_the_inode() {
    Seeded::new(|image, sample| {
        image.edit_first_extent(sample.ino("/few"), |extent| extent.physical = (1 << 40).into());
    })
    .finds_at(Code::ExtentRange, "/few")
    .touches("/few")
    .verify();
}

#[test]
fn extent_overlap() {
    scattered(|image, ino| {
        let slots = image.extent_slots(image.chain(ino)[0]);
        let first: ExtentSlot = image.get(slots[0]);
        edit_slot(image, ino, slots[1], |extent| extent.logical = first.extent.logical);
    })
    .finds_at(Code::ExtentOverlap, FILE)
    .verify();
}

#[test]
fn extent_count() {
    Seeded::new(|image, sample| image.edit_inode(sample.ino(FILE), |slot| slot.extents = 7.into()))
        .finds_at(Code::ExtentCount, FILE)
        .verify();
}

#[test]
fn extent_chain() {
    let damages: [fn(&mut Image, u64); 6] = [
        // A head.
        |image, ino| image.flip(image.chain(ino)[1] * BLOCK_SIZE + 17),
        |image, ino| image.flip(image.chain(ino)[0] * BLOCK_SIZE + 17),
        // Outside of the volume.
        |image, ino| image.edit_inode(ino, |slot| slot.root = (1 << 45).into()),
        |image, ino| link(image, ino, image.chain(ino)[1], 2),
        // Circles.
        |image, ino| link(image, ino, image.chain(ino)[1], image.chain(ino)[0]),
        |image, ino| link(image, ino, image.chain(ino)[0], image.chain(ino)[0]),
    ];
    for damage in damages {
        scattered(damage).finds_at(Code::ExtentChain, FILE).verify();
    }
}

#[test]
fn a_cut_chain_keeps_what_is_before_the_cut() {
    let chain = SAMPLE.image.chain(SAMPLE.ino(FILE));
    let after =
        scattered(|image, ino| link(image, ino, chain[1], 2)).finds_at(Code::ExtentChain, FILE).verify();
    let lost = SAMPLE.image.extent_slots(*chain.last().unwrap()).len();
    assert!(chain.len() == 3 && lost > 0);
    assert_eq!(differing(&after[FILE].bytes), lost);
}

#[test]
fn block_count() {
    for path in [FILE, "/big", "/longlink", "/other", "/fifo"] {
        Seeded::new(|image, sample| image.edit_inode(sample.ino(path), |slot| slot.blocks = 1234.into()))
            .finds_at(Code::BlockCount, path)
            .verify();
    }
}
