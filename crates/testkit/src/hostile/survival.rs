//! Damage, as a bad device does it, and what must survive a repair: everything that did not belong to what was damaged,
//! byte by byte.
//!
//! Here no checksum is made right, so that what is damaged is known to be. (What somebody changes under a right checksum
//! can contradict what is right, and then nobody can tell which of the two it is.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use lodefs_core::Fs;
use lodefs_pmem::{Access, Domain, Medium};

use super::atlas::{Kind, Structure};
use super::bases::{self, Base};
use super::choices::Choices;
use super::edit::Case;
use super::image::open_options;
use crate::explore::view::{Pages, Seen, View};
use crate::operation::{self, Timestamp};

/// Structures that are damaged at most.
const DAMAGES_MAX: usize = 8;

/// The number of a directory and a name in it.
type Link = (u64, String);

/// Everything on a volume, by inode.
#[derive(Default)]
pub(super) struct Contents {
    inodes: BTreeMap<u64, (Seen, BTreeSet<Link>)>,
    files: BTreeMap<u64, Pages>,
}

impl Contents {
    /// Looks at all of an open volume.
    pub(super) fn of(fs: &Arc<Fs>) -> Result<Self, String> {
        let view = View::of(fs)?;
        let number = |path: &crate::path::TreePath| view.entries.get(path).map_or(0, |seen| seen.status.ino);
        let mut inodes: BTreeMap<u64, (Seen, BTreeSet<Link>)> = BTreeMap::new();
        for (path, seen) in &view.entries {
            let (_, links) = inodes.entry(seen.status.ino).or_insert_with(|| (seen.clone(), BTreeSet::new()));
            if let Some((parent, name)) = path.split() {
                links.insert((number(&parent), name.to_owned()));
            }
        }
        Ok(Self { inodes, files: view.files })
    }

    /// What was on a base before anything was damaged.
    fn of_base(base: &Base) -> &'static Self {
        static ALL: LazyLock<BTreeMap<&str, Contents>> = LazyLock::new(|| {
            let closed = bases::all().iter().filter(|base| base.is_closed);
            let contents = |base: &Base| {
                let medium = Medium::from_image(base.image.bytes(), Domain::Volatile, Access::ReadOnly)
                    .expect("there is memory for it");
                let options = lodefs_core::OpenOptions { read_only: true, ..open_options() };
                let fs = Fs::open(medium, &options).expect("it is in order");
                Contents::of(&fs).expect("it is in order")
            };
            closed.map(|base| (base.name, contents(base))).collect()
        });
        &ALL[base.name]
    }
}

/// What damage may have changed, apart from what it has damaged itself.
#[derive(Debug, Default)]
pub(super) struct Affected {
    /// Inodes that may have lost anything.
    inodes: BTreeSet<u64>,
    /// Directories in which names may be missing.
    directories: BTreeSet<u64>,
}

/// Damages some structures of a volume that was closed. `None` if the input chooses another.
pub(super) fn damage(data: &[u8]) -> Option<(Case, Affected)> {
    let mut choices = Choices::new(data);
    let mut case = Case::unchanged(&mut choices);
    let mut affected = Affected::default();
    for _ in 0..DAMAGES_MAX {
        if choices.is_empty() {
            break;
        }
        let kind = Kind::ALL[usize::from(choices.byte()) % Kind::ALL.len()];
        let (how, which) = (choices.byte(), choices.half_word());
        let (field, value) = (choices.half_word(), choices.number());
        let all = case.base.atlas.of_kind(kind);
        let Some(structure) = usize::from(which).checked_rem(all.len()).map(|index| all[index]) else {
            continue;
        };
        affected.add(&structure);
        let bytes = &mut case.bytes[structure.at as usize..structure.end() as usize];
        spoil(bytes, how, field, value);
    }
    case.base.is_closed.then_some((case, affected))
}

/// Damages the bytes of a structure.
fn spoil(bytes: &mut [u8], how: u8, field: u16, value: u64) {
    let at = usize::from(field) % bytes.len();
    match how % 4 {
        0 => bytes[at] ^= (value as u8).max(1),
        1 => bytes.fill(0),
        2 => bytes[at..].fill(value as u8),
        _ => bytes.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(byte, mask)| *byte ^= mask),
    }
}

impl Affected {
    fn add(&mut self, structure: &Structure) {
        match structure.kind {
            // What is in them is somewhere else as well, or is found by looking for it.
            Kind::Superblock | Kind::State | Kind::Record | Kind::Bitmap | Kind::MapEntry => {}
            Kind::Inode => {
                self.inodes.insert(structure.ino);
                self.directories.insert(structure.ino);
            }
            Kind::ExtentHead | Kind::ExtentSlot | Kind::Xattrs | Kind::Target => {
                self.inodes.insert(structure.ino);
            }
            Kind::Node | Kind::LeafHead | Kind::Tags | Kind::Entry => {
                self.directories.insert(structure.ino);
            }
        }
    }

    /// Compares what is on the repaired volume with what was there before.
    pub(super) fn verify(&self, base: &Base, after: &Contents) -> Result<(), String> {
        let before = Contents::of_base(base);
        for (ino, (seen, links)) in &before.inodes {
            if self.inodes.contains(ino) {
                continue;
            }
            let Some((seen_after, links_after)) = after.inodes.get(ino) else {
                return Err(format!("inode {ino} ({links:?}) is gone, after damage to {self:?}"));
            };
            let may_move = links.iter().any(|(directory, _)| self.directories.contains(directory));
            if !may_move && links != links_after {
                return Err(format!(
                    "inode {ino} was {links:?} and is {links_after:?}, after damage to {self:?}"
                ));
            }
            let (before_it, after_it) = (essence(seen, may_move), essence(seen_after, may_move));
            if before_it != after_it {
                return Err(format!(
                    "inode {ino} was {before_it:?} and is {after_it:?}, after damage to {self:?}"
                ));
            }
            if before.files.get(ino) != after.files.get(ino) {
                return Err(format!("the content of inode {ino} has changed, after damage to {self:?}"));
            }
        }
        Ok(())
    }
}

/// What an undamaged inode shows as before: all of it; if names of it may be lost, all but what counts them; of a
/// directory, all but what changes when something in it does.
fn essence(seen: &Seen, may_move: bool) -> Seen {
    const NEVER: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };
    let mut seen = seen.clone();
    let status = &mut seen.status;
    if may_move {
        (status.links, status.ctime) = (0, NEVER);
    }
    if status.kind == operation::Kind::Directory {
        (status.links, status.size, status.mtime, status.ctime) = (0, 0, NEVER, NEVER);
    }
    seen
}
