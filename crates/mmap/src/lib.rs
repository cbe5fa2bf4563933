//! How does a program use a part of a file in memory?
//!
//! A [`Mapping`] is the same for all programs, however they come to the file: attached to a mount (`lodefs-direct`), or having opened
//! the volume by themselves (`lodefs`). These two crates make mappings; this one says what can be done with them.
//!
//! | module | question |
//! |---|---|
//! | [`Mapping`] | what is a part of a file in memory, and how is what is stored to it made durable? |
//! | [`buffers`] | is a buffer of the caller's a mapping? |
//! | [`window`] | how much of a hole should one touch decide? |

#![deny(missing_docs)]

pub mod buffers;
mod mapping;
pub mod window;

pub use mapping::{MapOptions, Mapping, MappingKind, Source};
