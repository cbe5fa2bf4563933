//! Direct access to the files of a mounted volume, for programs.
//!
//! | module | question |
//! |---|---|
//! | [`dax`] | is this file direct, why, and who keeps it so? |
//! | [`map`] | how is a file mapped? ([`Mapping`] says what can be done with it then.) |
//! | `attachment` | which servers is this process attached to? |
//! | `link` | how does it talk to one? |
//! | `origin` | which file does a mapping belong to, when no descriptor of it is open? |
//! | `ticket` | how does it prove its right to a file? |

#![deny(missing_docs)]

mod attachment;
pub mod dax;
mod link;
mod mapping;
mod origin;
mod ticket;

use lodefs_mmap::window;

pub use lodefs_mmap::{MapOptions, Mapping, MappingKind};
pub use mapping::map;
