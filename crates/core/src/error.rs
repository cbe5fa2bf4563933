//! What can go wrong, and the errno that says so. The only errno table of the project.

use lodefs_pmem::MediumError;
use rustix::io::Errno;

use crate::types::Ino;

/// The result of an operation of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was refused or failed.
///
/// Misuse, corruption, incompatibility and failures of the medium are different things and look different.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself was refused; the errno is all there is to say.
    #[error("{}", refusal_text(*.0))]
    Refused(Errno),
    /// Something stored on the volume contradicts itself or its checksum.
    #[error("the volume is damaged: {object}: {fault}; run `lodefs fsck`")]
    Corrupt {
        /// What was looked at, for example `inode 17`.
        object: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// These bytes are no volume.
    #[error("not a lodefs volume (no superblock found); make one with `lodefs mkfs`")]
    NotAVolume,
    /// The volume was made by a later version, or uses a feature this one does not know.
    #[error("the volume needs a newer lodefs: {0}")]
    Incompatible(String),
    /// The medium is smaller than the volume that was made on it.
    #[error(
        "the volume is truncated: it was made with {expected} bytes and the medium has {found}; restore the \
         missing part from a copy, or extend the file to {expected} bytes and run `lodefs fsck --repair`"
    )]
    Truncated {
        /// Bytes the superblock says.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The size asked for a new volume is out of range.
    #[error("a volume has {min} to {max} bytes, not {size}")]
    VolumeSize {
        /// The size asked for.
        size: u64,
        /// Smallest size.
        min: u64,
        /// Largest size.
        max: u64,
    },
    /// The medium failed.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// An earlier failure to make something durable stopped all writing.
    #[error(
        "the volume is read-only since it failed to store something: {0}; unmount it and check the medium"
    )]
    Latched(String),
}

fn refusal_text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

impl Error {
    /// The errno that a system call would give.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) => *errno,
            Self::Corrupt { .. } => Errno::UCLEAN,
            Self::NotAVolume | Self::Incompatible(_) | Self::VolumeSize { .. } => Errno::INVAL,
            Self::Medium(MediumError::ReadOnly { .. }) | Self::Latched(_) => Errno::ROFS,
            Self::Medium(MediumError::InUse { .. }) => Errno::BUSY,
            Self::Truncated { .. } | Self::Medium(_) => Errno::IO,
        }
    }

    /// Damage found at inode `ino`.
    pub(crate) fn corrupt_inode(ino: Ino, fault: &'static str) -> Self {
        Self::Corrupt { object: format!("inode {ino}"), fault }
    }

    /// Damage found in block `block`.
    pub(crate) fn corrupt_block(block: u64, fault: &'static str) -> Self {
        Self::Corrupt { object: format!("block {block}"), fault }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(errno) => errno.into(),
            other => Self::new(std::io::Error::from(other.errno()).kind(), other),
        }
    }
}

/// Refuses with `errno` unless `condition` holds.
pub(crate) fn ensure(condition: bool, errno: Errno) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Refused(errno)) }
}
