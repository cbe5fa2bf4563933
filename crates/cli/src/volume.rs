//! How a volume is opened, and what is said when it cannot be.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use lodefs_core::{Error, FormatOptions, Fs};
use lodefs_layout::geometry::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use lodefs_pmem::{Access, Medium, MediumError, OpenOptions, Reserve, create_file};
use rustix::fs::SeekFrom;
use rustix::process::{getegid, geteuid};

use crate::holder;
use crate::report;
use crate::size::format_size;

/// How long a server that has been unmounted may take to close its volume before that counts as a failure.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a volume may be locked by nobody knows whom: whoever it was may just have gone.
const UNKNOWN_TIME_MAX: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes at the start of a device that must be zero for it to count as empty.
const PROBED_BYTES: usize = 1 << 20;

/// Opens the file or device at `path` and locks it.
///
/// A server that was just unmounted still closes its volume for a moment; it is waited for.
pub(crate) fn open(path: &Path, access: Access) -> anyhow::Result<Medium> {
    let options = OpenOptions { access, force_domain: None };
    let start = Instant::now();
    loop {
        match Medium::open(path, &options) {
            Err(MediumError::InUse { .. }) => {}
            opened => return opened.map_err(|error| permission_hint(path, access, error)),
        }
        let holder = holder::of_volume(path);
        if let Some((mount, _)) = report::mount_of(path) {
            let target = mount.target.display();
            bail!(
                "{}{}, mounted on {target}; `lodefs umount {target}` first",
                path.display(),
                in_use(holder)
            );
        }
        let patience = match &holder {
            Some(name) if name.starts_with("lodefs ") => CLOSING_TIME_MAX,
            Some(_) => Duration::ZERO,
            None => UNKNOWN_TIME_MAX,
        };
        if start.elapsed() >= patience {
            bail!("{}{}; end that first", path.display(), in_use(holder));
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

fn in_use(holder: Option<String>) -> String {
    holder.map_or_else(|| ": in use".to_owned(), |name| format!(": in use by {name}"))
}

/// What may be read but not written can be mounted all the same.
fn permission_hint(path: &Path, access: Access, error: MediumError) -> anyhow::Error {
    let is_readable = || fs::File::open(path).is_ok();
    match error {
        MediumError::Permission { source, .. } if access == Access::ReadWrite && is_readable() => {
            anyhow!(
                "{}: may only be read ({source}); mount it with `-o ro`, or change its permissions",
                path.display()
            )
        }
        error => anyhow!("{error}"),
    }
}

/// Puts the volume's path in front of what the engine says, unless it stands there already.
pub(crate) fn explain(path: &Path, error: Error) -> anyhow::Error {
    match error {
        Error::Medium(error) => anyhow!("{error}"),
        error => anyhow!("{}: {error}", path.display()),
    }
}

/// What lies at a path where a volume is to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// Nothing, not even a file.
    Nobody,
    /// A file without content, of this many bytes.
    EmptyFile(u64),
    /// A device without content.
    EmptyDevice,
    /// A volume with this label.
    Volume(String),
    /// Something else.
    Content,
}

/// Looks at `path` without changing it.
pub(crate) fn occupant(path: &Path) -> anyhow::Result<Occupant> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        metadata => metadata.map_err(|error| anyhow!("{}: {error}; check the path", path.display()))?,
    };
    if metadata.is_file() && metadata.len() == 0 {
        return Ok(Occupant::EmptyFile(0));
    }
    let medium = open(path, Access::ReadOnly)?;
    if let Ok(found) = Fs::probe(&medium) {
        return Ok(Occupant::Volume(found.label));
    }
    let is_empty = if metadata.is_file() { is_all_hole(path)? } else { starts_with_zeros(&medium)? };
    Ok(match (is_empty, metadata.is_file()) {
        (true, true) => Occupant::EmptyFile(metadata.len()),
        (true, false) => Occupant::EmptyDevice,
        (false, _) => Occupant::Content,
    })
}

/// Whether nothing was ever written to a file. A host that does not know says that everything was.
fn is_all_hole(path: &Path) -> anyhow::Result<bool> {
    let file = fs::File::open(path)?;
    Ok(rustix::fs::seek(&file, SeekFrom::Data(0)) == Err(rustix::io::Errno::NXIO))
}

fn starts_with_zeros(medium: &Medium) -> Result<bool, MediumError> {
    let mut start = vec![0; PROBED_BYTES.min(medium.size() as usize)];
    medium.read(0, &mut start)?;
    Ok(start.iter().all(|byte| *byte == 0))
}

/// A volume to make.
pub(crate) struct NewVolume<'a> {
    pub(crate) path: &'a Path,
    /// Bytes in the file to make; `None` for a device or file that has its size.
    pub(crate) size: Option<u64>,
    pub(crate) label: &'a str,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) reserve: Reserve,
}

/// Makes a volume whose root directory belongs to the caller. If that fails, a file that was made for it goes.
pub(crate) fn make(new: &NewVolume<'_>) -> anyhow::Result<Medium> {
    let is_new = !new.path.exists();
    let made = try_make(new);
    if made.is_err() && is_new {
        let _ = fs::remove_file(new.path);
    }
    made
}

fn try_make(new: &NewVolume<'_>) -> anyhow::Result<Medium> {
    if let Some(size) = new.size {
        check_size(new.path, size)?;
        create_file(new.path, size, new.reserve).map_err(|error| anyhow!("{error}"))?;
    }
    let medium = open(new.path, Access::ReadWrite)?;
    let options = FormatOptions {
        label: new.label.to_owned(),
        uuid: new.uuid,
        root_uid: geteuid().as_raw(),
        root_gid: getegid().as_raw(),
        root_perm: 0o755,
        ..FormatOptions::default()
    };
    Fs::format(&medium, &options).map_err(|error| explain(new.path, error))?;
    Ok(medium)
}

/// Refuses a size before a file of that size is made.
pub(crate) fn check_size(path: &Path, size: u64) -> anyhow::Result<()> {
    let fault = match size {
        ..VOLUME_SIZE_MIN => "small",
        VOLUME_SIZE_MIN..=VOLUME_SIZE_MAX => return Ok(()),
        _ => "large",
    };
    let [size, min, max] = [size, VOLUME_SIZE_MIN, VOLUME_SIZE_MAX].map(format_size);
    bail!("{}: {size} is too {fault} for a volume; choose {min} to {max}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_empty_is_free() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        assert_eq!(occupant(&path).unwrap(), Occupant::Nobody);
        let file = fs::File::create(&path).unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::EmptyFile(0));
        file.set_len(1 << 20).unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::EmptyFile(1 << 20));
    }

    #[test]
    fn content_is_noticed_wherever_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 24).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", (1 << 24) - 1).unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::Content);
    }

    #[test]
    fn a_size_out_of_range_leaves_no_file_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        let new = NewVolume { path: &path, size: Some(4096), label: "", uuid: None, reserve: Reserve::Full };
        let error = make(&new).err().unwrap().to_string();
        assert!(error.contains("4 KiB is too small"), "{error}");
        assert!(!path.exists());
    }
}
