//! What can go wrong, and the errno that says so. The only errno table of the project.

use std::io;

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
    #[error("not a lodefs volume (no superblock found); check the path")]
    NotAVolume,
    /// Both copies of the superblock are gone, but other structures of a volume are there.
    #[error(
        "both superblocks of the volume are lost; run `lodefs fsck --repair`, which finds the volume by what is left"
    )]
    SuperblockLost,
    /// The making of a volume was interrupted.
    #[error("the making of a volume here was interrupted; run `lodefs mkfs` again")]
    Unfinished,
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
    io::Error::from(errno).to_string()
}

impl Error {
    /// The errno that a system call would give.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) => *errno,
            Self::Corrupt { .. } | Self::SuperblockLost => Errno::UCLEAN,
            Self::NotAVolume | Self::Unfinished | Self::Incompatible(_) | Self::VolumeSize { .. } => {
                Errno::INVAL
            }
            Self::Latched(_) => Errno::ROFS,
            Self::Truncated { .. } => Errno::IO,
            Self::Medium(error) => medium_errno(error),
        }
    }

    /// The kind of the [`std::io::Error`] that this becomes.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Corrupt { .. }
            | Self::NotAVolume
            | Self::SuperblockLost
            | Self::Unfinished
            | Self::Truncated { .. } => io::ErrorKind::InvalidData,
            Self::Incompatible(_) => io::ErrorKind::Unsupported,
            _ => io::Error::from(self.errno()).kind(),
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

fn medium_errno(error: &MediumError) -> Errno {
    match error {
        MediumError::NotFound { .. } => Errno::NOENT,
        MediumError::Permission { .. } => Errno::ACCESS,
        MediumError::InUse { .. } => Errno::BUSY,
        MediumError::NotEmpty { .. } => Errno::EXIST,
        MediumError::NoSpace { .. } => Errno::NOSPC,
        MediumError::ReadOnly { .. } => Errno::ROFS,
        MediumError::NotAMedium { .. }
        | MediumError::Empty { .. }
        | MediumError::BadForcedDomain(_)
        | MediumError::ForcedDomainImpossible { .. } => Errno::INVAL,
        MediumError::Io { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
        _ => Errno::IO,
    }
}

/// A refusal becomes the error that the host would give for the same; anything else is carried inside, to be had by
/// `downcast`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(errno) => errno.into(),
            other => Self::new(other.kind(), other),
        }
    }
}

/// Refuses with `errno` unless `condition` holds.
pub(crate) fn ensure(condition: bool, errno: Errno) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Refused(errno)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_error_of_the_system() {
        let error = io::Error::from(Error::Refused(Errno::NOTEMPTY));
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(error.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
    }

    #[test]
    fn other_errors_can_be_told_apart_and_taken_out() {
        let missing = MediumError::NotFound { path: "v".into(), source: io::ErrorKind::NotFound.into() };
        for (error, kind) in [
            (Error::corrupt_inode(Ino(7), "wrong"), io::ErrorKind::InvalidData),
            (Error::Incompatible("format 9".into()), io::ErrorKind::Unsupported),
            (Error::VolumeSize { size: 1, min: 2, max: 3 }, io::ErrorKind::InvalidInput),
            (Error::Latched("medium".into()), io::ErrorKind::ReadOnlyFilesystem),
            (Error::Medium(missing), io::ErrorKind::NotFound),
        ] {
            let text = error.to_string();
            let error = io::Error::from(error);
            assert_eq!(error.kind(), kind);
            assert_eq!(error.downcast::<Error>().unwrap().to_string(), text);
        }
    }
}
