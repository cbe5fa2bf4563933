//! Evidence is asked for where no step was made.

use lodefs_pmem::{Dirty, Durable, Flushed, Ordered};

fn main() {
    let _flushed = Flushed::new();
    let _ordered = Ordered::new();
    let _durable = Durable::default();
    let _dirty = Dirty::covering(0, 64);
}
