//! Metadata goes to the medium with no regard to its records.

use lodefs_pmem::{DirtyRanges, Medium};

fn checkpoint(medium: &Medium, dirty: DirtyRanges) {
    let _settled = medium.settle(medium.stage(dirty));
}

fn main() {}
