//! A program that opens a volume, maps a file, and dies of it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use lodefs::{Domain, File, Mapping, OpenOptions, Volume};

use crate::bench::{PAGE, PAGE_SIZE, map};

/// The environment variables that say what to do, and with which volume.
const WHAT: &str = "LODEFS_TEST_WHAT";
const VOLUME: &str = "LODEFS_TEST_VOLUME";

/// How a process has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Signal(i32),
    Exit(i32),
}

impl Death {
    pub(crate) fn of(status: ExitStatus) -> Self {
        status.signal().map_or_else(|| Self::Exit(status.code().unwrap()), Self::Signal)
    }
}

/// Starts the program, which is this test program with the test that is none, and waits for its end.
pub(crate) fn start(what: &str, volume: &Path) -> Death {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_program", "--exact", "--ignored", "--nocapture"])
        .env(WHAT, what)
        .env(VOLUME, volume)
        .output()
        .unwrap();
    Death::of(output.status)
}

/// What the program does.
pub(crate) fn run() {
    let Some(path) = std::env::var_os(VOLUME).map(PathBuf::from) else { return };
    let volume = Volume::options().force_domain(Domain::MemoryController).open(path).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&volume, "f").unwrap();
    let mapping = map(&file, (file.metadata().unwrap().len().min(1 << 30) / PAGE) as usize + 8);
    mapping.write(0, &[1]).unwrap();
    match std::env::var(WHAT).unwrap().as_str() {
        "beyond" => mapping.write(8 * PAGE_SIZE, &[1]).unwrap(),
        "cut" => {
            mapping.write(7 * PAGE_SIZE, &[1]).unwrap();
            file.set_len(7 * PAGE).unwrap();
            mapping.write(6 * PAGE_SIZE, &[1]).unwrap();
            mapping.write(7 * PAGE_SIZE, &[1]).unwrap();
        }
        "closed" => {
            volume.close().unwrap();
            mapping.write(0, &[2]).unwrap();
            mapping.write(PAGE_SIZE, &[2]).unwrap();
        }
        "full" => fill(&volume, &mapping),
        "killed" => {
            mapping.write(6 * PAGE_SIZE, b"data").unwrap();
            mapping.persist(6 * PAGE_SIZE..6 * PAGE_SIZE + 4).unwrap();
            mapping.write(0, &[6]).unwrap();
            mapping.persist(0..1).unwrap();
            // SAFETY: ends this process.
            unsafe { libc::raise(libc::SIGKILL) };
        }
        other => panic!("what is {other}?"),
    }
}

/// Lets the volume have room for a few pages only, and stores until there is none.
fn fill(volume: &Volume, mapping: &Mapping) {
    let other = File::create(volume, "other").unwrap();
    while volume.space().blocks_available > 64 {
        other.append(&[8; PAGE_SIZE]).unwrap();
    }
    for page in 1..mapping.size() / PAGE_SIZE {
        mapping.write(page * PAGE_SIZE, &[1]).unwrap();
    }
}
