//! Metadata is settled while it may still change.

use lodefs_pmem::{DirtyRanges, Durable, Medium};

fn checkpoint(medium: &Medium, dirty: DirtyRanges, durable: &Durable) {
    let _settled = medium.settle(dirty, durable);
}

fn main() {}
