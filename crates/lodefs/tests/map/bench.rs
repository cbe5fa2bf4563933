//! What the tests have in common.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lodefs::{Dir, Domain, File, MapOptions, Mapping, Volume};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const PAGE_SIZE: usize = 4096;

/// A volume in memory, as if it were persistent.
pub(crate) fn volume() -> Volume {
    Volume::options().size(64 << 20).force_domain(Domain::MemoryController).in_memory().unwrap()
}

/// A new file of so many pages of hole.
pub(crate) fn file(dir: &Dir, name: &str, pages: u64) -> File {
    let file = File::create_new(dir, name).unwrap();
    file.set_len(pages * PAGE).unwrap();
    file
}

pub(crate) fn map(file: &File, pages: usize) -> Mapping {
    map_at(file, 0, pages * PAGE_SIZE)
}

pub(crate) fn map_at(file: &File, offset: u64, size: usize) -> Mapping {
    file.map(&MapOptions { offset, size, writable: true, sync: false }).unwrap()
}

pub(crate) fn byte(mapping: &Mapping, at: usize) -> u8 {
    let mut byte = [0];
    mapping.read(at, &mut byte).unwrap();
    byte[0]
}

/// Bytes of the blocks that a file has.
pub(crate) fn allocated(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

/// Does something that must not wait for ever. If it does, the process ends: its threads cannot.
pub(crate) fn in_time(what: impl FnOnce()) {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            if is_done.recv_timeout(Duration::from_mins(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("threads wait for each other");
                std::process::abort();
            }
        });
        what();
        drop(done);
    });
}
