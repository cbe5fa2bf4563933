//! Errors: what an [`std::io::Error`] of this library is made of.

use std::fmt;
use std::io;

pub use lodefs_core::Error;
use lodefs_pmem::DomainReport;
use rustix::io::Errno;

/// What the engine said, if an error is more than a refusal that an errno describes: damage, a medium that failed, a
/// volume of a later version. Its text names the object, the fault and the remedy.
///
/// ```
/// let path = std::env::temp_dir();
/// let error = lodefs::Volume::open(&path).unwrap_err();
/// assert!(matches!(lodefs::engine_error(&error), Some(lodefs::Error::Medium(_))));
/// ```
pub fn engine_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The errno of an error of this library, as a system call would give it; `None` for an error from elsewhere.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// let error = volume.read("missing").unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert_eq!(lodefs::errno(&error), Some(2)); // ENOENT
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn errno(error: &io::Error) -> Option<i32> {
    let known = error.raw_os_error().or_else(|| Some(engine_error(error)?.errno().raw_os_error()));
    known.or_else(|| error.get_ref()?.is::<Unmappable>().then_some(Errno::OPNOTSUPP.raw_os_error()))
}

/// No file of this volume can be mapped.
#[derive(Debug)]
pub(crate) struct Unmappable(pub(crate) DomainReport);

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DomainReport { domain, reason, .. } = &self.0;
        write!(
            f,
            "files of this volume cannot be mapped: its domain is '{domain}' ({reason}), and what can be mapped is a medium whose single \
             pages programs reach without a page cache in between; read and write the file instead"
        )
    }
}

impl std::error::Error for Unmappable {}

impl From<Unmappable> for io::Error {
    fn from(error: Unmappable) -> Self {
        Self::new(io::ErrorKind::Unsupported, error)
    }
}
