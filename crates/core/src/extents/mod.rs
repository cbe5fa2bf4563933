//! Which blocks hold which part of a file.
//!
//! [`map`] is the sorted view in memory, [`store`] the slots on the volume that it mirrors.

pub(crate) mod map;
pub(crate) mod store;

pub(crate) use map::{Extent, ExtentMap};
