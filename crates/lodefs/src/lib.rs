//! A file system on byte-addressable memory, inside a program.
//!
//! lodefs keeps a volume in persistent memory, or in a file that stands in for it. A volume is usually mounted; this
//! crate is for a program that opens one by itself, exclusively, with no daemon, no mount and no system calls on the
//! way: a database, a queue, a cache that has to be there after a crash. It is the same volume, with the same engine:
//! what a program leaves can be mounted, and the other way round.
//!
//! ```
//! use lodefs::{File, Volume};
//!
//! # fn main() -> std::io::Result<()> {
//! # let scratch = tempfile::tempdir()?;
//! # let path = scratch.path().join("data.vol");
//! let volume = Volume::create(&path, 64 << 20)?;
//! volume.create_dir_all("queue/new")?;
//!
//! let file = File::create(&volume, "queue/new/1")?;
//! file.append(b"first message")?;
//! volume.rename("queue/new/1", "queue/1")?;
//!
//! for entry in volume.read_dir("queue")? {
//!     println!("{}", entry?.path().display());
//! }
//! volume.close()
//! # }
//! ```
//!
//! # Finding the way
//! The interface is that of [`std::fs`], with the functions as methods of [`Dir`]; a [`Volume`] stands for its root
//! directory. A [`File`] has no position, which [`FileCursor`] adds, and can be mapped ([`File::map`]). Errors are [`std::io::Error`]s with the errno of
//! the system call ([`errno`]), or with an [`Error`] inside that says more ([`engine_error`]). Offsets and sizes are in
//! bytes, unless a name or a sentence says otherwise. Names are any bytes but `/` and NUL, at most 255; files have at
//! most 2^63-1 bytes.
//!
//! Everything can be used by several threads at once; operations on different files do not wait for each other.
//!
//! # What is durable when
//! Every change of names, sizes or attributes is *atomic*: after a crash of the program or a failure of the power it
//! has happened or not, and which of them are there is a state that existed. When it is *durable* depends on the medium,
//! which is probed when the volume is opened and told by [`Volume::domain`]:
//!
//! | domain | what it is | durable |
//! |---|---|---|
//! | [`CpuCache`](Domain::CpuCache), [`MemoryController`](Domain::MemoryController) | persistent memory | when the call returns: data and metadata, without any sync |
//! | [`Page`](Domain::Page) | an ordinary file | after [`File::sync_all`], [`Volume::sync`] or [`Volume::close`], and at the latest after the [commit interval](VolumeOptions::commit_interval). Until then the volume is, after a power failure, as of the last time |
//! | [`Volatile`](Domain::Volatile) | tmpfs, memory | never: it is lost with the power |
//!
//! On each of them, *whatever has returned survives the program*: after `kill -9` the next open finds it, synced or not.
//!
//! Data is written in place: a crash in the middle of an overwrite leaves a part of the old and a part of the new,
//! divided at a multiple of 8 bytes. Data that makes a file longer is there as a whole or not at all, in pieces that end
//! at multiples of 8 MiB. To replace a file as a whole, write another and rename it (example `checkpoint`).
//!
//! # Who may do what
//! A program that opens a volume has all of the medium in its hands, so permissions are not checked. [`Credentials`] say
//! who owns new files, which matters when the volume is mounted. The flags `IMMUTABLE` and `APPEND` are enforced.
//!
//! A volume is open for writing once: a second [`Volume::open`], or a mount, is refused with `ResourceBusy`. Do not
//! fork a process that has one open and use it in both: a child has no mappings either (their addresses stay reserved, and
//! an access raises SIGSEGV).

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod attributes;
mod cursor;
mod dir;
mod error;
mod file;
mod mapped;
mod metadata;
mod names;
mod open_options;
mod pager;
mod path;
mod read_dir;
mod shared;
mod volume;
mod volume_options;
mod walk;

pub use cursor::FileCursor;
pub use dir::Dir;
pub use error::{Error, engine_error, errno};
pub use file::File;
pub use lodefs_core::{
    Flags, Kind, MemoryUse, NewKind, RecoveryReport, RenameMode, SpaceUse, VolumeInfo, XattrMode,
};
pub use lodefs_mmap::{MapOptions, Mapping, MappingKind, census, maps};
pub use lodefs_pmem::{Domain, DomainReport, MediumError, MediumKind};
pub use metadata::{FileTimes, FileType, Metadata};
pub use names::DirBuilder;
pub use open_options::OpenOptions;
pub use read_dir::{DirEntry, ReadDir};
pub use shared::Credentials;
pub use volume::Volume;
pub use volume_options::VolumeOptions;
pub use walk::{Walk, WalkEntry};

/// Runs the code in the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/EMBEDDING.md")]
struct Guide;
