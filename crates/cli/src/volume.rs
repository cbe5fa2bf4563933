//! How a volume is opened, and what is said when it cannot be.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use lodefs_core::{Error, FormatOptions, Fs};
use lodefs_layout::geometry::{VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use lodefs_pmem::{Access, Medium, MediumError, OpenOptions, Reserve};
use rustix::fs::SeekFrom;
use rustix::process::{getegid, geteuid};

use crate::holder;
use crate::report;
use crate::size::format_size;
use crate::text::shown;

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
            let target = shown(&mount.target);
            bail!("{}{}, mounted on {target}; `lodefs umount {target}` first", shown(path), in_use(holder));
        }
        let patience = match &holder {
            Some(name) if name.starts_with("lodefs ") => CLOSING_TIME_MAX,
            Some(_) => Duration::ZERO,
            None => UNKNOWN_TIME_MAX,
        };
        if start.elapsed() >= patience {
            bail!("{}{}; end that first", shown(path), in_use(holder));
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
                shown(path)
            )
        }
        error => anyhow!("{error}"),
    }
}

/// Puts the volume's path in front of what the engine says, unless it stands there already.
pub(crate) fn explain(path: &Path, error: Error) -> anyhow::Error {
    match error {
        Error::Medium(error) => anyhow!("{error}"),
        error => anyhow!("{}: {error}", shown(path)),
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
    /// What is left of an attempt to make a volume that was interrupted; nothing else was there.
    Unfinished,
    /// A volume with this label.
    Volume(String),
    /// A volume that has lost its superblocks.
    LostVolume,
    /// Something else.
    Content,
}

/// Looks at `path` without changing it.
pub(crate) fn occupant(path: &Path) -> anyhow::Result<Occupant> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        metadata => metadata.map_err(|error| anyhow!("{}: {error}; check the path", shown(path)))?,
    };
    if metadata.is_file() && metadata.len() == 0 {
        return Ok(Occupant::EmptyFile(0));
    }
    let medium = open(path, Access::ReadOnly)?;
    match Fs::probe(&medium) {
        Ok(found) => return Ok(Occupant::Volume(found.label)),
        Err(Error::SuperblockLost) => return Ok(Occupant::LostVolume),
        Err(Error::Unfinished) => return Ok(Occupant::Unfinished),
        Err(_) => {}
    }
    let is_empty = if metadata.is_file() { is_blank(path)? } else { starts_with_zeros(&medium)? };
    Ok(match (is_empty, metadata.is_file()) {
        (true, true) => Occupant::EmptyFile(metadata.len()),
        (true, false) => Occupant::EmptyDevice,
        (false, _) => Occupant::Content,
    })
}

/// Whether the file at `path` would have to grow to hold a volume.
pub(crate) fn is_too_small(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() < VOLUME_SIZE_MIN)
}

/// Whether nothing but zeros was ever written to a file, and little of these: a page that was only read may count as
/// written (tmpfs). A host that does not know what was written says that everything was.
fn is_blank(path: &Path) -> anyhow::Result<bool> {
    let file = fs::File::open(path)?;
    let (mut at, mut left) = (0, PROBED_BYTES as u64);
    while let Some(data) = next_part(&file, SeekFrom::Data(at))? {
        at = next_part(&file, SeekFrom::Hole(data))?.unwrap_or(data);
        let size = at - data;
        if size > left {
            return Ok(false);
        }
        left -= size;
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, data)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the next data or hole of a file starts; `None` if there is none before the end.
fn next_part(file: &fs::File, from: SeekFrom) -> anyhow::Result<Option<u64>> {
    match rustix::fs::seek(file, from) {
        Err(rustix::io::Errno::NXIO) => Ok(None),
        found => Ok(Some(found?)),
    }
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

/// Makes a volume whose root directory belongs to the caller, and opens it.
pub(crate) fn make(new: &NewVolume<'_>) -> anyhow::Result<Medium> {
    let options = FormatOptions {
        label: new.label.to_owned(),
        uuid: new.uuid,
        root_uid: geteuid().as_raw(),
        root_gid: getegid().as_raw(),
        root_perm: 0o755,
        ..FormatOptions::default()
    };
    let explain = |error| explain(new.path, error);
    let Some(size) = new.size else {
        let medium = open(new.path, Access::ReadWrite)?;
        Fs::format(&medium, &options).map_err(explain)?;
        return Ok(medium);
    };
    check_size(new.path, size)?;
    let file = lodefs_core::NewVolume { path: new.path, size, reserve: new.reserve, force_domain: None };
    Fs::make(&file, &options).map_err(explain)?;
    open(new.path, Access::ReadWrite)
}

/// Refuses a size before a file of that size is made.
pub(crate) fn check_size(path: &Path, size: u64) -> anyhow::Result<()> {
    let fault = match size {
        ..VOLUME_SIZE_MIN => "small",
        VOLUME_SIZE_MIN..=VOLUME_SIZE_MAX => return Ok(()),
        _ => "large",
    };
    let [size, min, max] = [size, VOLUME_SIZE_MIN, VOLUME_SIZE_MAX].map(format_size);
    bail!("{}: {size} is too {fault} for a volume; choose {min} to {max}", shown(path))
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
    fn a_page_of_zeros_is_no_content_but_many_may_be() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 24).unwrap();
        for at in [0, 1 << 23, (1 << 24) - 4096] {
            file.write_all_at(&[0; 4096], at).unwrap();
        }
        assert_eq!(occupant(&path).unwrap(), Occupant::EmptyFile(1 << 24));
        file.write_all_at(&vec![0; 2 * PROBED_BYTES], 0).unwrap();
        assert_eq!(occupant(&path).unwrap(), Occupant::Content);
    }

    #[test]
    fn content_is_noticed_wherever_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 24).unwrap();
        file.write_all_at(b"x", (1 << 24) - 1).unwrap();
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
