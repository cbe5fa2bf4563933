//! Opening media: files and devices, and memory for tests.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodefs_sync::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;

use crate::detect::{self, Probed};
use crate::domain::{Domain, DomainReport, MediumKind, UnknownDomain};
use crate::error::MediumError;
use crate::evidence::PAGE_SIZE;
use crate::flush::WriteBack;
use crate::host;
use crate::lock::LockedFile;
use crate::losses::Losses;
use crate::mapping::{Mapping, Request, Sharing};
use crate::medium::{Medium, Protocol, name_of};
use crate::overlay::Overlay;
use crate::recording::Recording;

/// Environment variable with the name of a [`Domain`] that a medium is to be treated as, whatever it is.
pub const FORCE_DOMAIN_VARIABLE: &str = "LODEFS_FORCE_DOMAIN";

/// What is to be done with a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Only read. Others may read it too.
    #[default]
    ReadOnly,
    /// Read and changed, by nobody else.
    ReadWrite,
}

/// How to open a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// What is to be done with it.
    pub access: Access,
    /// The domain to treat it as, before [`FORCE_DOMAIN_VARIABLE`] and before what it is.
    pub force_domain: Option<Domain>,
}

/// A medium that is about to be mapped.
struct Plan {
    file: LockedFile,
    path: Option<PathBuf>,
    size: u64,
    unit: usize,
    report: DomainReport,
    access: Access,
}

impl Medium {
    /// Opens, locks and maps the file or device at `path`.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, MediumError> {
        let forced = forced_by(*options)?;
        let mut file = open_file(path, options.access)?;
        if options.access == Access::ReadWrite {
            file = claim_block_device(path, file)?;
        }
        let probed = detect::probe(path, &file, options.access)?;
        let file = LockedFile::lock(path, file, options.access)?;
        plan(path, file, probed, forced, options.access).and_then(map)
    }

    /// Memory of this process that is treated as of the given domain, all zero: for tests.
    pub fn anonymous(size: u64, domain: Domain) -> Result<Self, MediumError> {
        in_memory(size, &[], domain, Access::ReadWrite)
    }

    /// A copy of `image` in memory, treated as of the given domain: for crash tests.
    pub fn from_image(image: &[u8], domain: Domain, access: Access) -> Result<Self, MediumError> {
        in_memory(image.len() as u64, image, domain, access)
    }

    /// Like [`anonymous`](Self::anonymous), with a log of everything done to the medium.
    pub fn recording(size: u64, domain: Domain) -> Result<(Self, Recording), MediumError> {
        Ok(recorded(Self::anonymous(size, domain)?, Recording::default()))
    }

    /// Like [`from_image`](Self::from_image), with a log of everything done to the medium after.
    pub fn recording_from_image(
        image: &[u8],
        domain: Domain,
        access: Access,
    ) -> Result<(Self, Recording), MediumError> {
        Ok(recorded(Self::from_image(image, domain, access)?, Recording::default()))
    }

    /// This medium with a log of everything that is done to it from now on, and of what is read of it.
    pub fn watched(self) -> (Self, Recording) {
        recorded(self, Recording::with_reads())
    }
}

/// Maps the file that will be at `path`, which was locked for writing.
pub(crate) fn open_made(path: &Path, file: LockedFile, options: OpenOptions) -> Result<Medium, MediumError> {
    let probed = detect::probe(path, &file, options.access)?;
    plan(path, file, probed, forced_by(options)?, options.access).and_then(map)
}

fn plan(
    path: &Path,
    file: LockedFile,
    Probed { facts, size, unit }: Probed,
    forced: Option<Domain>,
    access: Access,
) -> Result<Plan, MediumError> {
    if size == 0 {
        return Err(MediumError::Empty { path: path.to_path_buf() });
    }
    let (kind, detected, reason) = detect::decide(facts);
    let domain = forced.unwrap_or(detected);
    let report = DomainReport { domain, detected, forced: forced.is_some(), kind, reason };
    Ok(Plan { file, path: Some(path.to_path_buf()), size, unit, report, access })
}

fn recorded(mut medium: Medium, recording: Recording) -> (Medium, Recording) {
    medium.recording = Some(recording.clone());
    (medium, recording)
}

fn forced_by(options: OpenOptions) -> Result<Option<Domain>, MediumError> {
    options.force_domain.map_or_else(forced_by_environment, |domain| Ok(Some(domain)))
}

