//! The allocation bitmap between two mounts: saved at a clean close, read at the next open.

use lodefs_layout::saved_bitmap::{BitmapBlock, WORDS};
use lodefs_pmem::{Durable, Medium};
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::alloc::{BlockAllocator, Builder, Run};
use crate::error::{Error, Result};
use crate::tx::offset_of;
use crate::volume::Volume;

/// Blocks kept back so that deleting always finds the few it needs: 1/512 of the volume, 8 to 1024 blocks.
pub(crate) fn reserve_blocks(volume: &Volume) -> u64 {
    ((volume.shape.data_end - volume.shape.data_start) / 512).clamp(8, 1024)
}

/// An allocator builder in which everything is free but the fixed regions.
pub(crate) fn empty_builder(volume: &Volume) -> Builder {
    let shape = &volume.shape;
    let mut builder = Builder::new(shape.total_blocks);
    for run in [
        Run { start: 0, blocks: shape.data_start },
        Run { start: shape.data_end, blocks: shape.total_blocks - shape.data_end },
    ] {
        builder.mark_used(run).expect("the fixed regions do not overlap");
    }
    builder
}

/// Reads the bitmap that was saved with state update `update`; `None` if any block of it is damaged or older.
pub(crate) fn load(volume: &Volume, update: u64) -> Result<Option<BlockAllocator>> {
    let mut words = Vec::with_capacity((volume.shape.bitmap_blocks as usize) * WORDS);
    for index in 0..volume.shape.bitmap_blocks {
        let mut block = BitmapBlock::new_box_zeroed().expect("4 KiB of memory");
        volume.medium.read(offset_of(volume.shape.bitmap_start + index), block.as_mut_bytes())?;
        if !block.is_valid(index, update, volume.seed) {
            return Ok(None);
        }
        words.extend(block.words.iter().map(|word| word.get()));
    }
    words.truncate(volume.shape.total_blocks.div_ceil(64) as usize);
    let fixed_regions_used = |block: u64| words[(block / 64) as usize] >> (block % 64) & 1 == 1;
    let fixed = (0..volume.shape.data_start).chain(volume.shape.data_end..volume.shape.total_blocks);
    for block in fixed {
        if !fixed_regions_used(block) {
            return Err(Error::Corrupt {
                object: "saved bitmap".into(),
                fault: "a fixed region is marked free",
            });
        }
    }
    let builder = Builder::from_words(volume.shape.total_blocks, words.into_iter())
        .map_err(|_| Error::Corrupt { object: "saved bitmap".into(), fault: "it is too short" })?;
    Ok(Some(builder.finish(reserve_blocks(volume))))
}

/// Saves the bitmap, to be believed with state update `update`.
pub(crate) fn save(volume: &Volume, blocks: &BlockAllocator, update: u64) -> Result<Durable> {
    let all = blocks.words();
    let mut flushed = Medium::nothing_flushed();
    for index in 0..volume.shape.bitmap_blocks {
        let mut words = [U64::ZERO; WORDS];
        let from = all.iter().skip(index as usize * WORDS);
        for (word, bits) in words.iter_mut().zip(from) {
            *word = U64::new(*bits);
        }
        let block = BitmapBlock::new(index, update, words, volume.seed);
        let place = offset_of(volume.shape.bitmap_start + index);
        flushed = flushed.and(volume.medium.write(place, block.as_bytes())?);
    }
    Ok(volume.medium.sync(flushed)?)
}
