//! Metadata is changed before the record that explains it was fenced.

use lodefs_pmem::Medium;

fn change(medium: &Medium) {
    let record = medium.write(0, b"journal record").unwrap();
    let _dirty = medium.store_meta(64, b"metadata", &record);
}

fn main() {}