fn forced_by_environment() -> Result<Option<Domain>, MediumError> {
    let Some(value) = env::var_os(FORCE_DOMAIN_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    parse_forced(&value.to_string_lossy()).map(Some)
}

fn parse_forced(value: &str) -> Result<Domain, MediumError> {
    value.parse().map_err(|unknown: UnknownDomain| MediumError::BadForcedDomain(unknown))
}

fn open_file(path: &Path, access: Access) -> Result<File, MediumError> {
    // A pipe must not block; it is refused later.
    let common = OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match access {
        Access::ReadOnly => rustix::fs::open(path, OFlags::RDONLY | common, Mode::empty()),
        Access::ReadWrite => rustix::fs::open(path, OFlags::RDWR | common, Mode::empty()),
    };
    opened.map(File::from).map_err(|errno| open_error(path, errno))
}

/// Opens a block device once more, in the way that the host refuses while it is mounted or part of another device.
fn claim_block_device(path: &Path, file: File) -> Result<File, MediumError> {
    let io_error =
        |source| MediumError::Io { name: path.display().to_string(), action: "look at it", source };
    if !file.metadata().map_err(io_error)?.file_type().is_block_device() {
        return Ok(file);
    }
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(same, flags, Mode::empty()).map(File::from).map_err(|errno| open_error(path, errno))
}

/// The error for a path that the host would not open.
pub(crate) fn open_error(path: &Path, errno: Errno) -> MediumError {
    let path = path.to_path_buf();
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV => {
            MediumError::NotFound { path, source: errno.into() }
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => MediumError::Permission { path, source: errno.into() },
        Errno::BUSY | Errno::TXTBSY => MediumError::InUse { path },
        Errno::ISDIR => MediumError::NotAMedium { path, found: "a directory" },
        _ => MediumError::Io { name: path.display().to_string(), action: "open it", source: errno.into() },
    }
}

fn in_memory(size: u64, image: &[u8], domain: Domain, access: Access) -> Result<Medium, MediumError> {
    let error = |source: io::Error| MediumError::Io { name: name_of(None), action: "get memory", source };
    let file = File::from(memfd_create("lodefs", MemfdFlags::CLOEXEC).map_err(|errno| error(errno.into()))?);
    file.set_len(size).map_err(error)?;
    std::os::unix::fs::FileExt::write_all_at(&file, image, 0).map_err(error)?;
    let report = DomainReport {
        domain,
        detected: Domain::Volatile,
        forced: domain != Domain::Volatile,
        kind: MediumKind::Anonymous,
        reason: "memory of this process is lost with it".to_owned(),
    };
    let file = LockedFile::nameless(file);
    map(Plan { file, path: None, size, unit: rustix::param::page_size(), report, access })
}

/// Maps what was planned, and decides how stores become durable.
fn map(plan: Plan) -> Result<Medium, MediumError> {
    let Plan { file, path, size, unit, report, access } = plan;
    let name = name_of(path.as_deref());
    let protocol = protocol_for(&name, report.domain)?;
    let read_only = access == Access::ReadOnly;
    let io_error = |source| MediumError::Io { name: name.clone(), action: "map it", source };
    let size = usize::try_from(size).map_err(|_| io_error(io::ErrorKind::FileTooLarge.into()))?;
    let sharing = match report.kind {
        MediumKind::DeviceDax | MediumKind::FsDax => Sharing::Synchronous,
        _ => Sharing::Shared,
    };
    let losses = Losses::new(size.next_multiple_of(unit) as u64)
        .map_err(|_| io_error(io::ErrorKind::OutOfMemory.into()))?;
    let losses = Arc::new(losses);
    let new_mapping = |request| Mapping::new(file.as_fd(), request)?.watched(file.as_fd(), &losses);
    let shared = new_mapping(Request { size, unit, sharing, writable: !read_only }).map_err(io_error)?;
    let overlay = if wants_overlay(&name, &report, read_only)? {
        let request = Request { size, unit, sharing: Sharing::Private, writable: true };
        Some(new_mapping(request).and_then(Overlay::new).map_err(io_error)?)
    } else {
        None
    };
    if matches!(report.kind, MediumKind::Tmpfs | MediumKind::Memfd | MediumKind::Anonymous) {
        shared.prefer_huge_pages();
    }
    Ok(Medium {
        shared,
        overlay,
        losses,
        protocol,
        recording: None,
        report,
        read_only,
        file,
        path,
        boot_id: host::boot_id(),
        failed: Mutex::new(false),
    })
}

fn protocol_for(name: &str, domain: Domain) -> Result<Protocol, MediumError> {
    match (domain, WriteBack::best()) {
        (Domain::MemoryController, Some(way)) => Ok(Protocol::WriteBack(way)),
        (Domain::MemoryController, None) => Err(MediumError::ForcedDomainImpossible {
            name: name.to_owned(),
            domain,
            reason: "this processor has no instruction that writes a cache line back to the medium",
        }),
        (Domain::CpuCache, _) => Ok(Protocol::Fence),
        (Domain::Page | Domain::Volatile, _) => Ok(Protocol::None),
    }
}

/// Whether metadata is changed in private copies of pages.
fn wants_overlay(name: &str, report: &DomainReport, read_only: bool) -> Result<bool, MediumError> {
    let DomainReport { domain, kind, .. } = *report;
    if domain != Domain::Page && !read_only {
        return Ok(false);
    }
    if !kind.can_be_overlaid() {
        // Read-only use without an overlay is possible: only a volume that needs recovery misses it.
        return if domain == Domain::Page {
            let reason = "the host keeps no private copies of its pages";
            Err(MediumError::ForcedDomainImpossible { name: name.to_owned(), domain, reason })
        } else {
            Ok(false)
        };
    }
    let page_size = rustix::param::page_size();
    if page_size as u64 != PAGE_SIZE {
        return Err(MediumError::HostPageSize { name: name.to_owned(), kind, page_size });
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_forced_domain_is_answered_with_the_valid_ones() {
        let message = parse_forced("eadr").unwrap_err().to_string();
        assert!(
            message.starts_with("LODEFS_FORCE_DOMAIN: 'eadr'") && message.contains("memory-controller"),
            "{message}"
        );
        assert_eq!(parse_forced("page").unwrap(), Domain::Page);
    }
}
