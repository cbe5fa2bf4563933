//! lodefs
fn main() {}
