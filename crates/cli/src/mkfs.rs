//! `lodefs mkfs`: makes a volume, and never overwrites anything unasked.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use lodefs_pmem::{Access, Reserve};

use crate::arguments::MkfsArguments;
use crate::size::format_size;
use crate::text::{self, shown};
use crate::volume::{self, NewVolume, Occupant};

/// Bytes in the longest label, as the superblock has it.
const LABEL_SIZE_MAX: usize = 64;

/// Makes the volume.
pub(crate) fn run(arguments: &MkfsArguments) -> anyhow::Result<()> {
    let path = arguments.volume.as_path();
    if arguments.label.len() > LABEL_SIZE_MAX {
        bail!("'{}': a label has at most {LABEL_SIZE_MAX} bytes; choose a shorter one", arguments.label);
    }
    // First of all: nothing may be lost for a volume that cannot be made.
    arguments.size.map_or(Ok(()), |size| volume::check_size(path, size))?;
    let new = NewVolume {
        path,
        size: file_size(path, arguments)?,
        label: &arguments.label,
        uuid: arguments.uuid.map(uuid::Uuid::into_bytes),
        reserve: if arguments.sparse { Reserve::Sparse } else { Reserve::Full },
    };
    let medium = volume::make(&new)?;
    writeln!(text::output(), "{}: {}, {}", shown(path), format_size(medium.size()), medium.report())?;
    Ok(())
}

/// The size of the file to make, if one has to be made. What may not be overwritten is refused here.
fn file_size(path: &Path, arguments: &MkfsArguments) -> anyhow::Result<Option<u64>> {
    let name = shown(path);
    match (volume::occupant(path)?, arguments.size, arguments.force) {
        (Occupant::Nobody | Occupant::EmptyFile(0), None, _) => {
            bail!("{name}: has no size yet; give one with --size")
        }
        (Occupant::Nobody | Occupant::EmptyFile(0), size, _) => Ok(size),
        (Occupant::LostVolume, _, false) => {
            bail!(
                "{name}: holds a lodefs volume that has lost its superblocks; `lodefs fsck --repair` finds the volume again, or lose it with \
                 --force"
            )
        }
        (Occupant::Volume(label), _, false) => {
            let label = if label.is_empty() { String::new() } else { format!(" '{}'", shown(&label)) };
            bail!(
                "{name}: holds a lodefs volume{label} already; choose another path, or lose it with --force"
            )
        }
        (Occupant::Content, _, false) => {
            bail!("{name}: has content already; choose another path, or lose it with --force")
        }
        (Occupant::Unfinished, None, _) if volume::is_too_small(path) => {
            bail!("{name}: has no size yet, because making a volume was interrupted; give one with --size")
        }
        (_, None, _) => Ok(None),
        (_, Some(size), _) => empty_file(path).map(|()| Some(size)),
    }
}

/// Takes its content from a file, so that it can be given another size.
fn empty_file(path: &Path) -> anyhow::Result<()> {
    if !path.metadata()?.is_file() {
        bail!("{}: a device has the size that it has; leave --size out", shown(path));
    }
    // Opening it makes sure that nobody uses it.
    drop(volume::open(path, Access::ReadWrite)?);
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map(drop)
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("{}: cannot be emptied", shown(path)))
}
