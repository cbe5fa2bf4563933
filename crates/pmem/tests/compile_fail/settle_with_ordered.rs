//! Metadata goes to the medium when its records are ordered, which on the page domain is not enough.

use lodefs_pmem::{DirtyRanges, Medium};

fn checkpoint(medium: &Medium, dirty: DirtyRanges) {
    let ordered = medium.fence(Medium::nothing_flushed()).unwrap();
    let _settled = medium.settle(medium.stage(dirty), &ordered);
}

fn main() {}
