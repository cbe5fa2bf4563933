//! Finding out what a medium is: facts are probed, and a pure function decides what they mean.

use std::fs::{self, File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::domain::{Domain, MediumKind};
use crate::error::MediumError;
use crate::flush::WriteBack;
use crate::mapping::Mapping;
use crate::open::Access;

/// What probing found.
pub(crate) struct Probed {
    pub(crate) facts: Facts,
    /// Bytes in the medium.
    pub(crate) size: u64,
    /// Unit in which the host maps it, in bytes.
    pub(crate) unit: usize,
}

/// What is known of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) object: Object,
    /// What the platform says of the persistent memory under it; `None` if there is none.
    pub(crate) persistence: Option<Persistence>,
    /// Whether the processor can write cache lines back to it.
    pub(crate) can_write_back: bool,
}

/// What was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    DaxDevice,
    BlockDevice,
    Memfd,
    File {
        on: Filesystem,
        /// Whether it can be mapped with `MAP_SYNC`.
        is_synchronous: bool,
    },
}

/// File systems that matter for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filesystem {
    Tmpfs,
    Ramfs,
    Hugetlbfs,
    Fuse,
    Other,
}

/// How far a store must get, as the platform's firmware tells the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    CpuCache,
    MemoryController,
    /// There is persistent memory, but the firmware says nothing more.
    Unstated,
}

/// What the facts mean: the kind of medium, its domain, and why, in one sentence.
pub(crate) fn decide(facts: Facts) -> (MediumKind, Domain, String) {
    let (kind, domain, reason) = match facts.object {
        Object::DaxDevice => decide_dax_device(facts),
        Object::File { on: Filesystem::Tmpfs, .. } => {
            (MediumKind::Tmpfs, Domain::Volatile, "a file on tmpfs is lost with the power")
        }
        Object::File { on: Filesystem::Ramfs, .. } => {
            (MediumKind::Tmpfs, Domain::Volatile, "a file on ramfs is lost with the power")
        }
        Object::File { on: Filesystem::Hugetlbfs, .. } => {
            (MediumKind::Hugetlbfs, Domain::Volatile, "a file on hugetlbfs is lost with the power")
        }
        Object::Memfd => (MediumKind::Memfd, Domain::Volatile, "a memory file is lost with the power"),
        Object::File { on: Filesystem::Other, is_synchronous: true } => decide_dax_file(facts),
        Object::File { on: Filesystem::Other, .. } if facts.persistence.is_some() => (
            MediumKind::File,
            Domain::Page,
            "the file is behind a page cache, though it lies on persistent memory: its file system would map it directly \
             if mounted with dax=always, or with dax=inode if the file is marked (chattr +x while nobody has it open)",
        ),
        Object::File { .. } => (
            MediumKind::File,
            Domain::Page,
            "the file is behind a page cache, its file system cannot map it directly",
        ),
        Object::BlockDevice => {
            (MediumKind::BlockDevice, Domain::Page, "a block device is behind a page cache")
        }
    };
    (kind, domain, reason.to_owned())
}

fn decide_dax_device(facts: Facts) -> (MediumKind, Domain, &'static str) {
    let (domain, reason) = match (facts.persistence, facts.can_write_back) {
        (None, _) => (Domain::Volatile, "the device belongs to no region of persistent memory"),
        (Some(Persistence::CpuCache), _) => {
            (Domain::CpuCache, "the platform saves the processor's caches (eADR)")
        }
        (Some(_), false) => {
            (Domain::Volatile, "this processor has no instruction that writes back to the device")
        }
        (Some(Persistence::MemoryController), true) => {
            (Domain::MemoryController, "the platform saves what has left the processor's caches (ADR)")
        }
        (Some(Persistence::Unstated), true) => (
            Domain::MemoryController,
            "the device is persistent memory, and without word from the platform the caches count as lost",
        ),
    };
    (MediumKind::DeviceDax, domain, reason)
}

fn decide_dax_file(facts: Facts) -> (MediumKind, Domain, &'static str) {
    let (domain, reason) = match (facts.persistence, facts.can_write_back) {
        (Some(Persistence::CpuCache), _) => (
            Domain::CpuCache,
            "the file is mapped directly, and the platform saves the processor's caches (eADR)",
        ),
        (_, false) => (
            Domain::Page,
            "the file is mapped directly, but this processor has no instruction that writes back to it",
        ),
        (Some(Persistence::MemoryController), true) => (
            Domain::MemoryController,
            "the file is mapped directly, and the platform saves what has left the processor's caches (ADR)",
        ),
        (Some(Persistence::Unstated) | None, true) => (
            Domain::MemoryController,
            "the file is mapped directly, and without word from the platform the caches count as lost",
        ),
    };
    (MediumKind::FsDax, domain, reason)
}

