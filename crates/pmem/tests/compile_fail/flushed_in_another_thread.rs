//! A fence orders only the stores of its own thread.

use lodefs_pmem::Medium;

fn order(medium: &Medium) {
    let flushed = medium.write(0, b"journal record").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(medium.fence(flushed)));
    });
}

fn main() {}
