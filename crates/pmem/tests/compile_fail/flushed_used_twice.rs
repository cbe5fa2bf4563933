//! One write stands for two.

use lodefs_pmem::Medium;

fn order(medium: &Medium) {
    let flushed = medium.write(0, b"journal record").unwrap();
    let _first = medium.fence(flushed);
    let _second = medium.fence(flushed);
}

fn main() {}
