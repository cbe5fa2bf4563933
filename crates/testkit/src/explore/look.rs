//! Looking at one image: it is opened, which recovers it, looked at, used, checked, closed and opened again.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lodefs_core::{Flags, Fs, NewInode, NewKind, fsck};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::geometry::Geometry;
use lodefs_pmem::{Domain, Medium};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::view::View;
use super::workload::open_options;
use crate::memory_file::MemoryFile;

/// Which boot of the host a volume is opened in. Workloads are done in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Boot {
    /// The host has been up all the time, and has everything that was stored.
    First,
    /// The power failed since.
    Second,
    /// It failed again since the volume was recovered in the second.
    Third,
}

impl Boot {
    /// The medium as found in this boot.
    pub(super) fn applied_to(self, medium: Medium) -> Medium {
        match self {
            Self::First => medium,
            Self::Second => medium.with_boot_id([2; 16]),
            Self::Third => medium.with_boot_id([3; 16]),
        }
    }
}

/// What was found: everything on the volume, or what is wrong with it whatever it should show.
pub(super) type Found = Rc<Result<View, String>>;

/// A volume as recovery has left it: the same bytes in the same places, the same blocks free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    homes: u64,
    was_clean: bool,
    blocks_free: u64,
}

/// Looks at the images of one workload, and at none of them twice.
pub(super) struct Looker {
    file: MemoryFile,
    domain: Domain,
    /// Where the metadata that recovery restores begins, in bytes.
    homes_start: usize,
    by_image: HashMap<(u64, Boot), Found>,
    by_fingerprint: HashMap<Fingerprint, Found>,
}

impl Looker {
    /// For volumes of `size` bytes.
    pub(super) fn new(size: u64, domain: Domain) -> Result<Self, String> {
        let geometry = Geometry::for_size(size).map_err(|_| format!("no volume has {size} bytes"))?;
        Ok(Self {
            file: MemoryFile::new(size).map_err(|error| error.to_string())?,
            domain,
            homes_start: (geometry.inode_map.start.get() * BLOCK_SIZE) as usize,
            by_image: HashMap::new(),
            by_fingerprint: HashMap::new(),
        })
    }

    /// Number of images with different bytes.
    pub(super) fn distinct(&self) -> u64 {
        self.by_image.len() as u64
    }

    /// Number of volumes that differed after recovery.
    pub(super) fn examined(&self) -> u64 {
        self.by_fingerprint.len() as u64
    }

    /// Looks at an image, of which `hash` is the hash.
    pub(super) fn look(&mut self, image: &[u8], hash: u64, boot: Boot) -> Found {
        let key = (hash, boot);
        if let Some(found) = self.by_image.get(&key) {
            return Rc::clone(found);
        }
        let found = self.open(image, boot).unwrap_or_else(|fault| Rc::new(Err(fault)));
        self.by_image.insert(key, Rc::clone(&found));
        found
    }

    /// The image of the last look, as it is now.
    fn medium(&self, boot: Boot) -> Result<Medium, String> {
        let medium = self.file.open(self.domain).map_err(|error| error.to_string())?;
        Ok(boot.applied_to(medium))
    }

    fn fs(&self, boot: Boot) -> Result<Arc<Fs>, String> {
        let options = open_options(Arc::new(AtomicU64::new(u64::MAX / 2)));
        Fs::open(self.medium(boot)?, &options).map_err(|error| error.to_string())
    }

    fn open(&mut self, image: &[u8], boot: Boot) -> Result<Found, String> {
        self.file.write(image).map_err(|error| error.to_string())?;
        let fs = self.fs(boot).map_err(|fault| format!("it cannot be opened: {fault}"))?;
        let bytes = self.file.read().map_err(|error| error.to_string())?;
        let fingerprint = Fingerprint {
            homes: xxh3_64(&bytes[self.homes_start..]),
            was_clean: fs.recovery().was_clean,
            blocks_free: fs.space().blocks_free,
        };
        if let Some(found) = self.by_fingerprint.get(&fingerprint) {
            return Ok(Rc::clone(found));
        }
        let found = Rc::new(self.examine(fs, boot));
        self.by_fingerprint.insert(fingerprint, Rc::clone(&found));
        Ok(found)
    }

    /// Looks at everything on the volume, uses it, and closes it.
    fn examine(&self, fs: Arc<Fs>, boot: Boot) -> Result<View, String> {
        let view = View::of(&fs)?;
        use_it(&fs).map_err(|fault| format!("it cannot be used: {fault}"))?;
        fs.close().map_err(|error| format!("it cannot be closed: {error}"))?;
        let free = fs.space().blocks_free;
        drop(fs);
        self.check()?;
        let fs = self.fs(boot).map_err(|fault| format!("closed, it cannot be opened again: {fault}"))?;
        if !fs.recovery().was_clean {
            return Err("closed, it is not clean".to_owned());
        }
        let after = fs.space().blocks_free;
        if free != after {
            return Err(format!(
                "{free} blocks were free when it was closed, {after} when it was opened again"
            ));
        }
        Ok(view)
    }

    fn check(&self) -> Result<(), String> {
        let medium = self.file.open_read_only(self.domain).map_err(|error| error.to_string())?;
        let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ())
            .map_err(|error| format!("fsck cannot check it: {error}"))?;
        match report.findings.first() {
            None => Ok(()),
            Some(finding) => Err(format!("fsck finds {finding:?}")),
        }
    }
}

/// Makes a file, writes it, reads it and removes it. A volume that is full refuses that, and is right.
fn use_it(fs: &Arc<Fs>) -> lodefs_core::Result<()> {
    const NAME: &[u8] = b"made after the crash";
    let root = fs.root()?;
    if fs.attr(&root)?.flags.intersects(Flags::IMMUTABLE | Flags::APPEND) {
        fs.set_flags(&root, Flags::empty(), None)?;
    }
    let new = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
    let refused_for_space = |error: &lodefs_core::Error| {
        matches!(error, lodefs_core::Error::Refused(Errno::NOSPC)) && fs.space().blocks_available < 32
    };
    let file = match fs.create(&root, NAME, &new) {
        Err(error) if refused_for_space(&error) => return Ok(()),
        file => file?,
    };
    let written = [0x77; 5000];
    match fs.write(&file, 3000, &written, false) {
        Err(error) if refused_for_space(&error) => {}
        count => {
            let mut read = vec![1; 3000 + count?];
            let count = fs.read(&file, 0, &mut read)?;
            let right = count == read.len()
                && read[..3000].iter().all(|byte| *byte == 0)
                && read[3000..].iter().all(|byte| *byte == 0x77);
            if !right {
                return Err(Errno::IO.into());
            }
        }
    }
    drop(file);
    fs.unlink(&root, NAME)
}
