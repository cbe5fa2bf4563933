//! Evidence is multiplied.

use lodefs_pmem::{Durable, Flushed, Ordered};

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<Flushed>();
    is_clone::<Ordered>();
    is_clone::<Durable>();
}
