//! How does an attached program map a file?

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lodefs_mmap::{MapOptions, Mapping, Source, Subject};
use lodefs_pmem::Domain;
use rustix::io::Errno;
use rustix::param::page_size;

use crate::attachment::{Mapped, Place, Wanted};
use crate::{domain_of, origin};

/// What the server of a mount grants.
struct Attached(Arc<Mapped>);

impl Source for Attached {
    fn note_change(&self) -> std::io::Result<()> {
        Ok(self.0.note_change()?)
    }
}

/// Maps a part of an open file: directly if it is direct and this process may attach, else as the kernel does.
///
/// # Errors
/// OPNOTSUPP if it should be `sync` and cannot; ACCESS if the file was not opened for what is to be done; INVAL for an offset or
/// a size that cannot be mapped; NODEV if the file is direct and this process may not attach: the kernel maps no such file.
pub fn map(file: &impl AsFd, options: &MapOptions) -> Result<Mapping, Errno> {
    let sync = options.sync;
    // SAFETY: nothing that is there is replaced.
    match unsafe { map_at(file, options, Place::Anywhere, None) } {
        // It is not direct, not on a lodefs volume, or this process may not attach.
        Err(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP | Errno::PERM) if !sync => {
            let subject = Subject { file: origin::file_of(file)?, named: None };
            Mapping::of_host(file, options, subject).map_err(|error| errno_of(&error))
        }
        Err(Errno::INVAL | Errno::NOTTY | Errno::PERM) if sync => Err(Errno::OPNOTSUPP),
        other => other,
    }
}

/// Maps a part of an open file, which is direct, and which the kernel therefore does not map, at an address. `forced`: the domain that its
/// medium is to be treated as, whatever the server says.
///
/// # Errors
/// As for [`map`], and: INVAL, NOTTY, OPNOTSUPP or PERM if it is not direct, not on a lodefs volume, or this process may not attach; EXIST if
/// something is mapped there that is to stay.
///
/// # Safety
/// As for the place.
pub unsafe fn map_at(
    file: &impl AsFd,
    options: &MapOptions,
    place: Place,
    forced: Option<Domain>,
) -> Result<Mapping, Errno> {
    let MapOptions { offset, size, writable, .. } = *options;
    // Of such a medium the server would refuse it.
    let sync = options.sync && !forced.is_some_and(Domain::is_durable_on_fence);
    // Pages are mapped, as by mmap(2).
    let whole = size.checked_next_multiple_of(page_size()).ok_or(Errno::INVAL)?;
    // SAFETY: by the caller's promise.
    let mapped = unsafe { Mapped::new(file, Wanted { offset, size: whole, writable, sync }, place)? };
    if options.sync && !sync && mapped.region.shows_file() {
        // It is not direct.
        return Err(Errno::OPNOTSUPP);
    }
    let (region, domain) = (Arc::clone(&mapped.region), forced.unwrap_or_else(|| domain_of(mapped.domain)));
    let subject = Subject { file: mapped.origin.file(), named: Some(Arc::clone(&mapped.origin) as _) };
    Mapping::of_region(region, options, domain, subject, Box::new(Attached(mapped)))
        .map_err(|error| refusal(&error))
}

/// Of a medium to which stores cannot be made durable as the environment asks: an errno cannot say why.
fn refusal(error: &std::io::Error) -> Errno {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if error.kind() != std::io::ErrorKind::Unsupported {
        return errno_of(error);
    }
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        eprintln!("lodefs: {error}");
    }
    Errno::OPNOTSUPP
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
