//! The operations that a thread does: chosen by chance, done to a volume, and done to a model of it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;

use lodefs::{File, OpenOptions, RenameMode, Volume};

use crate::model::{COMMON, Model, Thing, XATTR};
use lodefs_testkit::rng::Rng;

/// Files do not grow larger.
const SIZE_MAX: u64 = 200_000;
/// Most names of one thread: what it makes of its 24 MiB with the largest of files is never too much.
const NAMES_MAX: usize = 24;
/// Unlinked files that a thread keeps open.
const HELD_MAX: usize = 4;

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create(String),
    Append(String, Vec<u8>),
    Overwrite(String, u64, Vec<u8>),
    Truncate(String, u64),
    Punch(String, u64, u64),
    Allocate(String, u64, u64),
    Rename(String, String),
    Exchange(String, String),
    Link(String, String),
    Unlink(String),
    /// Unlinks it and keeps it open.
    Orphan(String),
    Mkdir(String),
    Rmdir(String),
    Symlink(String, String),
    Xattr(String, Vec<u8>),
    Chmod(String, u32),
    /// Makes a file without a name and keeps it open.
    Tmpfile(Vec<u8>),
    Sync,
}

impl Operation {
    /// What a thread does next to its part.
    pub(crate) fn choose(model: &Model, thread: u64, random: &mut Rng) -> Self {
        let files = model.names_of(|thing| matches!(thing, Thing::File { .. }));
        let unlinkable = model.names_of(|thing| *thing != Thing::Directory);
        let new_name = |random: &mut Rng| new_name(model, thread, random);
        let kind = random.below(22);
        if files.is_empty() || model.names.len() < 4 {
            return Self::Create(new_name(random));
        }
        let file = random.one_of(&files).expect("there are some").clone();
        let size = model.thing(&file).map_or(0, |thing| match thing {
            Thing::File { content, .. } => content.len() as u64,
            _ => 0,
        });
        if model.names.len() >= NAMES_MAX {
            return Self::Unlink(random.one_of(&unlinkable).unwrap_or(&file).clone());
        }
        match kind {
            0 | 1 => Self::Create(new_name(random)),
            2..=4 if size < SIZE_MAX => {
                let size = 1 + random.below(20_000);
                Self::Append(file, random.bytes(size))
            }
            5 | 6 if size > 0 => {
                let offset = random.below(size);
                let room = (size - offset).min(10_000);
                let size = 1 + random.below(room);
                Self::Overwrite(file, offset, random.bytes(size))
            }
            7 => Self::Truncate(file, random.below(SIZE_MAX)),
            8 if size > 0 => Self::Punch(file, random.below(size), 1 + random.below(50_000)),
            9 => Self::Allocate(file, random.below(SIZE_MAX / 2), 1 + random.below(SIZE_MAX / 2)),
            10 | 11 => {
                let to = if random.below(2) == 0 {
                    new_name(random)
                } else {
                    random.one_of(&files).expect("some").clone()
                };
                Self::Rename(file, to)
            }
            12 => Self::Exchange(file, random.one_of(&files).expect("there are some").clone()),
            13 => Self::Link(file, new_name(random)),
            14 => Self::Unlink(random.one_of(&unlinkable).expect("files are among them").clone()),
            15 => Self::Orphan(file),
            16 => {
                Self::Symlink(format!("target-{}", "x".repeat(random.below(300) as usize)), new_name(random))
            }
            17 => {
                let size = random.below(6000);
                Self::Xattr(file, random.bytes(size))
            }
            18 => Self::Chmod(file, 0o400 + random.below(0o400) as u32),
            19 => {
                let size = random.below(30_000);
                Self::Tmpfile(random.bytes(size))
            }
            20 => directory_operation(model, thread, random),
            _ => Self::Sync,
        }
    }

    /// Whether a crash in the middle may leave some of the bytes as they were.
    pub(crate) fn may_tear(&self) -> Option<&str> {
        match self {
            Self::Overwrite(name, ..) | Self::Punch(name, ..) => Some(name),
            _ => None,
        }
    }

