//! Where is the library that programs are given?
//!
//! It is a part of this program. The dynamic linker wants a file, so it is put into one, where programs may execute files, and which the next
//! run finds there.

use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::{Context as _, anyhow, bail};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::geteuid;
use tempfile::NamedTempFile;
use xxhash_rust::xxh3::xxh3_64;

/// The library.
const LIBRARY: &[u8] = include_bytes!(env!("LODEFS_PRELOAD"));

/// A file with the library.
pub(super) fn library() -> anyhow::Result<PathBuf> {
    let places = [Some(env::temp_dir()), env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)];
    let further = ["/var/tmp", "/dev/shm"].map(PathBuf::from);
    let mut last = anyhow!("no directory for it");
    for place in places.into_iter().flatten().chain(further) {
        match library_in(&place) {
            Ok(file) => return Ok(file),
            Err(error) => last = error.context(place.display().to_string()),
        }
    }
    Err(last)
}

fn library_in(place: &Path) -> anyhow::Result<PathBuf> {
    // What separates names there.
    if place.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) || !place.is_absolute() {
        bail!("not a name that the dynamic linker can be told");
    }
    let place = place.canonicalize()?;
    check_parents(&place)?;
    let directory = own_directory(&place.join(format!("lodefs-{}", geteuid().as_raw())))?;
    let path = directory.join(format!("preload-{:016x}.so", xxh3_64(LIBRARY)));
    if fs::read(&path).ok().as_deref() != Some(LIBRARY) {
        let mut file = NamedTempFile::new_in(&directory)?;
        file.write_all(LIBRARY)?;
        // Programs of other users, which this one may start, use it too.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.persist(&path)?;
    }
    check_executable(&path).context("files there cannot be executed")?;
    Ok(path)
}

/// Nobody else can put another directory in the place of one that is in this.
fn check_parents(place: &Path) -> anyhow::Result<()> {
    const STICKY: u32 = 0o1000;
    for parent in place.ancestors() {
        let found = fs::symlink_metadata(parent)?;
        let is_trusted = found.uid() == 0 || found.uid() == geteuid().as_raw();
        if !is_trusted || (found.mode() & 0o022 != 0 && found.mode() & STICKY == 0) {
            bail!("{}: others may change what is in it", parent.display());
        }
    }
    Ok(())
}

/// A directory in which nobody else can put anything.
pub(super) fn own_directory(path: &Path) -> anyhow::Result<PathBuf> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        bail!("{}: somebody else's; remove it", path.display());
    }
    Ok(path.to_owned())
}

/// Not on a file system that is mounted without that.
fn check_executable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the kernel chooses the address, so nothing that is there is replaced; and nobody uses what is mapped.
    unsafe {
        let flags = ProtFlags::READ | ProtFlags::EXEC;
        let mapped = mmap(ptr::null_mut(), 1, flags, MapFlags::PRIVATE, &file, 0)?;
        munmap(mapped, 1)?;
    }
    Ok(())
}
