//! What a clean close saves.

use lodefs_core::fsck::{Code, Object};
use lodefs_layout::BLOCK_SIZE;

use crate::sample::{SAMPLE, SIZE};
use crate::seeded::Seeded;

#[test]
fn bitmap_damaged() {
    Seeded::new(|image, _| image.flip(image.superblock().saved_bitmap.start.get() * BLOCK_SIZE + 500))
        .finds(Code::BitmapDamaged, Object::SavedBitmap)
        .verify();
}

#[test]
fn bitmap_free_in_use() {
    let start = SAMPLE.image.first_extent(SAMPLE.ino("/plain")).1.physical.get();
    let seeded = Seeded::new(|image, _| {
        for block in start..start + 3 {
            image.flip_saved(block);
        }
        image.edit_state(|state| state.free_blocks = (state.free_blocks.get() + 3).into());
    });
    seeded.finds(Code::BitmapFreeInUse, Object::Blocks { start, count: 3 }).verify();
    // A fixed region.
    let seeded = Seeded::new(|image, _| {
        image.flip_saved(0);
        image.edit_state(|state| state.free_blocks = (state.free_blocks.get() + 1).into());
    });
    seeded.finds(Code::BitmapFreeInUse, Object::Blocks { start: 0, count: 1 }).verify();
}

#[test]
fn bitmap_used_free() {
    let start = SIZE / BLOCK_SIZE - 70;
    let seeded = Seeded::new(|image, _| {
        for block in start..start + 66 {
            image.flip_saved(block);
        }
        image.edit_state(|state| state.free_blocks = (state.free_blocks.get() - 66).into());
    });
    seeded.finds(Code::BitmapUsedFree, Object::Blocks { start, count: 66 }).verify();
}

#[test]
fn counter_wrong() {
    Seeded::new(|image, _| image.edit_state(|state| state.free_blocks = 1.into()))
        .finds(Code::CounterWrong, Object::Counter("free blocks"))
        .verify();
    Seeded::new(|image, _| image.edit_state(|state| state.used_inodes = 1.into()))
        .finds(Code::CounterWrong, Object::Counter("inodes in use"))
        .verify();
    Seeded::new(|image, _| image.edit_state(|state| state.inode_chunk_hint = 1000.into()))
        .finds(Code::CounterWrong, Object::Counter("the inode chunk to use next"))
        .verify();
}
