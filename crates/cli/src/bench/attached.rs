//! The rows of a program that is attached to a mount: it reads and writes with no system call.
//!
//! The server runs in threads of this process, as any server would in another: what is measured hardly talks to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use lodefs_broker::{Broker, Policy};
use lodefs_core::DaxPolicy;
use lodefs_fuse::MountOptions;
use lodefs_pmem::Medium;

use super::arena::Arena;
use super::compare::Trial;
use super::embedded::make_volume;
use super::figure::{Compared, Figure};
use super::mapped;
use super::mounted::{Mounted, make_target};
use super::plan::{Effort, Row};
use super::targets::Raw;
use super::targets::{Host, Reads};
use super::work::{BLOCK_SIZE, Block, Blocks, Grows};

/// A mounted volume to which this process attaches.
pub(crate) struct Attached<'a> {
    arena: &'a Arena,
    raw: Arc<Medium>,
    mounted: Mounted,
}

impl<'a> Attached<'a> {
    pub(crate) fn new(arena: &'a Arena, effort: &Effort, raw: &Arc<Medium>) -> anyhow::Result<Self> {
        let mounted = mount_for_attaching(arena.root(), "attached", effort.volume_size)?;
        Ok(Self { arena, raw: Arc::clone(raw), mounted })
    }

    /// Measures one row against its yardstick.
    pub(crate) fn measure(&self, trial: &Trial<'_>, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
        if trial.row.is_mapped() {
            figures.extend(mapped::measure(self.arena, self.mounted.target(), trial)?);
            return Ok(());
        }
        let path = self.mounted.target().join(trial.row.to_string());
        let compared = |yardstick: &str| Compared {
            row: trial.row,
            way: trial.way,
            yardstick: yardstick.to_owned(),
            is_judged: true,
        };
        if trial.row == Row::Append {
            let host = Host::new(self.arena.root(), "attached-append", Reads::Cached)?;
            let (theirs, ours) = trial.appends(host, Growing::new(path)?)?;
            let is_judged = self.arena.is_tmpfs();
            let compared = Compared { is_judged, ..compared("tmpfs, not durable") };
            figures.push(Figure::new(compared, theirs, ours));
            return Ok(());
        }
        let yardstick = if trial.row == Row::Overwrite { "non-temporal copy + fence" } else { "memcpy" };
        let file = AttachedFile::new(&path).with_context(|| path.display().to_string())?;
        let (theirs, ours) = trial.blocks(Raw(Arc::clone(&self.raw)), file)?;
        fs::remove_file(&path)?;
        figures.push(Figure::new(compared(yardstick), theirs, ours));
        Ok(())
    }
}

/// Mounts a new volume to which programs may attach, whose files are all direct.
pub(crate) fn mount_for_attaching(root: &Path, name: &str, size: u64) -> anyhow::Result<Mounted> {
    let volume = root.join(format!("{name}.vol"));
    let fs = make_volume(&volume, size, DaxPolicy::Always)?;
    let broker = Broker::start(&fs, Policy::Owner(rustix::process::geteuid()))?;
    let target = make_target(root, name)?;
    let options = MountOptions { broker, ..MountOptions::new(volume) };
    let session = lodefs_fuse::mount(fs, &target, &options)?;
    Mounted::new(target, || session.serve())
}

struct AttachedFile(lodefs_direct::File);

impl AttachedFile {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Self(lodefs_direct::File::new(file)?))
    }
}

impl Blocks for AttachedFile {
    #[inline]
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()> {
        ensure!(self.0.write_at(&block.0, offset)? == BLOCK_SIZE, "the volume is full");
        Ok(())
    }

    #[inline]
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()> {
        ensure!(self.0.read_at(&mut into.0, offset)? == BLOCK_SIZE, "the file is too short");
        Ok(())
    }
}

/// A file that grows. A new one each time: for a while after it was made shorter the kernel would append to the old one.
struct Growing {
    path: PathBuf,
    file: AttachedFile,
    end: u64,
}

impl Growing {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        let file = AttachedFile::new(&path)?;
        Ok(Self { path, file, end: 0 })
    }
}

impl Grows for Growing {
    #[inline]
    fn append(&mut self, block: &Block) -> anyhow::Result<()> {
        self.file.overwrite(self.end, block)?;
        self.end += BLOCK_SIZE as u64;
        Ok(())
    }

    fn truncate(&mut self) -> anyhow::Result<()> {
        fs::remove_file(&self.path)?;
        self.file = AttachedFile::new(&self.path)?;
        self.end = 0;
        Ok(())
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // What is left goes with the place.
        let _ = fs::remove_file(&self.path);
    }
}
