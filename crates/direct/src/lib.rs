//! Direct access to the files of a mounted volume, for programs.
//!
//! | module | question |
//! |---|---|
//! | [`dax`] | is this file direct, why, and who keeps it so? |
//! | [`Mapping`] | how is a file mapped, and what is stored to it made durable? |
//! | `attachment` | which servers is this process attached to? |
//! | `link` | how does it talk to one? |
//! | `ticket` | how does it prove its right to a file? |
//! | `window` | how much of a hole should one touch decide? |

#![deny(missing_docs)]

mod attachment;
pub mod dax;
mod link;
mod mapping;
mod ticket;
mod window;

pub use mapping::{MapOptions, Mapping, MappingKind};
