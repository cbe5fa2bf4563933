//! Looking at one image: it is opened, which recovers it, looked at, used, checked, closed and opened again.

use lodefs_sync::AtomicU64;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use lodefs_core::{Flags, Fs, NewInode, NewKind, fsck};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::geometry::Geometry;
use lodefs_pmem::{Domain, Event, Medium, Recording, What};
use rustix::io::Errno;

use super::Failure;
use super::known::{Known, Range};
use super::view::View;
use super::workload::open_options;
use crate::crash::{CrashImage, PAGE, WORD, word_hash};
use crate::memory_file::MemoryFile;

/// Which boot of the host a volume is opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Boot(u8);

impl Boot {
    /// That in which workloads are done: the host has been up all the time, and has everything that was stored.
    pub(crate) const FIRST: Self = Self(0);

    /// That in which a volume is found after a failure.
    pub(crate) fn after(self, failure: Failure) -> Self {
        match failure {
            Failure::Process => self,
            Failure::Power => Self(self.0 + 1),
        }
    }

    /// The medium as found in this boot.
    pub(crate) fn applied_to(self, medium: Medium) -> Medium {
        if self == Self::FIRST { medium } else { medium.with_boot_id([self.0; 16]) }
    }
}

/// What was found: everything on the volume, or what is wrong with it whatever it should show.
pub(crate) type Found = Rc<Result<View, String>>;

/// A volume as recovery has left it: the same bytes in the same places, the same blocks free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    homes: u64,
    was_clean: bool,
    blocks_free: u64,
}

/// What a recovery did.
#[derive(Debug)]
enum Outcome {
    /// It was refused, and why.
    Refused(String),
    Recovered {
        /// What it stored at home: where, and the bytes.
        stores: Vec<(u64, Vec<u8>)>,
        was_clean: bool,
        blocks_free: u64,
    },
}

/// A recovery as it is made.
pub(crate) struct Recovery {
    /// The volume, or why it cannot be opened.
    fs: Result<Arc<Fs>, String>,
    /// What was done to the medium.
    pub(crate) log: Vec<Event>,
}

impl Outcome {
    /// What the volume is after a recovery of `image` with this outcome, if it was not refused.
    fn fingerprint(&self, image: &CrashImage<'_>) -> Option<Fingerprint> {
        let Self::Recovered { stores, was_clean, blocks_free } = self else { return None };
        let before = |word: u64| -> [u8; WORD as usize] {
            let start = (word * WORD) as usize;
            image.bytes()[start..start + WORD as usize].try_into().expect("volumes have whole words")
        };
        let mut changed: HashMap<u64, [u8; WORD as usize]> = HashMap::new();
        for (at, bytes) in stores {
            let end = at + bytes.len() as u64;
            for word in at / WORD..end.div_ceil(WORD) {
                let (start, stop) = ((word * WORD).max(*at), ((word + 1) * WORD).min(end));
                let part = &bytes[(start - at) as usize..(stop - at) as usize];
                let within = (start % WORD) as usize;
                changed.entry(word).or_insert_with(|| before(word))[within..within + part.len()]
                    .copy_from_slice(part);
            }
        }
        let homes = changed.iter().fold(image.tail_hash(), |hash, (word, bytes)| {
            hash.wrapping_sub(word_hash(*word, &before(*word))).wrapping_add(word_hash(*word, bytes))
        });
        Some(Fingerprint { homes, was_clean: *was_clean, blocks_free: *blocks_free })
    }
}

/// Looks at the images of one workload, and at none of them twice.
pub(crate) struct Looker {
    file: MemoryFile,
    /// The versions of the pages that the file holds; zero where it is none.
    held: Vec<u64>,
    /// What has been done to the file since it was an image.
    watching: RefCell<Vec<Recording>>,
    domain: Domain,
    /// As of [`homes_start`].
    homes_start: u64,
    by_image: HashMap<(u64, Boot), Found>,
    outcomes: Known<Outcome>,
    by_fingerprint: HashMap<Fingerprint, Found>,
    recovered: u64,
}

impl Looker {
    /// For volumes of `size` bytes.
    pub(crate) fn new(size: u64, domain: Domain) -> Result<Self, String> {
        Ok(Self {
            file: MemoryFile::new(size).map_err(|error| error.to_string())?,
            held: vec![0; size.div_ceil(PAGE) as usize],
            watching: RefCell::default(),
            domain,
            homes_start: homes_start(size)?,
            by_image: HashMap::new(),
            outcomes: Known::default(),
            by_fingerprint: HashMap::new(),
            recovered: 0,
        })
    }

    /// Number of images that were really recovered, and not known to recover like one before.
    pub(crate) fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Number of volumes that differed after recovery.
    pub(crate) fn examined(&self) -> u64 {
        self.by_fingerprint.len() as u64
    }

