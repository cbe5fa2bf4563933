//! What is said about a volume, and where a mount is asked for it.
//!
//! A server answers the extended attribute [`REPORT_ATTRIBUTE`] of its root directory with a [`Report`] in JSON. So
//! whoever can see the directory can ask, with this program or with getfattr(1), and nothing needs to be kept in
//! files that could be out of date.

use std::path::{Path, PathBuf};

use lodefs_core::{Fs, SpaceUse, VolumeInfo};
use lodefs_fuse::REPORT_ATTRIBUTE;
use lodefs_fuse::mountinfo::{Mount, mounts};
use lodefs_pmem::DomainReport;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// The most bytes that an extended attribute can have.
const ATTRIBUTE_SIZE_MAX: usize = 1 << 16;

/// All that is said about a volume. Sizes are in bytes, times in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Absolute path.
    #[serde(serialize_with = "as_text")]
    pub(crate) volume: PathBuf,
    pub(crate) uuid: Uuid,
    pub(crate) label: String,
    pub(crate) format_version: u32,
    pub(crate) created_s: i64,
    pub(crate) size: u64,
    pub(crate) block_size: u64,
    pub(crate) journal_size: u64,
    pub(crate) journal_lanes: u32,
    pub(crate) features: Features,
    pub(crate) state: State,
    /// Unknown if nothing but the superblock could be read.
    pub(crate) medium: Option<MediumReport>,
    /// Unknown if the volume could not be opened.
    pub(crate) space: Option<Space>,
    pub(crate) mount: Option<MountReport>,
}

/// Feature flags, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Features {
    pub(crate) compatible: u64,
    pub(crate) read_only: u64,
    pub(crate) incompatible: u64,
}

/// Whether a volume is used, and if not, how it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// A server has it.
    Mounted,
    /// Another program has it.
    InUse,
    /// It was closed.
    Clean,
    /// It was not; it will be recovered when it is opened.
    NeedsRecovery,
    /// It cannot be opened.
    Damaged,
}

/// What the volume lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediumReport {
    pub(crate) kind: String,
    pub(crate) domain: String,
    pub(crate) detected: String,
    pub(crate) forced: bool,
    pub(crate) reason: String,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    /// Free, and in whole aligned pieces of 2 MiB.
    pub(crate) free_huge: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// How it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountReport {
    pub(crate) pid: u32,
    pub(crate) source: String,
    #[serde(serialize_with = "as_text")]
    pub(crate) directory: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) writeback: bool,
    pub(crate) dax: String,
    pub(crate) attach: String,
    pub(crate) commit_s: u64,
    /// Which access times are kept: `relatime`, `nodiratime` or `noatime`.
    #[serde(default)]
    pub(crate) atime: String,
    /// The failure of the medium that has made the volume read-only.
    #[serde(default)]
    pub(crate) fault: Option<String>,
}

/// A path as JSON has it: what is not UTF-8 in it is replaced.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl Report {
    /// What the superblock says.
    pub(crate) fn of_superblock(volume: PathBuf, info: &VolumeInfo, state: State) -> Self {
        let block_size = lodefs_layout::BLOCK_SIZE;
        Self {
            volume,
            uuid: Uuid::from_bytes(info.uuid),
            label: info.label.clone(),
            format_version: info.format_version,
            created_s: info.created.s,
            size: info.total_blocks.saturating_mul(block_size),
            block_size,
            journal_size: info.journal_blocks.saturating_mul(block_size),
            journal_lanes: info.lanes,
            features: Features {
                compatible: info.compat,
                read_only: info.ro_compat,
                incompatible: info.incompat,
            },
            state,
            medium: None,
            space: None,
            mount: None,
        }
    }

    /// What an open volume says.
    pub(crate) fn of_open(volume: PathBuf, fs: &Fs, state: State) -> Self {
        Self {
            medium: Some(fs.domain().into()),
            space: Some(fs.space().into()),
            ..Self::of_superblock(volume, &fs.info(), state)
        }
    }
}

impl From<&DomainReport> for MediumReport {
    fn from(report: &DomainReport) -> Self {
        Self {
            kind: report.kind.to_string(),
            domain: report.domain.to_string(),
            detected: report.detected.to_string(),
            forced: report.forced,
            reason: report.reason.clone(),
        }
    }
}

impl From<SpaceUse> for Space {
    fn from(space: SpaceUse) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(space.block_size);
        Self {
            total: bytes(space.blocks),
            free: bytes(space.blocks_free),
            available: bytes(space.blocks_available),
            free_huge: bytes(space.blocks_free_huge),
            inodes: space.inodes,
            inodes_free: space.inodes_free,
        }
    }
}

/// Asks the server behind the mount at `target`.
pub(crate) fn of_mount(target: &Path) -> anyhow::Result<Report> {
    let mut value = vec![0; ATTRIBUTE_SIZE_MAX];
    let size = rustix::fs::getxattr(target, REPORT_ATTRIBUTE, value.as_mut_slice())?;
    Ok(serde_json::from_slice(&value[..size])?)
}

/// The same as of now: the kernel, which the server has not asked, may have made the mount read-only.
pub(crate) fn of_mount_now(mount: &Mount) -> anyhow::Result<Report> {
    let mut report = of_mount(&mount.target)?;
    if let Some(of_server) = &mut report.mount {
        of_server.read_only |= mount.is_read_only();
    }
    Ok(report)
}

/// The mount of the volume at `path`, if there is one and its server answers.
pub(crate) fn mount_of(path: &Path) -> Option<(Mount, Report)> {
    let path = path.canonicalize().ok()?;
    mounts().ok()?.into_iter().filter(Mount::is_lodefs).find_map(|mount| {
        let report = of_mount(&mount.target).ok()?;
        (report.volume == path).then_some((mount, report))
    })
}
