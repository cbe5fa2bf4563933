//! Where is the library that programs are given?
//!
//! It is a part of this program. The dynamic linker wants a file, so it is put into one, whose name tells the content,
//! and which the next run finds there.
//!
//! The name that the dynamic linker gets has the token `$PLATFORM` in it. The linker of the GNU C library replaces that
//! by a name of the processor: for programs of 64 bits the file is this library, for programs of 32 bits an empty one.
//! The linker of musl knows no tokens, finds no such file, and starts the program without it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{env, ptr};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::geteuid;
use tempfile::NamedTempFile;
use xxhash_rust::xxh3::xxh3_64;

use super::place::{ROOT_PLACES, User};
use super::stub;
use crate::text::shown;

/// The library.
const LIBRARY: &[u8] = include_bytes!(env!("LODEFS_PRELOAD"));

/// What the dynamic linker calls processors, the first of which has the file, and the others links.
const PLATFORMS: Option<Platforms> = if cfg!(target_arch = "x86_64") {
    Some(Platforms { own: &["x86_64", "haswell", "xeon_phi"], small: &["i686", "i586", "i486", "i386"] })
} else {
    None
};

struct Platforms {
    own: &'static [&'static str],
    small: &'static [&'static str],
}

/// Where the library is.
pub(super) struct Library {
    /// For the dynamic linker.
    pub(super) name: OsString,
    /// A directory in which only this user can put files, if there is one.
    pub(super) directory: Option<PathBuf>,
}

/// Puts the library into files.
pub(super) fn library() -> anyhow::Result<Library> {
    let user = User { uid: geteuid().as_raw(), variable: |name| env::var_os(name) };
    let mut failures = Vec::new();
    for place in user.places() {
        match library_in(&user, &place) {
            Ok(library) => return Ok(library),
            Err(error) => failures.push(format!("{}: {error:#}", shown(&place))),
        }
    }
    // Root may have put it where this user can read it.
    for place in ROOT_PLACES.map(Path::new) {
        if user.check_way(place).is_ok() && is_in(place, 0) {
            return Ok(Library { name: name_in(place), directory: None });
        }
    }
    let failures = failures.join("; ");
    Err(anyhow!(
        "set XDG_CACHE_HOME to a directory that no other user can write to, nor to the directories on the way to it \
         ({failures})"
    ))
}

fn library_in(user: &User, place: &Path) -> anyhow::Result<Library> {
    let directory = user.own_directory(place)?;
    // What separates names there, and begins tokens.
    if directory.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'$')) {
        bail!("its name has a space, a colon or a dollar sign in it, which the dynamic linker would misread");
    }
    if !is_in(&directory, user.uid) {
        put_in(&directory)?;
        if !is_in(&directory, user.uid) {
            bail!("files there do not stay what they were made");
        }
    }
    check_executable(&directory.join(file_name(own_platform()))).context("files there cannot be executed")?;
    Ok(Library { name: name_in(&directory), directory: Some(directory) })
}

fn name_in(directory: &Path) -> OsString {
    directory.join(file_name(PLATFORMS.map_or("", |_| "$PLATFORM"))).into_os_string()
}

fn file_name(platform: &str) -> OsString {
    let hash = xxh3_64(LIBRARY);
    format!("preload-{hash:016x}.{platform}.so").into()
}

fn own_platform() -> &'static str {
    PLATFORMS.map_or("", |platforms| platforms.own[0])
}

/// Names of links, and of the files that they lead to.
fn links() -> Vec<(OsString, OsString)> {
    let links = |names: &'static [&'static str]| {
        names[1..].iter().map(|name| (file_name(name), file_name(names[0]))).collect::<Vec<_>>()
    };
    PLATFORMS.map_or(Vec::new(), |platforms| [links(platforms.own), links(platforms.small)].concat())
}

/// Names of files, and what is in them.
fn files() -> Vec<(OsString, Cow<'static, [u8]>)> {
    let mut files = vec![(file_name(own_platform()), Cow::Borrowed(LIBRARY))];
    files.extend(PLATFORMS.map(|platforms| (file_name(platforms.small[0]), stub::library().into())));
    files
}

/// Whether all is there, as it should be, and nobody but its owner could have changed it.
fn is_in(directory: &Path, owner: u32) -> bool {
    files().iter().all(|(name, content)| is_file(&directory.join(name), content, owner).unwrap_or(false))
        && links().iter().all(|(name, target)| {
            fs::read_link(directory.join(name)).is_ok_and(|found| found.as_os_str() == OsStr::new(target))
        })
}

fn is_file(path: &Path, content: &[u8], owner: u32) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    let is_trusted = found.is_file() && found.uid() == owner && found.mode() & 0o6777 == READ_AND_EXECUTE;
    if !is_trusted || found.len() != content.len() as u64 {
        return Ok(false);
    }
    let mut bytes = Vec::with_capacity(content.len());
    file.read_to_end(&mut bytes)?;
    Ok(bytes == content)
}

/// Programs of other users, which this one may start, use it too.
const READ_AND_EXECUTE: u32 = 0o555;
/// Asks cleaners of `XDG_RUNTIME_DIR` to leave the file.
const STICKY: u32 = 0o1000;

fn put_in(directory: &Path) -> anyhow::Result<()> {
    for (name, content) in files() {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(&content)?;
        file.as_file().set_permissions(Permissions::from_mode(READ_AND_EXECUTE | STICKY))?;
        file.persist(directory.join(name))?;
    }
    for (name, target) in links() {
        // A link replaces what has its name only by a rename.
        let temporary = tempfile::tempdir_in(directory)?;
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(target, &link)?;
        fs::rename(link, directory.join(name))?;
    }
    Ok(())
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
