//! The rows of the engine in this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lodefs_core::{DaxPolicy, FormatOptions, Fs, OpenOptions};
use lodefs_pmem::{Access, Domain, Medium, Reserve, create_file};

use super::arena::Arena;
use super::compare::Trial;
use super::figure::{Compared, Figure};
use super::measure::Timing;
use super::plan::{Effort, Row};
use super::targets::{Engine, Host, Raw, Reads};
use super::{reopen, threads};

/// What the rows of names are measured against.
const TMPFS: &str = "tmpfs, not durable";
/// The same where the user wants it, which no bar speaks of.
const OTHER: &str = "the same directory, not durable";

/// What bare copies go to, a volume, and a directory on what both lie on.
pub(crate) struct Embedded<'a> {
    arena: &'a Arena,
    raw: Arc<Medium>,
    fs: Arc<Fs>,
}

impl<'a> Embedded<'a> {
    pub(crate) fn new(arena: &'a Arena, effort: &Effort) -> anyhow::Result<Self> {
        let raw = make_medium(&arena.root().join("raw"), 2 * effort.file_size)?;
        let fs = make_volume(&arena.root().join("embedded.vol"), effort.volume_size, DaxPolicy::Inode)?;
        Ok(Self { arena, raw: Arc::new(raw), fs })
    }

    /// What bare copies go to.
    pub(crate) fn raw(&self) -> &Arc<Medium> {
        &self.raw
    }

    /// The volume.
    pub(crate) fn fs(&self) -> &Fs {
        &self.fs
    }

    /// Measures one row: against its yardstick, and against what else the user wants.
    pub(crate) fn measure(&self, trial: &Trial<'_>, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
        let Trial { row, way, .. } = *trial;
        let compared =
            |yardstick: &str| Compared { row, way, yardstick: yardstick.to_owned(), is_judged: true };
        let name = row.to_string();
        let (yardstick, (theirs, ours)) = match row {
            Row::ReopenClean => {
                return reopen::clean(self.arena.root(), trial).map(|figure| figures.push(figure));
            }
            Row::ReopenCrash => {
                return reopen::crashed(self.arena.root(), trial).map(|figure| figures.push(figure));
            }
            Row::TwoThreads => {
                return threads::measure(&self.raw, &self.fs, trial).map(|figure| figures.push(figure));
            }
            Row::Overwrite => ("non-temporal copy + fence", self.against_raw(trial)?),
            Row::ReadSequential | Row::ReadRandom => ("memcpy", self.against_raw(trial)?),
            _ => {
                let host = Host::new(self.arena.root(), &name, Reads::Cached)?;
                let timings = trial.files(host, Engine::new(&self.fs, &name)?)?;
                (if self.arena.is_tmpfs() { TMPFS } else { OTHER }, timings)
            }
        };
        let is_judged = yardstick != OTHER;
        figures.push(Figure::new(Compared { is_judged, ..compared(yardstick) }, theirs, ours));
        for (label, directory) in self.arena.against() {
            let host = Host::new(directory, &name, Reads::Cached)?;
            let (theirs, ours) =
                trial.files(host, Engine::new(&self.fs, &format!("{name} {label}").replace('/', "|"))?)?;
            let compared = Compared { is_judged: false, ..compared(&format!("{label}, not durable")) };
            figures.push(Figure::new(compared, theirs, ours));
        }
        Ok(())
    }

    fn against_raw(&self, trial: &Trial<'_>) -> anyhow::Result<(Timing, Timing)> {
        trial.blocks(Raw(Arc::clone(&self.raw)), Engine::new(&self.fs, &trial.row.to_string())?)
    }
}

/// A file treated as persistent memory behind a memory controller, so that durability has its price.
pub(crate) fn open_medium(path: &Path) -> anyhow::Result<Medium> {
    let options =
        lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::MemoryController) };
    Ok(Medium::open(path, &options)?)
}

fn make_medium(path: &Path, size: u64) -> anyhow::Result<Medium> {
    create_file(path, size, Reserve::Full)?;
    open_medium(path)
}

/// Makes a volume and opens it.
pub(crate) fn make_volume(path: &Path, size: u64, dax: DaxPolicy) -> anyhow::Result<Arc<Fs>> {
    let medium = make_medium(path, size)?;
    Fs::format(&medium, &FormatOptions::default())
        .and_then(|()| Fs::open(medium, &OpenOptions { dax, ..OpenOptions::default() }))
        .with_context(|| path.display().to_string())
}
