//! Metadata is changed with no record that explains it.

use lodefs_pmem::Medium;

fn change(medium: &Medium) {
    let _dirty = medium.store_meta(64, b"metadata");
}

fn main() {}
