//! The protocol of direct mappings, small enough that all of its states can be looked at.
//!
//! One file of one page; two programs that map it, of which one may be stopped or die at any moment; a server that gives out
//! leases, recalls them, allocates, truncates, and switches the file between direct and buffered; and somebody who reads and
//! writes through the mount. [`Protocol`] says who may do what when, [`Variant`] how it has been done wrong, and the properties
//! in [`invariants`] what must be true in every state:
//!
//! | | |
//! |---|---|
//! | one copy | while the file is direct nothing of it is in a cache, and while it is buffered nobody has mapped the medium |
//! | the block that counts | who has mapped a block has mapped the one that the file has, unless a recall is on its way to him |
//! | no stale zeroes | who has mapped zeroes for a hole has no block to miss, unless he was stopped when it was allocated |
//! | nobody else's block | a block that somebody may still reach is not given to another file |
//! | what was written is read | a read gives what was written last, by whichever way |
//! | a synchronous mapping stays | what was mapped with `MAP_SYNC` is never replaced by anything weaker |
//!
//! [`data`] is the same for programs that read, write and append by themselves, with no mapping.
//!
//! `cargo test -p lodefs-model` looks at all states, and shows for each variant a way to a state that is wrong.

#![forbid(unsafe_code)]

mod client;
pub mod data;
pub mod invariants;
mod protocol;
mod server;
mod state;

pub use client::{Client, Grant, Life, Mapping, Page, ToClient};
pub use protocol::{Action, Protocol, Variant};
pub use server::{Change, Effect, Owner};
pub use state::State;
