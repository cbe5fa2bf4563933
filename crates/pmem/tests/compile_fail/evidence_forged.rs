//! Evidence is made up.

use lodefs_pmem::{Durable, Flushed, Ordered};

fn main() {
    let _ordered = Ordered { _private: () };
    let _durable = Durable { _private: () };
    let _flushed = Flushed { pending: true, _of_this_thread: std::marker::PhantomData };
}
