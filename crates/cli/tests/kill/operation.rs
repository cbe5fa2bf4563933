//! The operations of the load: chosen by chance, done on a mounted directory, and done to a model.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    CWD, FallocateFlags, RenameFlags, XattrFlags, fallocate, removexattr, renameat_with, setxattr,
};

use crate::mapped;
use crate::model::{COMMON, Content, Model, Thing};
use lodefs_testkit::rng::Rng;

/// Files and symbolic links of a process, about.
const NAMES_MAX: usize = 16;
const OFFSET_MAX: u64 = 100_000;
const SIZE_MAX: u64 = 20_000;

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create {
        name: String,
        mode: u32,
    },
    Write {
        name: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    Append {
        name: String,
        bytes: Vec<u8>,
    },
    /// Through a mapping, within the file.
    Map {
        name: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        size: u64,
    },
    Punch {
        name: String,
        offset: u64,
        size: u64,
    },
    Allocate {
        name: String,
        size: u64,
    },
    Fsync(String),
    Chmod {
        name: String,
        mode: u32,
    },
    SetAttribute {
        name: String,
        key: String,
        value: Vec<u8>,
    },
    RemoveAttribute {
        name: String,
        key: String,
    },
    /// Replaces a file that is there.
    Rename {
        from: String,
        to: String,
    },
    Exchange(String, String),
    Link {
        from: String,
        to: String,
    },
    Symlink {
        target: String,
        name: String,
    },
    Unlink(String),
    Mkdir(String),
    Rmdir(String),
}

impl Operation {
    pub(crate) fn choose(model: &Model, worker: u64, random: &mut Rng) -> Self {
        let files = model.names_of(|thing| matches!(thing, Thing::File(_)));
        let others = model.names_of(|thing| *thing != Thing::Directory);
        let new = new_name(model, worker, random);
        if others.len() > NAMES_MAX {
            return Self::Unlink((*random.one_of(&others).expect("there are some")).clone());
        }
        let (Some(name), Some(other)) = (random.one_of(&files), random.one_of(&others)) else {
            return Self::Create { name: new, mode: 0o600 };
        };
        let (name, other) = ((*name).clone(), (*other).clone());
        match random.below(20) {
            0 => Self::Create { name: new, mode: 0o600 | random.below(0o100) as u32 },
            1 => Self::Unlink(other),
            2 => Self::Link { from: name, to: new },
            3 => Self::Symlink { target: name, name: new },
            4 => Self::Rename { from: other, to: new },
            5 | 6 if same_thing(model, &name, &other) => Self::Fsync(name),
            5 => Self::Rename { from: name, to: other },
            6 => Self::Exchange(name, other),
            7 | 8 => directory_operation(model, worker, random),
            _ => file_operation(model, name, random),
        }
    }

