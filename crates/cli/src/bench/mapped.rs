//! The rows of files in memory: stores, first touches and recalls, in a program that is attached to a mount.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use anyhow::{Context, bail, ensure};
use lodefs_direct::{MapOptions, Mapping};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::arena::Arena;
use super::compare::Trial;
use super::figure::{Compared, Figure};
use super::loop_device::{self, Kind};
use super::measure::{Timing, Work, compare};
use super::plan::Row;
use super::work::{BLOCK_SIZE, Places};
use crate::complain;

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Measures one of these rows, on files below `target`, which is a mount to which this process attaches. `None`, which is said, if there
/// is no yardstick here.
pub(crate) fn measure(arena: &Arena, target: &Path, trial: &Trial<'_>) -> anyhow::Result<Option<Figure>> {
    let size = trial.effort.file_size as usize;
    let ours = target.join(trial.row.to_string());
    let (yardstick, (theirs, ours)) = match trial.row {
        Row::StoreMapped => {
            let mut theirs = Storing::new(Memory::anonymous(size)?, size)?;
            let mut ours = Storing::new(Memory::of_file(Mapped::new(&ours, size, Filled::Yes)?), size)?;
            ("anonymous memory", timed(trial, &mut theirs, &mut ours)?)
        }
        Row::TouchHole => {
            let ext4 = match loop_device::mount(arena.root(), Kind::Ext4, 4 * trial.effort.file_size) {
                Ok(directory) => directory,
                Err(error) => {
                    complain(&error.context(format!("{} is not measured", trial.row)));
                    return Ok(None);
                }
            };
            let theirs = Mapped::new(&ext4.join("touched"), size, Filled::No)?;
            let mut theirs = Touching::new(theirs, BLOCK_SIZE, trial.steps());
            let mut ours = Touching::new(Mapped::new(&ours, size, Filled::No)?, BLOCK_SIZE, trial.steps());
            ("shared mapping on ext4", timed(trial, &mut theirs, &mut ours)?)
        }
        Row::TouchHuge => {
            let theirs = Mapped::new(&arena.root().join("touched"), size, Filled::Yes)?;
            let mut theirs = Touching::new(theirs, HUGE_PAGE, trial.steps());
            let mut ours = Touching::new(Mapped::new(&ours, size, Filled::Yes)?, HUGE_PAGE, trial.steps());
            ("shared mapping on tmpfs", timed(trial, &mut theirs, &mut ours)?)
        }
        _ => {
            let theirs = Mapped::new(&target.join("not mapped"), size, Filled::Yes)?;
            let mut theirs = Punching { mapped: theirs, is_touched: false, next: 0, steps: trial.steps() };
            let mapped = Mapped::new(&ours, size, Filled::Yes)?;
            let mut ours = Punching { mapped, is_touched: true, next: 0, steps: trial.steps() };
            ("the same where nothing is mapped", timed(trial, &mut theirs, &mut ours)?)
        }
    };
    let is_judged = trial.row.bar(trial.way).is_some();
    let (row, way, yardstick) = (trial.row, trial.way, yardstick.to_owned());
    Ok(Some(Figure::new(Compared { row, way, yardstick, is_judged }, theirs, ours)))
}

fn timed(
    trial: &Trial<'_>,
    yardstick: &mut impl Work,
    subject: &mut impl Work,
) -> anyhow::Result<(Timing, Timing)> {
    compare(trial.effort, trial.steps(), yardstick, subject, trial.tick)
}

/// Whether a file has blocks at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    Yes,
    No,
}

/// A file, and all of it in memory. Dropped, it is removed: not all fit on the volume.
struct Mapped {
    path: PathBuf,
    file: File,
    size: usize,
    mapping: Option<Mapping>,
    filled: Filled,
}

