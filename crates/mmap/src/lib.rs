//! How does a program use a part of a file in memory?
//!
//! A [`Mapping`] is the same for all programs, however they come to the file: attached to a mount (`lodefs-direct`), or having opened
//! the volume by themselves (`lodefs`). These two crates make mappings; this one says what can be done with them.
//!
//! | module | question |
//! |---|---|
//! | [`Mapping`] | what is a part of a file in memory, and how is what is stored to it made durable? |
//! | [`window`] | how much of a hole should one touch decide? |

#![deny(missing_docs)]

mod mapping;
pub mod window;

pub use mapping::{MapOptions, Mapping, MappingKind, Source};
