//! With what pages has the kernel mapped a range?

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;

use lodefs_proto::maps::Pages;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// `PAGEMAP_SCAN` of linux/fs.h, there since Linux 6.7.
const SCAN: Opcode = opcode::read_write::<Scan>(b'f', 16);
/// The page is there.
const PRESENT: u64 = 1 << 3;
/// It is mapped with others as one huge page.
const HUGE: u64 = 1 << 6;
/// Runs of pages that one call tells.
const RUNS: usize = 256;

/// `struct pm_scan_arg`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    runs: u64,
    runs_count: u64,
    pages_max: u64,
    inverted: u64,
    wanted: u64,
    wanted_any: u64,
    told: u64,
}

/// `struct page_region`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Run {
    start: u64,
    end: u64,
    categories: u64,
}

/// What a process has in its page tables.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// This process's.
    pub fn of_self() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// That of another process, which this one must have the right to trace.
    pub fn of(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// How much of these addresses, which begin and end with a page, is mapped. NOTTY before Linux 6.7.
    pub fn pages(&self, addresses: Range<u64>) -> io::Result<Pages> {
        let mut pages = Pages::default();
        let mut start = addresses.start;
        while start < addresses.end {
            let mut runs = [Run::default(); RUNS];
            let mut scan = Scan::new(start..addresses.end, &mut runs);
            // SAFETY: the argument leads to as many runs as it says, which may be overwritten.
            let count = unsafe { ioctl(&self.0, Call(&mut scan))? };
            for run in runs.iter().take(count) {
                let size = run.end.saturating_sub(run.start);
                if run.categories & HUGE == 0 { pages.base += size } else { pages.huge += size }
            }
            if scan.walk_end <= start {
                // It must get on.
                return Err(Errno::IO.into());
            }
            start = scan.walk_end;
        }
        Ok(pages)
    }
}

impl Scan {
    /// Asks which pages are there, and which of them are huge.
    fn new(addresses: Range<u64>, runs: &mut [Run]) -> Self {
        Self {
            size: size_of::<Self>() as u64,
            flags: 0,
            start: addresses.start,
            end: addresses.end,
            walk_end: 0,
            runs: runs.as_mut_ptr().expose_provenance() as u64,
            runs_count: runs.len() as u64,
            pages_max: 0,
            inverted: 0,
            wanted: PRESENT,
            wanted_any: 0,
            told: PRESENT | HUGE,
        }
    }
}

/// The system call, which tells by its result how many runs it has written.
struct Call<'a>(&'a mut Scan);

// SAFETY: the command reads and writes a `Scan`, and what that leads to, which whoever makes the call answers for.
unsafe impl Ioctl for Call<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        SCAN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        usize::try_from(out).map_err(|_| Errno::IO)
    }
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    use super::*;

    #[test]
    fn what_has_been_touched_is_counted() {
        const PAGE: usize = 4096;
        let size = 3000 * PAGE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), size, protection, MapFlags::PRIVATE).unwrap() };
        // SAFETY: it is this mapping, and has no contents.
        unsafe { rustix::mm::madvise(base, size, rustix::mm::Advice::LinuxNoHugepage).unwrap() };
        // More runs than one call tells.
        for page in (0..1200).step_by(2) {
            // SAFETY: it lies within the mapping.
            unsafe { base.cast::<u8>().add(page * PAGE).write(1) };
        }
        let start = base.expose_provenance() as u64;
        let told = Pagemap::of_self().unwrap().pages(start..start + size as u64);
        // SAFETY: nobody uses it any more.
        unsafe { munmap(base, size).unwrap() };
        match told {
            Ok(pages) => assert_eq!(pages, Pages { base: 600 * PAGE as u64, huge: 0 }),
            // An older kernel.
            Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTTY)),
        }
    }
}
