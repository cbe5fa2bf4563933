//! A small key-value store: one file for each key, in directories by the first byte of the key's hash.
//!
//! A value is replaced by renaming a new file over the old one, so that readers and crashes see the one or the other.
//! The value's version is an extended attribute, set before the file gets its name. Keys are any bytes but `/` and NUL.
//!
//! `cargo run -p lodefs --example key_value VOLUME (get KEY | set KEY VALUE | remove KEY | list)`

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lodefs::{Dir, Volume};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// The whole program: takes its arguments, and returns what it prints.
pub fn run(arguments: &[String]) -> io::Result<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let usage = "usage: key_value VOLUME (get KEY | set KEY VALUE | remove KEY | list)";
    let [path, command @ ..] = words.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, usage));
    };
    let volume = open_volume(Path::new(path))?;
    let store = Store::open(&volume, "store")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned() + "\n";
    let output = match command {
        ["get", key] => text(&store.get(key.as_bytes())?.ok_or(io::ErrorKind::NotFound)?),
        ["set", key, value] => format!("version {}\n", store.set(key.as_bytes(), value.as_bytes())?),
        ["remove", key] => text(if store.remove(key.as_bytes())? { b"removed" } else { b"not there" }),
        ["list"] => store.keys()?.iter().map(|key| text(key)).collect(),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, usage)),
    };
    drop(store);
    volume.close()?;
    Ok(output)
}

fn open_volume(path: &Path) -> io::Result<Volume> {
    if path.exists() { Volume::open(path) } else { Volume::create(path, 16 << 20) }
}

/// A store in a directory. Threads may share it.
pub struct Store {
    dir: Dir,
    /// Numbers the files that do not have their final name yet.
    next: AtomicU64,
}

const VERSION: &str = "user.version";
/// Where new values are written. No shelf has a name of this length.
const NEW: &str = "new";

impl Store {
    /// Opens a store, or makes one. What a crash left unfinished is removed.
    pub fn open(dir: &Dir, path: impl AsRef<Path>) -> io::Result<Self> {
        dir.create_dir_all(&path)?;
        let dir = dir.open_dir(path)?;
        if dir.exists(NEW)? {
            dir.remove_dir_all(NEW)?;
        }
        dir.create_dir(NEW)?;
        Ok(Self { dir, next: AtomicU64::new(0) })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if_any(self.dir.read(place(key)))
    }

    /// How often the key has been set since it was last removed.
    pub fn version(&self, key: &[u8]) -> io::Result<u64> {
        let stored = if_any(self.dir.xattr(place(key), VERSION))?.flatten();
        Ok(stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// Sets a key, and returns the version of its value.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let place = place(key);
        let version = self.version(key)? + 1;
        let new = Path::new(NEW).join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        self.dir.write(&new, value)?;
        self.dir.set_xattr(&new, VERSION, version.to_le_bytes())?;
        if let Some(shelf) = place.parent() {
            self.dir.create_dir_all(shelf)?;
        }
        self.dir.rename(new, place)?;
        Ok(version)
    }

    /// Removes a key, and tells whether it was there.
    pub fn remove(&self, key: &[u8]) -> io::Result<bool> {
        Ok(if_any(self.dir.remove_file(place(key)))?.is_some())
    }

    /// All keys, sorted.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        for entry in self.dir.walk(".")? {
            let entry = entry?;
            if entry.file_type().is_file()
                && entry.depth() == 1
                && !entry.path().starts_with(Path::new(".").join(NEW))
            {
                keys.push(entry.file_name().to_owned().into_vec());
            }
        }
        keys.sort();
        Ok(keys)
    }
}

/// The path of a key: the directory spreads keys, so that many threads can set them side by side.
fn place(key: &[u8]) -> PathBuf {
    let hash = key.iter().fold(0u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(*byte));
    Path::new(&format!("{hash:02x}")).join(OsStr::from_bytes(key))
}

fn if_any<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
