//! What a closed volume says about itself is believed only as far as it agrees: states and bitmaps that are forged, with right
//! checksums.

use lodefs_core::{Error, NewInode, NewKind, SetAttr};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::saved_bitmap::BitmapBlock;
use lodefs_testkit::hostile::image::Image;
use lodefs_testkit::hostile::sample::SAMPLE;

/// Where the first block of the saved bitmap is.
fn bitmap_at(image: &Image) -> u64 {
    image.superblock().saved_bitmap.start.get() * BLOCK_SIZE
}

/// Free blocks, and inodes that were looked at, when it is opened.
fn opened(image: &Image) -> (u64, u64) {
    let mut found = (0, 0);
    image
        .open_and(|fs| found = (fs.space().blocks_free, fs.recovery().inodes_scanned))
        .expect("what is wrong is counted again");
    found
}

/// A copy of the sample in which something was changed.
fn forged(forge: impl FnOnce(&mut Image)) -> Image {
    let mut image = SAMPLE.image.clone();
    forge(&mut image);
    image
}

#[test]
fn what_agrees_is_believed() {
    let (free, scanned) = opened(&SAMPLE.image);
    assert!(free > 0);
    assert_eq!(scanned, 0);
}

#[test]
fn a_number_of_free_blocks_that_is_not_that_of_the_bitmap_is_not_believed() {
    let (free, _) = opened(&SAMPLE.image);
    let image =
        forged(|image| image.edit_state(|state| state.free_blocks = (state.free_blocks.get() - 1).into()));
    let (found, scanned) = opened(&image);
    assert_eq!(found, free);
    assert!(scanned > 0, "it was counted again");
}

#[test]
fn a_bitmap_with_a_wrong_checksum_is_not_believed() {
    let (free, _) = opened(&SAMPLE.image);
    // A bit that is not used, so that nothing else could tell.
    let image = forged(|image| image.flip(bitmap_at(image) + 16));
    let (found, scanned) = opened(&image);
    assert_eq!(found, free);
    assert!(scanned > 0, "it was counted again");
}

#[test]
fn a_bitmap_that_frees_what_is_never_free_is_damage() {
    let image = forged(|image| {
        let mut bitmap: BitmapBlock = image.get(bitmap_at(image));
        bitmap.words[0] = (bitmap.words[0].get() & !1).into();
        let sealed = BitmapBlock::new(0, bitmap.update.get(), bitmap.words, image.seed());
        image.put(bitmap_at(image), &sealed);
    });
    match image.open_and(|_| ()) {
        Err(Error::Corrupt { object, fault }) => {
            assert_eq!((object.as_str(), fault), ("saved bitmap", "a fixed region is marked free"));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_number_of_blocks_that_is_too_small_does_not_become_a_huge_one() {
    let ino = SAMPLE.ino("/scattered");
    let image = forged(|image| image.edit_inode(ino, |slot| slot.blocks = 0.into()));
    image
        .open_and(|fs| {
            let root = fs.root().unwrap();
            let file = fs.lookup(&root, b"scattered").unwrap();
            fs.set_attr(&file, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
            assert_eq!(fs.attr(&file).unwrap().sectors, 0);
        })
        .unwrap();
}

#[test]
fn a_number_of_entries_that_cannot_be_is_no_end() {
    let ino = 1;
    let image = forged(|image| image.edit_inode(ino, |slot| slot.size = u64::MAX.into()));
    image
        .open_and(|fs| {
            let root = fs.root().unwrap();
            let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
            let made = fs.create(&root, b"new", &new).unwrap();
            assert_eq!(fs.lookup(&root, b"new").unwrap().ino(), made.ino());
        })
        .unwrap();
}
