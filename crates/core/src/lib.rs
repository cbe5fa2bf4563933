//! The engine of lodefs.

pub mod alloc;
