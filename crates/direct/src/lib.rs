//! Direct access to the files of a mounted volume, for programs.
//!
//! | module | question |
//! |---|---|
//! | [`dax`] | is this file direct, why, and who keeps it so? |
//! | [`map`], [`map_at`] | how is a file mapped? ([`Mapping`] says what can be done with it then.) |
//! | [`census`] | what has this process mapped? |
//! | [`File`] | how is a file read and written without a system call? |
//! | [`Access`] | what of that needs no kernel? |
//! | `identity` | is a descriptor still the file that it was? |
//! | `data` | what of a file's content may this process read and write by itself? |
//! | `view` | how does it reach the bytes of the medium for that? |
//! | `attachment` | which servers is this process attached to? |
//! | `link` | how does it talk to one? |
//! | [`Origin`] | which file does a mapping belong to, when no descriptor of it is open? |
//! | `ticket` | how does it prove its right to a file? |

#![deny(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../../../docs/ATTACHING.md")]
struct Attaching;

mod attachment;
mod data;
pub mod dax;
mod file;
mod identity;
mod link;
mod mapping;
mod origin;
mod shared;
mod ticket;
mod view;

use lodefs_mmap::window;
use lodefs_proto::server;

pub use attachment::Place;
pub use file::{Access, File};
pub use lodefs_mapping::{
    Inside, Threads, Uncancelled, descriptor_table, enter, is_own_descriptor, own_descriptors, replace,
    spawn_own, uncancelled,
};
pub use lodefs_mmap::{MapOptions, Mapping, MappingKind, census, maps, pages};
pub use lodefs_pmem::Domain;
pub use lodefs_proto::dax::EFFECT_ATTRIBUTE;
pub use lodefs_proto::run;
pub use lodefs_proto::ticket::TELLS_WHEN_CLOSED;
pub use mapping::{map, map_at};
pub use origin::Origin;

/// What the server says of the medium.
fn domain_of(domain: server::Domain) -> Domain {
    match domain {
        server::Domain::CpuCache => Domain::CpuCache,
        server::Domain::MemoryController => Domain::MemoryController,
        server::Domain::Volatile => Domain::Volatile,
    }
}