/// Looks at an opened file or device.
pub(crate) fn probe(path: &Path, file: &File, access: Access) -> Result<Probed, MediumError> {
    let io_error =
        |source| MediumError::Io { name: path.display().to_string(), action: "look at it", source };
    let metadata = file.metadata().map_err(io_error)?;
    let kind = metadata.file_type();
    if kind.is_char_device() {
        return probe_dax_device(path, &metadata);
    }
    let can_write_back = WriteBack::best().is_some();
    if kind.is_block_device() {
        let size = (&mut &*file).seek(SeekFrom::End(0)).map_err(io_error)?;
        let facts = Facts { object: Object::BlockDevice, persistence: None, can_write_back };
        return Ok(Probed { facts, size, unit: rustix::param::page_size() });
    }
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "a pipe or socket" };
        return Err(MediumError::NotAMedium { path: path.to_path_buf(), found });
    }
    let host = rustix::fs::fstatfs(file).map_err(|errno| io_error(errno.into()))?;
    let on = filesystem(host.f_type.cast_unsigned());
    let unit = if on == Filesystem::Hugetlbfs {
        host.f_bsize.cast_unsigned() as usize
    } else {
        rustix::param::page_size()
    };
    let object = if is_memfd(file) {
        Object::Memfd
    } else {
        let writable = access == Access::ReadWrite;
        let is_synchronous = on == Filesystem::Other
            && metadata.len() > 0
            && Mapping::can_be_synchronous(file.as_fd(), writable);
        Object::File { on, is_synchronous }
    };
    let persistence = persistence_under(Path::new("/sys"), "block", metadata.dev());
    Ok(Probed { facts: Facts { object, persistence, can_write_back }, size: metadata.len(), unit })
}

fn probe_dax_device(path: &Path, metadata: &Metadata) -> Result<Probed, MediumError> {
    let sys = Path::new("/sys");
    let device = device_directory(sys, "char", metadata.rdev());
    let subsystem = fs::read_link(device.join("subsystem")).unwrap_or_default();
    if subsystem.file_name().is_none_or(|name| name != "dax") {
        return Err(MediumError::NotAMedium {
            path: path.to_path_buf(),
            found: "a character device of another kind",
        });
    }
    let size = read_number(&device.join("size")).map_err(|source| MediumError::Io {
        name: path.display().to_string(),
        action: "find out its size",
        source,
    })?;
    let facts = Facts {
        object: Object::DaxDevice,
        persistence: persistence_under(sys, "char", metadata.rdev()),
        can_write_back: WriteBack::best().is_some(),
    };
    // Hosts that do not tell the unit use huge pages of 2 MiB.
    let unit = read_number(&device.join("align")).unwrap_or(2 << 20);
    let unit = usize::try_from(unit).ok().filter(|unit| unit.is_power_of_two()).unwrap_or(2 << 20);
    Ok(Probed { facts, size, unit })
}

/// The file system of this magic number (`statfs(2)`).
fn filesystem(magic: u64) -> Filesystem {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
    match magic & 0xffff_ffff {
        TMPFS_MAGIC => Filesystem::Tmpfs,
        RAMFS_MAGIC => Filesystem::Ramfs,
        HUGETLBFS_MAGIC => Filesystem::Hugetlbfs,
        FUSE_SUPER_MAGIC => Filesystem::Fuse,
        _ => Filesystem::Other,
    }
}

fn is_memfd(file: &File) -> bool {
    // Not `Path::starts_with`, which compares whole components.
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}

/// Where the host describes a device.
fn device_directory(sys: &Path, class: &str, device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    sys.join(format!("dev/{class}/{major}:{minor}"))
}

/// Whether files on a device may be mapped directly. `false` only if the host says so.
pub(crate) fn may_be_direct(device: u64) -> bool {
    let directory = device_directory(Path::new("/sys"), "block", device);
    let Ok(directory) = directory.canonicalize() else { return true };
    // A partition has the queue of its disk.
    let queue = directory.ancestors().take(2).map(|of| of.join("queue/dax")).find(|file| file.exists());
    queue.is_none_or(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() != "0"))
}

/// The weakest persistence of the regions that a device lies on; `None` if it lies on none.
fn persistence_under(sys: &Path, class: &str, device: u64) -> Option<Persistence> {
    persistence_of(&device_directory(sys, class, device).canonicalize().ok()?, 0)
}

fn persistence_of(device: &Path, depth: u32) -> Option<Persistence> {
    /// Mapped devices on mapped devices on ... end somewhere.
    const DEPTH_MAX: u32 = 8;
    let region =
        device.ancestors().map(|parent| parent.join("persistence_domain")).find(|file| file.exists());
    if let Some(file) = region {
        return Some(parse_persistence(&fs::read_to_string(file).unwrap_or_default()));
    }
    let below = fs::read_dir(device.join("slaves")).ok().filter(|_| depth < DEPTH_MAX)?;
    below
        .flatten()
        .filter_map(|entry| persistence_of(&entry.path().canonicalize().ok()?, depth + 1))
        .min_by_key(|&persistence| persistence == Persistence::CpuCache)
}

fn parse_persistence(text: &str) -> Persistence {
    match text.trim() {
        "cpu_cache" => Persistence::CpuCache,
        "memory_controller" => Persistence::MemoryController,
        _ => Persistence::Unstated,
    }
}

fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;
