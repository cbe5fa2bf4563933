//! Hostile images: volumes whose bytes somebody has chosen.
//!
//! An image is untrusted input: whatever its bytes, opening, checking and repairing it ends, in a volume or in an error.
//! [`Target`] is what is done with such an image, and what must hold then. The same code is run by a fuzzer, which
//! chooses the bytes by what they make the engine do (`fuzz/`, `cargo xtask fuzz`), and with random bytes by
//! `cargo test`.
//!
//! What programs and servers say to each other is untrusted as well: one target takes the input for that (`messages`).
//!
//! A case begins with a real volume ([`bases`]). The input says which, and what is changed on it: fields of the
//! structures that are there ([`atlas`]), or any bytes (`edit`); in place, or by a journal record that recovery
//! stores (`forge`). Then the checksums are made right (`seal`), unless the input says otherwise, because otherwise few
//! cases would get any further than to the first checksum.

pub mod atlas;
pub mod bases;
mod choices;
mod decode;
mod edit;
pub mod exercise;
mod forge;
pub mod image;
pub mod memory;
mod messages;
pub mod sample;
mod seal;
mod site;
mod structure;
mod survival;
mod target;

pub use target::Target;
