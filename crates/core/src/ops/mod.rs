//! The operations of the file system, as methods of [`crate::Fs`].

pub(crate) mod ancestry;
pub(crate) mod attr;
mod copy;
mod create;
pub(crate) mod fault;
pub(crate) mod flags;
mod last_block;
pub(crate) mod locked;
mod lookup;
mod read;
mod reclaim;
mod remove;
mod rename;
mod space;
pub(crate) mod tail;
mod truncate;
pub(crate) mod write;
pub(crate) mod xattr;
