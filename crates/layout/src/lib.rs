//! The bytes of a lodefs volume.
//!
//! Every structure that is stored is declared here once, with its size and the absence of padding checked at
//! compile time, beside the checksum that guards it. This crate knows nothing of memory, files or locks: it
//! turns bytes into *parsed* structures and back. Whether a parsed structure makes sense on a given volume
//! (is the block inside it? does anybody else own it?) is decided by the engine.
//!
//! All integers are little-endian. Addresses of blocks are counted in units of [`BLOCK_SIZE`] from the start of
//! the volume. `docs/FORMAT.md` describes the same structures for readers of other languages.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod blob;
pub mod checksum;
pub mod directory;
pub mod extent;
pub mod features;
pub mod geometry;
pub mod inode;
pub mod inode_map;
pub mod journal;
pub mod names;
pub mod saved_bitmap;
pub mod state;
pub mod superblock;

/// Bytes in a block, the unit of allocation.
pub const BLOCK_SIZE: u64 = 4096;
/// Blocks in a chunk: the 2 MiB that one huge page maps.
pub const CHUNK_BLOCKS: u64 = 512;
/// Number of the root directory's inode.
pub const ROOT_INO: u64 = 1;
/// Longest file name, in bytes.
pub const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_MAX: usize = 4095;
/// Largest size of a file, in bytes.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;

const _: () = assert!(usize::BITS == 64, "lodefs maps whole volumes and needs 64-bit addresses");
