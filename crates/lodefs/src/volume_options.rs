//! How a volume is opened or made.

use std::io;
use std::path::Path;
use std::time::Duration;

use lodefs_core::{DaxPolicy, Error, FormatOptions, Fs, NewVolume};
use lodefs_layout::geometry::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use lodefs_pmem::{Access, Domain, Medium, Reserve};
use rustix::io::Errno;

use crate::shared::Credentials;
use crate::volume::Volume;

/// Longest time after which what was written to a `page` volume is durable without being asked for.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// How a volume is opened or made. [`Volume::options`] makes it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let scratch = tempfile::tempdir()?;
/// # let path = scratch.path().join("data.vol");
/// use lodefs::{Domain, Volume};
///
/// // This machine keeps its memory when the power fails.
/// let volume = Volume::options()
///     .size(16 << 20)
///     .label("journal")
///     .force_domain(Domain::MemoryController)
///     .create(&path)?;
/// assert!(volume.domain().forced);
/// volume.close()?;
///
/// let volume = Volume::options().read_only(true).open(&path)?;
/// assert_eq!(volume.info().label, "journal");
/// assert_eq!(volume.write("f", "").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct VolumeOptions {
    size: Option<u64>,
    label: String,
    overwrite: bool,
    sparse: bool,
    read_only: bool,
    no_atime: bool,
    commit_interval: Option<Duration>,
    force_domain: Option<Domain>,
    credentials: Credentials,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl VolumeOptions {
    /// The volume as it is, for reading and writing, committed every five seconds if it is a `page` volume.
    pub fn new() -> Self {
        Self {
            size: None,
            label: String::new(),
            overwrite: false,
            sparse: false,
            read_only: false,
            no_atime: false,
            commit_interval: Some(COMMIT_INTERVAL),
            force_domain: None,
            credentials: Credentials::default(),
        }
    }

    /// Bytes of a new volume, 1 MiB to 64 TiB. A file or device that is [overwritten](Self::overwrite) stays as large as
    /// it is.
    pub fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Name of a new volume, at most 64 bytes.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Makes the new volume in a file or device that may have content, which is lost.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Lets the host give space to the file of a new volume as it is used. If the host is full by then, the volume takes no
    /// more changes until it is opened again. Otherwise all the space is taken at once.
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// Changes nothing on the medium, which may be readable only. Other readers may have it open too. What a crash left
    /// to be done is done in memory.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Does not keep the time of the last access, which spares reads from writing now and then.
    pub fn no_atime(mut self, no_atime: bool) -> Self {
        self.no_atime = no_atime;
        self
    }

    /// On a `page` volume: makes everything durable at least this often, from a thread of its own. `None`: only when
    /// asked to. Other volumes need no such thing.
    pub fn commit_interval(mut self, interval: Option<Duration>) -> Self {
        self.commit_interval = interval;
        self
    }

    /// Treats the medium as of this durability domain, whatever it looks like. A stronger one than is true loses data
    /// when the power fails. Takes precedence over the environment variable `LODEFS_FORCE_DOMAIN`.
    pub fn force_domain(mut self, domain: Domain) -> Self {
        self.force_domain = Some(domain);
        self
    }

    /// Who owns what is made: by default the effective user and group of the process.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Opens the volume in a file or device.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<Volume> {
        let medium = self.open_medium(path.as_ref()).map_err(Error::from)?;
        Ok(self.open_on(medium)?)
    }

    /// Makes a volume in a file or device, and opens it. A new file gets its name when the volume is complete: if making
    /// it fails or is interrupted, there is no file. A file or device that was there can be made again. `EINVAL` together
    /// with `read_only`.
    pub fn create(&self, path: impl AsRef<Path>) -> io::Result<Volume> {
        Ok(self.try_create(path.as_ref())?)
    }

    /// Makes a volume in the memory of this process, treated as `volatile` if nothing else is forced.
    pub fn in_memory(&self) -> io::Result<Volume> {
        let size = self.checked_size()?.ok_or(Error::VolumeSize {
            size: 0,
            min: VOLUME_SIZE_MIN,
            max: VOLUME_SIZE_MAX,
        })?;
        let domain = self.force_domain.unwrap_or(Domain::Volatile);
        Ok(self.format(Medium::anonymous(size, domain).map_err(Error::from)?)?)
    }

    fn try_create(&self, path: &Path) -> Result<Volume, Error> {
        if self.read_only {
            return Err(Errno::INVAL.into());
        }
        let reserve = if self.sparse { Reserve::Sparse } else { Reserve::Full };
        match self.checked_size()? {
            Some(size) if !(self.overwrite && path.exists()) => {
                let new = NewVolume { path, size, reserve, force_domain: self.force_domain };
                Fs::make(&new, &self.format_options())?;
                self.open_on(self.open_medium(path)?)
            }
            _ => self.format(self.open_medium(path)?),
        }
    }

    /// The size, before a file of that size is made.
    fn checked_size(&self) -> Result<Option<u64>, Error> {
        let (min, max) = (VOLUME_SIZE_MIN, VOLUME_SIZE_MAX);
        match self.size {
            Some(size) if !(min..=max).contains(&size) => Err(Error::VolumeSize { size, min, max }),
            size => Ok(size),
        }
    }

    fn open_medium(&self, path: &Path) -> Result<Medium, lodefs_pmem::MediumError> {
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        Medium::open(path, &lodefs_pmem::OpenOptions { access, force_domain: self.force_domain })
    }

    fn format(&self, medium: Medium) -> Result<Volume, Error> {
        Fs::format(&medium, &self.format_options())?;
        self.open_on(medium)
    }

    fn format_options(&self) -> FormatOptions {
        FormatOptions {
            label: self.label.clone(),
            root_uid: self.credentials.uid,
            root_gid: self.credentials.gid,
            ..FormatOptions::default()
        }
    }

    fn open_on(&self, medium: Medium) -> Result<Volume, Error> {
        let options = lodefs_core::OpenOptions {
            read_only: self.read_only,
            commit_interval: self.commit_interval,
            no_atime: self.no_atime,
            // There is no cache in between, so if the medium can be mapped, every file of it can.
            dax: DaxPolicy::Always,
            ..lodefs_core::OpenOptions::default()
        };
        Volume::on(medium, &options, self.credentials)
    }
}
