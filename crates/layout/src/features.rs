//! Feature flags: what a reader must know to use a volume.
//!
//! Three sets, as in ext4. An unknown *compatible* feature is ignored; with an unknown *read-only* feature a
//! volume may be read but not written; with an unknown *incompatible* feature it may not be opened at all.

/// Compatible features that this version knows.
pub const KNOWN_COMPAT: u64 = 0;
/// Read-only-compatible features that this version knows.
pub const KNOWN_RO_COMPAT: u64 = 0;
/// Incompatible features that this version knows.
pub const KNOWN_INCOMPAT: u64 = KEYED_NAMES;

/// The names of directories are hashed with a secret key, which is in the superblock ([`crate::names`]). An engine that
/// does not know the feature would look for names in the wrong places, find none of them and add them again.
pub const KEYED_NAMES: u64 = 1;

/// The version of the format that this crate writes.
pub const FORMAT_VERSION: u32 = 1;
