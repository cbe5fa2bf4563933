//! What programs and the server of a mounted volume say to each other, beyond what the kernel has words for.
//!
//! Whatever comes from the other side is untrusted: messages are plain numbers, of fixed size, in the byte order of the machine
//! (both sides run on one), and are parsed into types that hold what can be meant.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod attach;
pub mod dax;
pub mod maps;
pub mod run;
pub mod server;
pub mod ticket;

/// A message that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;
