//! The medium under a lodefs volume.
//!
//! This crate is the only place of lodefs that maps memory, stores durably, flushes and fences. Everything above
//! it names bytes by their offset in the volume and never sees a pointer.
//!
//! A [`Medium`] is one mapped volume. What it takes to make a store survive a power failure is its [`Domain`],
//! which is probed, reported ([`DomainReport`]) and hidden behind one protocol for all kinds of media:
//!
//! 1. Fresh bytes (file data, new blocks, journal records) go out with [`Medium::write`] and [`Medium::zero`] and
//!    come back as [`Flushed`]; [`Medium::fence`] turns that into [`Ordered`].
//! 2. Only whoever has an [`Ordered`] can change metadata in place, with [`Medium::store_meta`]: the record that
//!    explains the change has been ordered before it. What was changed is [`Dirty`].
//! 3. A checkpoint takes the [`DirtyRanges`] home: [`Medium::stage`], [`Medium::settle`], [`Medium::release`].
//!    Settling needs a [`Durable`], the evidence that the records survive a power failure.
//!
//! The evidence has no public constructor, so a step that is left out or made in the wrong order does not compile
//! (`tests/compile_fail`). Invariants that the types cannot see stand on the functions that rely on them.
//!
//! Bytes on the medium can be changed at any time by other processes. They are reached through raw pointers only
//! and copied; no reference into a mapping is ever made. `unsafe` lives in `mapping`, `span`, `word`, `flush`, `persist`, `ofd` and `guard`.

#![deny(unsafe_code)]

mod create;
mod detect;
mod domain;
mod error;
mod evidence;
#[allow(unsafe_code)]
mod flush;
#[allow(unsafe_code)]
mod guard;
mod host;
mod lock;
mod losses;
#[allow(unsafe_code)]
mod mapping;
mod medium;
#[allow(unsafe_code)]
mod ofd;
mod open;
mod overlay;
mod page_set;
#[allow(unsafe_code)]
mod persist;
mod place;
mod recording;
#[allow(unsafe_code)]
mod span;
mod store;
#[allow(unsafe_code)]
mod word;

pub use create::{NewFile, Reserve, create_file};
pub use domain::{Domain, DomainReport, MediumKind, UnknownDomain};
pub use error::MediumError;
pub use evidence::{Dirty, DirtyRanges, Durable, Flushed, Ordered, Settled, Staged};
pub use mapping::open_unlocked;
pub use medium::Medium;
pub use open::{Access, FORCE_DOMAIN_VARIABLE, OpenOptions};
pub use persist::{Persist, PersistError};
pub use recording::{Event, Recording, What};
pub use word::Word;
