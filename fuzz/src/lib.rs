//! What all fuzzers have in common: memory is counted, and the code is that of `lodefs_testkit::hostile`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

use lodefs_testkit::hostile::Target;
use lodefs_testkit::hostile::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does one case.
pub fn run(target: Target, data: &[u8]) {
    target.run(data);
}
