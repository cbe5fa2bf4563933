//! What the other cases get wrong, done right.

use lodefs_pmem::{DirtyRanges, Domain, Medium, MediumError};

fn main() -> Result<(), MediumError> {
    let medium = Medium::anonymous(8192, Domain::MemoryController)?;
    let block = medium.write(4096, b"fresh block")?;
    let record = medium.write(0, b"journal record")?;
    let ordered = medium.fence(block.and(record))?;
    let mut dirty = DirtyRanges::default();
    dirty.push(medium.store_meta(64, b"metadata", &ordered)?);
    let durable = medium.sync(Medium::nothing_flushed())?;
    let staged = medium.stage(dirty);
    let (settled, _durable) = medium.settle(staged, &durable)?;
    medium.release(settled, &DirtyRanges::default());
    Ok(())
}
