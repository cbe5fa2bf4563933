//! What can go wrong with a medium. Every message names the object, the fault and the remedy.

use std::io;
use std::path::PathBuf;

use crate::domain::{Domain, MediumKind, UnknownDomain};

/// What went wrong with a medium.
///
/// `name` is the path of the medium, or `anonymous memory`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediumError {
    /// There is nothing at the path.
    #[error("{path}: there is no such file, device or directory; check the path, or create the volume first", path = .path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// The host does not let this process open it.
    #[error("{path}: not permitted; run as a user who may open it (a user's mount is closed to root unless mounted with allow_root)", path = .path.display())]
    Permission {
        /// What was to be opened.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// Another process (or another [`Medium`](crate::Medium) of this one) has it.
    #[error("{path}: in use; unmount the volume or end the program that has it open, then try again", path = .path.display())]
    InUse {
        /// What is in use.
        path: PathBuf,
    },
    /// A directory, pipe or other thing that holds no bytes to map.
    #[error("{path}: {found} cannot hold a volume; give a regular file, a block device or a /dev/dax device", path = .path.display())]
    NotAMedium {
        /// What was to be opened.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// It has no bytes at all.
    #[error("{path}: empty; give it a size first (lodefs mkfs --size)", path = .path.display())]
    Empty {
        /// What is empty.
        path: PathBuf,
    },
    /// A file that was to be created holds something already.
    #[error("{path}: has content already; choose another path, or remove the file if it is not needed", path = .path.display())]
    NotEmpty {
        /// The file with content.
        path: PathBuf,
    },
    /// The host has no room for a file of this size.
    #[error("{path}: the host has no room for {size} bytes; free some, or create it smaller or sparse", path = .path.display())]
    NoSpace {
        /// The file that was to be created.
        path: PathBuf,
        /// The size it was to have, in bytes.
        size: u64,
        /// What the host answered.
        source: io::Error,
    },
    /// The host's file system has no files of this size.
    #[error("{path}: the file system there cannot hold a file of {size} bytes; create it smaller, or elsewhere", path = .path.display())]
    TooLarge {
        /// The file that was to be created.
        path: PathBuf,
        /// The size it was to have, in bytes.
        size: u64,
    },
    /// `LODEFS_FORCE_DOMAIN` holds something else than the name of a domain.
    #[error("LODEFS_FORCE_DOMAIN: {0}")]
    BadForcedDomain(#[from] UnknownDomain),
    /// The forced domain promises what this medium or this processor cannot do.
    #[error("{name}: cannot be treated as {domain}: {reason}; take back LODEFS_FORCE_DOMAIN", name = .name)]
    ForcedDomainImpossible {
        /// The medium.
        name: String,
        /// The domain that was demanded.
        domain: Domain,
        /// What stands in the way.
        reason: &'static str,
    },
    /// Pages of the host are not of the size that the volume's metadata is divided into.
    #[error(
        "{name}: this host's pages have {page_size} bytes, a volume on a {kind} needs 4096; use another host or a DAX medium"
    )]
    HostPageSize {
        /// The medium.
        name: String,
        /// What the volume lies on.
        kind: MediumKind,
        /// Bytes in a page of the host.
        page_size: usize,
    },
    /// An access beyond the end of the medium.
    #[error(
        "{name}: {size} bytes at {at} lie beyond its end at {end}; the volume is damaged or truncated, run lodefs fsck"
    )]
    OutOfRange {
        /// The medium.
        name: String,
        /// First byte asked for.
        at: u64,
        /// Bytes asked for.
        size: u64,
        /// Bytes in the medium.
        end: u64,
    },
    /// Fresh bytes were to go where changed metadata is that has not reached the medium.
    #[error(
        "{name}: {size} bytes at {at} are to be overwritten, but hold metadata in use; the volume is damaged, run lodefs fsck"
    )]
    UnderMetadata {
        /// The medium.
        name: String,
        /// First byte to be written.
        at: u64,
        /// Bytes to be written.
        size: u64,
    },
    /// A change to a medium that was opened read-only.
    #[error("{name}: opened read-only; open it for writing to change it")]
    ReadOnly {
        /// The medium.
        name: String,
    },
    /// The file became shorter while it was mapped.
    #[error(
        "{name}: was cut from {mapped} to {found} bytes while in use; unmount it, restore the missing part, then run lodefs fsck"
    )]
    TruncatedWhileMapped {
        /// The medium.
        name: String,
        /// Bytes mapped.
        mapped: u64,
        /// Bytes left.
        found: u64,
    },
    /// A page that was stored to for the first time found no room on the host.
    #[error(
        "{name}: the host has no room left for it; free some there, then unmount the volume and mount it again"
    )]
    HostFull {
        /// The medium.
        name: String,
    },
    /// The host's memory failed below a page of it.
    #[error(
        "{name}: the host's memory failed; see the host's log (dmesg), and restart the host before the volume"
    )]
    MemoryFailed {
        /// The medium.
        name: String,
    },
    /// The host could not provide a page of it.
    #[error(
        "{name}: the host could not provide a page of it, for lack of room or because its device failed; see the host's log \
         (dmesg), then unmount the volume and mount it again"
    )]
    PageLost {
        /// The medium.
        name: String,
    },
    /// An earlier write-back to the medium failed, so what is on it is unknown.
    #[error("{name}: an earlier write to it failed; unmount, look after the device, then mount again")]
    Failed {
        /// The medium.
        name: String,
    },
    /// The host could not do something.
    #[error("{name}: could not {action}: {source}; see the host's log (dmesg)")]
    Io {
        /// The medium.
        name: String,
        /// What was to be done, as a verb phrase.
        action: &'static str,
        /// What the host answered.
        source: io::Error,
    },
}
