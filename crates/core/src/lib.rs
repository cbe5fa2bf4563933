//! The lodefs engine: a complete POSIX file system on a byte-addressable volume.
//!
//! It knows nothing of FUSE, sockets or processes. All persistence goes through [`lodefs_pmem`]; all that is stored is
//! declared in [`lodefs_layout`]. `ARCHITECTURE.md` is the map, `docs/SEMANTICS.md` the promises.
//!
//! An [`Fs`] is an open volume, shared by threads; a [`Node`] is a reference to one of its inodes.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod access;
mod acl;
mod alloc;
mod bitmap;
mod blob;
pub mod changes;
mod clock;
mod committer;
mod dir;
mod error;
mod extents;
mod format;
mod fs;
pub mod fsck;
mod inode;
mod journal;
mod lease;
mod lost;
mod ops;
mod recovery;
mod tx;
mod types;
mod volume;
mod xattr_set;

pub use access::{Asker, DaxPolicy, DaxReason, DaxStatus, Effect, Hold, Holder, HolderKind, Switch};
pub use clock::Clock;
pub use error::{Error, Result};
pub use format::{FormatOptions, NewNames, NewVolume};
pub use fs::{Fs, MemoryUse, OpenOptions, RecoveryReport};
pub use inode::Node;
pub use lease::{
    Answer, DataAnswer, DataGrant, DataLease, DataRight, Grant, Lease, LeaseOptions, Lessee, Part, Recall,
    TailGrant, Touch, Touched, What,
};
pub use ops::fault::PARTS_MAX;
pub use types::*;
pub use volume::VolumeInfo;
