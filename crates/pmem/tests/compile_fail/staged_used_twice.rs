//! What was staged is settled again, over whatever has changed since.

use lodefs_pmem::{Durable, Medium, Staged};

fn checkpoint(medium: &Medium, staged: Staged, durable: &Durable) {
    let _first = medium.settle(staged, durable);
    let _second = medium.settle(staged, durable);
}

fn main() {}
