//! How does a program use a part of a file in memory?
//!
//! A [`Mapping`] is the same for all programs, however they come to the file: attached to a mount (`lodefs-direct`), or having opened
//! the volume by themselves (`lodefs`). These two crates make mappings; this one says what can be done with them.
//!
//! | module | question |
//! |---|---|
//! | [`Mapping`] | what is a part of a file in memory, and how is what is stored to it made durable? |
//! | [`census`] | what is mapped in this process, at one moment? |
//! | [`pages`] | with what pages has the kernel mapped a range? |
//! | `registry` | which addresses are mappings, and of what? |
//! | `outline` | are there mappings at these addresses? Said without a lock. |
//! | `teller` | how do others learn that? |
//! | [`buffers`] | is a buffer of the caller's a mapping? |
//! | [`window`] | how much of a hole should one touch decide? |

#![deny(missing_docs)]

pub mod buffers;
mod census;
mod mapping;
mod outline;
pub mod pages;
mod registry;
mod teller;
pub mod window;

pub use lodefs_proto::maps;

pub use census::census;
pub use mapping::{MapOptions, Mapping, MappingKind, Source};
pub use registry::{Named, Subject, tell_in_child};
