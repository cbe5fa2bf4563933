//! lodefs mounted: the engine behind the kernel's FUSE interface.
//!
//! This crate translates and nothing else. A request of the kernel becomes a call of [`lodefs_core::Fs`], its result
//! a reply; what an operation *means* is decided in the engine, which is tested without a mount. It is the only
//! crate that names the FUSE library.
//!
//! | module | question |
//! |---|---|
//! | `adapter`, `served` | which engine calls answer which request? |
//! | `answer` | what does the caller see when the engine refuses, fails or panics? |
//! | `convert`, `ioctl` | how do the kernel's words map to the engine's? |
//! | `caller` | what may the process behind a request do? |
//! | `table` | which inodes does the kernel hold? |
//! | `stale` | which cached pages does a direct write make stale, and who drops them? |
//! | `handles` | which files are open, and does that keep them direct or buffered? |
//! | `negotiate` | which of the kernel's features are used, and why? |
//! | `attach`, `fusermount` | how does the file system get into the tree of names? |
//! | `mountinfo` | what is mounted where? |
//! | `session` | how is it served, and how does it end? |
//! | `null_server` | how fast is a mount that does nothing? |
//!
//! # What the kernel may rely on
//! - Every change to the volume passes through this mount, so names and attributes never expire in the kernel's
//!   caches ([`negotiate`]). The engine notes each attribute that a request changes. The adapter tells the kernel of
//!   all that the kernel does not expect, before it answers.
//! - The kernel checks permissions (`default_permissions`, POSIX ACLs), and serialises changes of one directory and
//!   writes to one file. The engine relies on neither of the latter.
//! - `O_APPEND` of a buffered file is resolved by the kernel: it knows the size, because all writes pass through it, and it
//!   has put the bytes into its page cache at that offset before the request is made. Appending anywhere else would make
//!   the cache lie. To a direct file programs append by themselves, too, so there the engine finds the end.
//!
//! # What FUSE cannot carry
//! - `O_TMPFILE`, `statx` (birth time, attributes) and `syncfs` do not reach a server of this library: the first
//!   answers EOPNOTSUPP, the second has no birth time, the third writes back the page cache and returns.
//! - An immutable file cannot be opened for writing, but `access(2)` does not know.

mod adapter;
mod answer;
mod attach;
mod caller;
mod convert;
mod fusermount;
mod handles;
mod ioctl;
pub mod mountinfo;
pub mod negotiate;
mod null_server;
mod options;
mod served;
mod session;
mod stale;
mod table;

pub use attach::{MountError, remount, resolve_target, unmount};
pub use null_server::{NullSession, mount_null};
pub use options::{Allow, MountOptions, Report};
pub use session::{Session, Unmounter, mount};

/// The file system type that `/proc/mounts` shows.
pub const FILE_SYSTEM_TYPE: &str = "fuse.lodefs";

/// Name of the extended attribute of the root directory that holds [`MountOptions::report`].
///
/// It is answered by the server, not stored, and not listed.
pub const REPORT_ATTRIBUTE: &str = "system.lodefs.report";