    /// Does it to a model.
    pub(crate) fn apply(&self, model: &mut Model) {
        match self {
            Self::Create(name) => {
                model.add(name, Thing::File { content: Vec::new(), mode: 0o644, xattr: None });
            }
            Self::Append(name, bytes) => model.content(name).extend(bytes),
            Self::Overwrite(name, offset, bytes) => {
                model.content(name)[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(name, size) => model.content(name).resize(*size as usize, 0),
            Self::Punch(name, offset, size) => {
                let content = model.content(name);
                let end = content.len().min((offset + size) as usize);
                content[*offset as usize..end].fill(0);
            }
            Self::Allocate(name, offset, size) => {
                let content = model.content(name);
                content.resize(content.len().max((offset + size) as usize), 0);
            }
            Self::Rename(from, to) => model.rename(from, to),
            Self::Exchange(one, other) => {
                let (a, b) = (model.names[one], model.names[other]);
                model.names.insert(one.clone(), b);
                model.names.insert(other.clone(), a);
            }
            Self::Link(file, name) => {
                let number = model.names[file];
                model.names.insert(name.clone(), number);
            }
            Self::Unlink(name) | Self::Orphan(name) | Self::Rmdir(name) => model.remove(name),
            Self::Mkdir(name) => model.add(name, Thing::Directory),
            Self::Symlink(target, name) => model.add(name, Thing::Symlink(target.clone())),
            Self::Xattr(name, value) => self.change(model, name, |_, xattr| *xattr = Some(value.clone())),
            Self::Chmod(name, to) => self.change(model, name, |mode, _| *mode = *to),
            Self::Tmpfile(_) | Self::Sync => {}
        }
    }

    fn change(&self, model: &mut Model, name: &str, change: impl FnOnce(&mut u32, &mut Option<Vec<u8>>)) {
        let number = model.names[name];
        match model.things.get_mut(&number) {
            Some(Thing::File { mode, xattr, .. }) => change(mode, xattr),
            other => panic!("{self:?} of {other:?}"),
        }
    }

    /// Does it to a volume. `held` are files that stay open though they have no name.
    pub(crate) fn perform(&self, volume: &Volume, held: &mut Vec<File>) -> io::Result<()> {
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(volume, name);
        match self {
            Self::Create(name) => File::create_new(volume, name).map(drop),
            Self::Append(name, bytes) => open(name)?.append(bytes).map(drop),
            Self::Overwrite(name, offset, bytes) => open(name)?.write_all_at(bytes, *offset),
            Self::Truncate(name, size) => open(name)?.set_len(*size),
            Self::Punch(name, offset, size) => open(name)?.punch_hole(*offset, *size),
            Self::Allocate(name, offset, size) => open(name)?.allocate(*offset, *size),
            Self::Rename(from, to) => volume.rename(from, to),
            Self::Exchange(one, other) => volume.rename_with(one, volume, other, RenameMode::Exchange),
            Self::Link(file, name) => volume.hard_link(file, name),
            Self::Unlink(name) => volume.remove_file(name),
            Self::Orphan(name) => {
                hold(held, open(name)?);
                volume.remove_file(name)
            }
            Self::Mkdir(name) => volume.create_dir(name),
            Self::Rmdir(name) => volume.remove_dir(name),
            Self::Symlink(target, name) => volume.symlink(target, name),
            Self::Xattr(name, value) => volume.set_xattr(name, XATTR, value),
            Self::Chmod(name, mode) => volume.set_permissions(name, Permissions::from_mode(*mode)),
            Self::Tmpfile(bytes) => {
                let file = volume.tmpfile()?;
                file.append(bytes)?;
                hold(held, file);
                Ok(())
            }
            Self::Sync => volume.sync(),
        }
    }
}

fn hold(held: &mut Vec<File>, file: File) {
    held.push(file);
    if held.len() > HELD_MAX {
        held.remove(0);
    }
}

/// A name that is not taken: in the thread's directory, in one of its directories, or in the common one.
fn new_name(model: &Model, thread: u64, random: &mut Rng) -> String {
    let dirs = model.names_of(|thing| *thing == Thing::Directory);
    loop {
        let number = random.below(1000);
        let name = match (random.below(3), random.one_of(&dirs)) {
            (0, Some(dir)) => format!("{dir}/n{number}"),
            (1, _) => format!("{COMMON}/{thread}-n{number}"),
            _ => format!("t{thread}/n{number}"),
        };
        if !model.names.contains_key(&name) {
            return name;
        }
    }
}

/// Makes, moves or removes a directory; none is below another.
fn directory_operation(model: &Model, thread: u64, random: &mut Rng) -> Operation {
    let dirs = model.names_of(|thing| *thing == Thing::Directory);
    let number = random.below(1000);
    let new = match random.below(2) {
        0 => format!("t{thread}/d{number}"),
        _ => format!("{COMMON}/{thread}-d{number}"),
    };
    let is_empty = |dir: &&String| !model.names.keys().any(|name| name.starts_with(&format!("{dir}/")));
    match (random.one_of(&dirs), dirs.iter().find(is_empty)) {
        _ if model.names.contains_key(&new) => Operation::Sync,
        (Some(_), Some(empty)) if random.below(3) == 0 => Operation::Rmdir(empty.clone()),
        (Some(dir), _) if dirs.len() > 2 || random.below(2) == 0 => Operation::Rename(dir.clone(), new),
        _ => Operation::Mkdir(new),
    }
}