    /// The file whose content may be found partly changed if this has not returned.
    pub(crate) fn may_tear(&self) -> Option<&String> {
        match self {
            Self::Write { name, .. }
            | Self::Append { name, .. }
            | Self::Map { name, .. }
            | Self::Punch { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Does it below `root`.
    pub(crate) fn perform(&self, root: &Path) -> io::Result<()> {
        let at = |name: &String| root.join(name);
        let open = |name: &String| OpenOptions::new().read(true).write(true).open(root.join(name));
        match self {
            Self::Create { name, mode } => {
                OpenOptions::new().write(true).create_new(true).mode(*mode).open(at(name)).map(drop)
            }
            Self::Write { name, offset, bytes } => open(name)?.write_all_at(bytes, *offset),
            Self::Append { name, bytes } => OpenOptions::new().append(true).open(at(name))?.write_all(bytes),
            Self::Map { name, offset, bytes } => mapped::write(&open(name)?, *offset as usize, bytes),
            Self::Truncate { name, size } => open(name)?.set_len(*size),
            Self::Punch { name, offset, size } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(fallocate(open(name)?, flags, *offset, *size)?)
            }
            Self::Allocate { name, size } => Ok(fallocate(open(name)?, FallocateFlags::empty(), 0, *size)?),
            Self::Fsync(name) => File::open(at(name))?.sync_all(),
            Self::Chmod { name, mode } => fs::set_permissions(at(name), fs::Permissions::from_mode(*mode)),
            Self::SetAttribute { name, key, value } => {
                Ok(setxattr(at(name), key.as_str(), value, XattrFlags::empty())?)
            }
            Self::RemoveAttribute { name, key } => Ok(removexattr(at(name), key.as_str())?),
            Self::Rename { from, to } => fs::rename(at(from), at(to)),
            Self::Exchange(one, other) => {
                Ok(renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE)?)
            }
            Self::Link { from, to } => fs::hard_link(at(from), at(to)),
            Self::Symlink { target, name } => symlink(target, at(name)),
            Self::Unlink(name) => fs::remove_file(at(name)),
            Self::Mkdir(name) => fs::create_dir(at(name)),
            Self::Rmdir(name) => fs::remove_dir(at(name)),
        }
    }

    /// Does it to the model.
    pub(crate) fn apply(&self, model: &mut Model) {
        match self {
            Self::Create { name, mode } => {
                let number = model.files.last_key_value().map_or(0, |(number, _)| number + 1);
                model.files.insert(number, Content { mode: *mode, ..Content::default() });
                model.names.insert(name.clone(), Thing::File(number));
            }
            Self::Write { name, offset, bytes } | Self::Map { name, offset, bytes } => {
                overwrite(&mut model.content_mut(name).bytes, *offset as usize, bytes);
            }
            Self::Append { name, bytes } => model.content_mut(name).bytes.extend_from_slice(bytes),
            Self::Truncate { name, size } => model.content_mut(name).bytes.resize(*size as usize, 0),
            Self::Punch { name, offset, size } => {
                let content = &mut model.content_mut(name).bytes;
                let end = ((offset + size) as usize).min(content.len());
                content.get_mut(*offset as usize..end).unwrap_or_default().fill(0);
            }
            Self::Allocate { name, size } => {
                let content = &mut model.content_mut(name).bytes;
                content.resize(content.len().max(*size as usize), 0);
            }
            Self::Fsync(_) => {}
            Self::Chmod { name, mode } => model.content_mut(name).mode = *mode,
            Self::SetAttribute { name, key, value } => {
                model.content_mut(name).attributes.insert(key.clone(), value.clone());
            }
            Self::RemoveAttribute { name, key } => {
                model.content_mut(name).attributes.remove(key);
            }
            Self::Rename { from, to } => rename(model, from, to),
            Self::Exchange(one, other) => {
                let things = [one, other].map(|name| model.names[name].clone());
                let [first, second] = things;
                model.names.insert(one.clone(), second);
                model.names.insert(other.clone(), first);
            }
            Self::Link { from, to } => {
                let thing = model.names[from].clone();
                model.names.insert(to.clone(), thing);
            }
            Self::Symlink { target, name } => {
                model.names.insert(name.clone(), Thing::Symlink(target.clone()));
            }
            Self::Mkdir(name) => drop(model.names.insert(name.clone(), Thing::Directory)),
            Self::Unlink(name) | Self::Rmdir(name) => model.remove(name),
        }
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

/// Moves a name, and what is below it.
fn rename(model: &mut Model, from: &str, to: &str) {
    model.remove(to);
    let below = format!("{from}/");
    let moved: Vec<String> =
        model.names.keys().filter(|name| *name == from || name.starts_with(&below)).cloned().collect();
    for name in moved {
        let thing = model.names.remove(&name).expect("it was just found");
        model.names.insert(format!("{to}{}", &name[from.len()..]), thing);
    }
}

fn same_thing(model: &Model, one: &str, other: &str) -> bool {
    model.names.get(one) == model.names.get(other)
}

/// A name that is not taken: in the directory of the process, in one of its directories, or in the common one.
fn new_name(model: &Model, worker: u64, random: &mut Rng) -> String {
    let directories = model.names_of(|thing| *thing == Thing::Directory);
    loop {
        let number = random.below(1000);
        let name = match (random.below(3), random.one_of(&directories)) {
            (0, Some(directory)) => format!("{directory}/n{number}"),
            (1, _) => format!("{COMMON}/{worker}-n{number}"),
            _ => format!("w{worker}/n{number}"),
        };
        if !model.names.contains_key(&name) {
            return name;
        }
    }
}

/// Makes, moves or removes a directory; none is below another.
fn directory_operation(model: &Model, worker: u64, random: &mut Rng) -> Operation {
    let directories = model.names_of(|thing| *thing == Thing::Directory);
    let is_empty = |name: &&&String| !model.names.keys().any(|other| other.starts_with(&format!("{name}/")));
    let (number, place, kind) = (random.below(1000), random.below(2), random.below(3));
    let new =
        if place == 0 { format!("w{worker}/d{number}") } else { format!("{COMMON}/{worker}-d{number}") };
    match (random.one_of(&directories), directories.iter().find(is_empty)) {
        (_, Some(empty)) if kind == 0 || model.names.contains_key(&new) => Operation::Rmdir((*empty).clone()),
        (Some(directory), _) if model.names.contains_key(&new) => {
            Operation::Rename { from: (*directory).clone(), to: format!("w{worker}/e{}", random.next_u64()) }
        }
        (Some(directory), _) if directories.len() > 3 || kind == 1 => {
            Operation::Rename { from: (*directory).clone(), to: new }
        }
        _ => Operation::Mkdir(new),
    }
}

/// Changes the content or the attributes of a file.
fn file_operation(model: &Model, name: String, random: &mut Rng) -> Operation {
    let size = model.content(&name).bytes.len() as u64;
    let offset = random.below(size + 5000).min(OFFSET_MAX);
    let amount = random.below(SIZE_MAX) + 1;
    let key = format!("user.{}", random.below(3));
    match random.below(14) {
        0 => Operation::Truncate { name, size: random.below(2 * SIZE_MAX) },
        1 => Operation::Punch { name, offset, size: amount },
        2 => Operation::Allocate { name, size: offset + amount },
        3 => Operation::Fsync(name),
        4 => Operation::Chmod { name, mode: 0o600 | random.below(0o100) as u32 },
        5 if model.content(&name).attributes.contains_key(&key) && random.below(2) == 0 => {
            Operation::RemoveAttribute { name, key }
        }
        5 => {
            let value = random.below(1000);
            Operation::SetAttribute { name, key, value: random.bytes(value) }
        }
        6 | 7 if offset < size => {
            let bytes = random.bytes(amount.min(size - offset));
            Operation::Map { name, offset, bytes }
        }
        8..11 if size < OFFSET_MAX => Operation::Append { name, bytes: random.bytes(amount) },
        _ => Operation::Write { name, offset, bytes: random.bytes(amount) },
    }
}