impl Mapped {
    fn new(path: &Path, size: usize, filled: Filled) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        let mut mapped = Self { path: path.into(), file, size, mapping: None, filled };
        mapped.renew()?;
        Ok(mapped)
    }

    /// Makes it what it was at first, with nothing touched.
    fn renew(&mut self) -> anyhow::Result<()> {
        self.mapping = None;
        if self.filled == Filled::No {
            self.file.set_len(0)?;
            self.file.set_len(self.size as u64)?;
        } else {
            fallocate(&self.file, FallocateFlags::empty(), 0, self.size as u64)?;
        }
        let options = MapOptions { offset: 0, size: self.size, writable: true, sync: false };
        self.mapping = Some(lodefs_direct::map(&self.file, &options).map_err(io::Error::from)?);
        Ok(())
    }

    #[inline]
    fn store(&self, at: usize) -> anyhow::Result<()> {
        match &self.mapping {
            Some(mapping) => Ok(mapping.write(at, &1u64.to_ne_bytes())?),
            None => bail!("it is not mapped"),
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.mapping = None;
        // What is left goes with the place.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Memory that is stored to.
struct Memory {
    base: NonNull<u8>,
    size: usize,
    /// `None`: it is anonymous.
    mapped: Option<Mapped>,
}

impl Memory {
    /// With huge pages, if the host has any.
    fn anonymous(size: usize) -> anyhow::Result<Self> {
        ensure!(size.is_multiple_of(HUGE_PAGE), "not whole pages");
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), size, protection, MapFlags::PRIVATE)? };
        // SAFETY: it is this memory, whose contents stay. A host without huge pages refuses, which is its best.
        let _ = unsafe { madvise(base, size, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast()).context("memory at no address")?;
        Ok(Self { base, size, mapped: None })
    }

    fn of_file(mapped: Mapped) -> Self {
        let base = mapped.mapping.as_ref().and_then(|mapping| NonNull::new(mapping.as_ptr()));
        Self { base: base.unwrap_or(NonNull::dangling()), size: mapped.size, mapped: Some(mapped) }
    }

    #[inline]
    fn store(&mut self, at: usize) {
        debug_assert!(at + size_of::<u64>() <= self.size && at.is_multiple_of(size_of::<u64>()));
        // SAFETY: it lies within the memory, which is mapped as long as this is there and nobody's but the measurement's.
        unsafe { self.base.add(at).cast::<u64>().write_volatile(at as u64) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapped.is_none() {
            // SAFETY: it is this memory, which nobody uses any more. What cannot be unmapped goes with the process.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
        }
    }
}

/// Stores eight bytes somewhere, where everything has been touched.
struct Storing {
    memory: Memory,
    places: Places,
}

impl Storing {
    fn new(mut memory: Memory, size: usize) -> anyhow::Result<Self> {
        ensure!(memory.size == size, "not all of the file is in memory");
        (0..size).step_by(BLOCK_SIZE).for_each(|at| memory.store(at));
        Ok(Self { memory, places: Places::mixed(size as u64) })
    }
}

impl Work for Storing {
    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        self.memory.store(self.places.next_offset() as usize);
        Ok(())
    }
}

/// Stores to one page after the other, for the first time.
struct Touching {
    mapped: Mapped,
    page: usize,
    next: usize,
    steps: usize,
}

impl Touching {
    fn new(mapped: Mapped, page: usize, steps: usize) -> Self {
        Self { mapped, page, next: 0, steps }
    }
}

impl Work for Touching {
    fn prepare(&mut self) -> anyhow::Result<()> {
        if self.next + self.steps * self.page > self.mapped.size {
            self.next = 0;
            self.mapped.renew()?;
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        let at = self.next;
        self.next += self.page;
        self.mapped.store(at)
    }
}

/// Punches holes of one page, where everything is filled and, if it is to be, mapped and touched.
struct Punching {
    mapped: Mapped,
    is_touched: bool,
    next: usize,
    steps: usize,
}

impl Work for Punching {
    fn prepare(&mut self) -> anyhow::Result<()> {
        if self.next + self.steps * BLOCK_SIZE > self.mapped.size {
            self.next = 0;
            self.mapped.renew()?;
        }
        if self.is_touched {
            let end = self.next + self.steps * BLOCK_SIZE;
            return (self.next..end).step_by(BLOCK_SIZE).try_for_each(|at| self.mapped.store(at));
        }
        self.mapped.mapping = None;
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        let at = self.next as u64;
        self.next += BLOCK_SIZE;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.mapped.file, how, at, BLOCK_SIZE as u64)?)
    }
}