    /// Looks at an image. The same images give the same [`Rc`].
    pub(crate) fn look(&mut self, image: &CrashImage<'_>, boot: Boot) -> Found {
        let key = (image.hash(), boot);
        if let Some(found) = self.by_image.get(&key) {
            return Rc::clone(found);
        }
        let known = self.outcomes.find(image.bytes(), boot).and_then(|outcome| match outcome {
            Outcome::Refused(fault) => Some(Rc::new(Err(fault.clone()))),
            Outcome::Recovered { .. } => {
                let fingerprint = outcome.fingerprint(image)?;
                self.by_fingerprint.get(&fingerprint).map(Rc::clone)
            }
        });
        let found =
            known.unwrap_or_else(|| self.open(image, boot).unwrap_or_else(|fault| Rc::new(Err(fault))));
        self.by_image.insert(key, Rc::clone(&found));
        found
    }

    /// Recovers an image.
    pub(crate) fn recover(&mut self, image: &CrashImage<'_>, boot: Boot) -> Result<Recovery, String> {
        self.hold(image).map_err(|error| error.to_string())?;
        let (medium, recording) = self.medium(boot)?;
        let fs = open_fs(medium).map_err(|fault| format!("it cannot be opened: {fault}"));
        let log = recording.take();
        forget_stored(&mut self.held, &log);
        Ok(Recovery { fs, log })
    }

    /// Makes the file an image: where it was changed, or holds another one.
    fn hold(&mut self, image: &CrashImage<'_>) -> io::Result<()> {
        for recording in self.watching.take() {
            forget_stored(&mut self.held, &recording.take());
        }
        let pages = image.bytes().chunks(PAGE as usize).zip(image.page_versions());
        for ((at, held), (page, version)) in (0..).step_by(PAGE as usize).zip(&mut self.held).zip(pages) {
            if held != version {
                self.file.write_at(at, page)?;
                *held = *version;
            }
        }
        Ok(())
    }

    /// The file, as it is now.
    fn medium(&self, boot: Boot) -> Result<(Medium, Recording), String> {
        let medium = self.file.open(self.domain).map_err(|error| error.to_string())?;
        let (medium, recording) = boot.applied_to(medium).watched();
        self.watching.borrow_mut().push(recording.clone());
        Ok((medium, recording))
    }

    fn open(&mut self, image: &CrashImage<'_>, boot: Boot) -> Result<Found, String> {
        self.recovered += 1;
        let Recovery { fs, log } = self.recover(image, boot)?;
        let (reads, stores) = reads_and_stores(log, self.homes_start);
        let outcome = match &fs {
            Err(fault) => Outcome::Refused(fault.clone()),
            Ok(fs) => Outcome::Recovered {
                stores,
                was_clean: fs.recovery().was_clean,
                blocks_free: fs.space().blocks_free,
            },
        };
        let fingerprint = outcome.fingerprint(image);
        self.outcomes.insert(image.bytes(), boot, &reads, outcome);
        let (fs, Some(fingerprint)) = (fs?, fingerprint) else {
            return Err("recovery had no outcome".into());
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
        let fs = open_fs(self.medium(boot)?.0)
            .map_err(|fault| format!("closed, it cannot be opened again: {fault}"))?;
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

/// Where the metadata that recovery restores begins on a volume of `size` bytes: what is before is not looked at once
/// recovery is done.
pub(crate) fn homes_start(size: u64) -> Result<u64, String> {
    let geometry = Geometry::for_size(size).map_err(|_| format!("no volume has {size} bytes"))?;
    Ok(geometry.inode_map.start.get() * BLOCK_SIZE)
}

fn open_fs(medium: Medium) -> Result<Arc<Fs>, String> {
    let options = open_options(Arc::new(AtomicU64::new(u64::MAX / 2)));
    Fs::open(medium, &options).map_err(|error| error.to_string())
}

/// Notes that pages to which something was stored are not what they were.
fn forget_stored(held: &mut [u64], log: &[Event]) {
    for event in log {
        if let What::Store { at, bytes, .. } = &event.what {
            let end = at + bytes.len() as u64;
            held[(at / PAGE) as usize..end.div_ceil(PAGE) as usize].fill(0);
        }
    }
}

/// What a log contains of reads, without repetitions, and of stores from `homes_start` on.
fn reads_and_stores(log: Vec<Event>, homes_start: u64) -> (Vec<Range>, Vec<(u64, Vec<u8>)>) {
    let (mut reads, mut stores, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for event in log {
        match event.what {
            What::Read { at, size } if seen.insert((at, size)) => reads.push((at, size)),
            What::Store { at, bytes, .. } if at >= homes_start => stores.push((at, bytes)),
            _ => {}
        }
    }
    (reads, stores)
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
