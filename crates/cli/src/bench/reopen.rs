//! Opening volumes with many files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lodefs_core::{DaxPolicy, Fs, NewKind, OpenOptions};

use super::compare::Trial;
use super::embedded::{make_volume, open_medium};
use super::figure::{Compared, Figure};
use super::measure::{Timing, Work, as_float, compare, nanoseconds, quantile};
use super::targets::new_inode;

/// Files in one directory.
const FILES_PER_DIRECTORY: usize = 1000;
/// The time that a file may take when a volume is opened after a crash: a second for a million.
const FILE_TIME_MAX_NS: f64 = 1000.0;
/// Making a volume as it was after a crash takes long.
const CRASH_ROUNDS_DIVISOR: usize = 50;

/// After a clean close: many files against few.
pub(crate) fn clean(root: &Path, trial: &Trial<'_>) -> anyhow::Result<Figure> {
    let effort = trial.effort;
    let mut few = Reopening::new(root.join("few.vol"), effort.volume_size, effort.files_few)?;
    let mut many = Reopening::new(root.join("many.vol"), effort.volume_size, effort.files_many)?;
    let (theirs, ours) = compare(effort, 1, &mut few, &mut many, trial.tick)?;
    let yardstick = format!("with {} files instead of {}", effort.files_few, effort.files_many);
    Ok(Figure::new(Compared { row: trial.row, way: trial.way, yardstick, is_judged: true }, theirs, ours))
}

/// A closed volume that is opened again and again.
struct Reopening {
    path: PathBuf,
    open: Option<Arc<Fs>>,
}

impl Reopening {
    fn new(path: PathBuf, size: u64, files: usize) -> anyhow::Result<Self> {
        let fs = make_volume(&path, size, DaxPolicy::Inode)?;
        fill(&fs, files)?;
        fs.close()?;
        Ok(Self { path, open: None })
    }
}

impl Work for Reopening {
    fn prepare(&mut self) -> anyhow::Result<()> {
        match self.open.take() {
            Some(fs) => Ok(fs.close()?),
            None => Ok(()),
        }
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.open = Some(open(&self.path)?);
        Ok(())
    }
}

impl Drop for Reopening {
    fn drop(&mut self) {
        self.open = None;
        let _ = fs::remove_file(&self.path);
    }
}

/// After a crash of the process, for each file.
pub(crate) fn crashed(root: &Path, trial: &Trial<'_>) -> anyhow::Result<Figure> {
    let effort = trial.effort;
    let (path, image) = (root.join("crash.vol"), root.join("crash.image"));
    let fs = make_volume(&path, effort.volume_size, DaxPolicy::Inode)?;
    fill(&fs, effort.files_many)?;
    // What the process has stored is what it would leave.
    fs::copy(&path, &image)?;
    drop(fs);
    let mut times_ns = Vec::new();
    for _ in 0..effort.rounds.div_ceil(CRASH_ROUNDS_DIVISOR) {
        fs::copy(&image, &path)?;
        let start = Instant::now();
        let fs = open(&path)?;
        times_ns.push(nanoseconds(start.elapsed()) / as_float(effort.files_many));
        anyhow::ensure!(!fs.recovery().was_clean, "the volume was closed, although it should not have been");
        (trial.tick)();
    }
    let _ = fs::remove_file(&path);
    let _ = fs::remove_file(&image);
    let ours = Timing { median_ns: quantile(&mut times_ns, 0.5), p99_ns: quantile(&mut times_ns, 0.99) };
    let theirs = Timing { median_ns: FILE_TIME_MAX_NS, p99_ns: FILE_TIME_MAX_NS };
    let yardstick = "1 s per million files".to_owned();
    Ok(Figure::new(Compared { row: trial.row, way: trial.way, yardstick, is_judged: true }, theirs, ours))
}

fn open(path: &Path) -> anyhow::Result<Arc<Fs>> {
    Ok(Fs::open(open_medium(path)?, &OpenOptions::default())?)
}

fn fill(fs: &Arc<Fs>, files: usize) -> anyhow::Result<()> {
    let root = fs.root()?;
    let mut directory = fs.root()?;
    for i in 0..files {
        if i % FILES_PER_DIRECTORY == 0 {
            directory =
                fs.create(&root, format!("directory-{i}").as_bytes(), &new_inode(NewKind::Directory))?;
        }
        fs.create(&directory, format!("file-{i}").as_bytes(), &new_inode(NewKind::File))?;
    }
    Ok(())
}
