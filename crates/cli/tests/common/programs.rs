//! Programs as they are, which are parts of the tests' own program: each is run by `lodefs run`, in a process of its own.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Mounted, Workbench, can_mount, lodefs, on_memory, succeed};

/// The variables by which the program is told what to do, and where.
const PART: &str = "LODEFS_TEST_PART";
const PLACE: &str = "LODEFS_TEST_PLACE";

/// A mount on which all files are direct.
pub(crate) fn stage() -> Option<(Workbench, Mounted)> {
    stage_with("dax=always")
}

/// A mount with these options.
pub(crate) fn stage_with(options: &str) -> Option<(Workbench, Mounted)> {
    if !can_mount() {
        return None;
    }
    let bench = Workbench::new();
    succeed(on_memory(&mut bench.mount_command(&["-o", options])));
    let mounted = Mounted { directory: bench.directory() };
    Some((bench, mounted))
}

/// Runs a command as it is.
pub(crate) fn run(command: &[&str]) -> Command {
    let mut run = lodefs(["run", "--"]);
    run.args(command);
    run
}

/// Does a part of `a_program`, which is a test that is ignored, in a process of its own.
pub(crate) fn play(part: &str, place: &Path) {
    let said = succeed(&mut playing(&[], part, place));
    assert!(said.contains("1 passed"), "{said}");
}

/// Does a part on a mount of its own.
pub(crate) fn play_on_stage(part: &str) {
    let Some((_bench, mounted)) = stage() else { return };
    play(part, &mounted.directory);
    mounted.unmount();
}

/// A part as a command, with options of `lodefs run`.
pub(crate) fn playing(options: &[&str], part: &str, place: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = lodefs(["run"]);
    command.args(options).arg("--").arg(program);
    command.args(["--ignored", "--exact", "a_program", "--nocapture"]).env(PART, part).env(PLACE, place);
    command
}

/// What the program is to do, and where.
pub(crate) fn told() -> (String, PathBuf) {
    (std::env::var(PART).expect("a part"), std::env::var_os(PLACE).expect("a place").into())
}

pub(crate) fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// How often this process has asked the kernel to read, and to write.
pub(crate) fn system_calls() -> (u64, u64) {
    // Open all the time: a descriptor that is opened may get the number of one that was closed unseen, which is seen.
    static COUNTS: OnceLock<File> = OnceLock::new();
    let mut text = vec![0; 1000];
    let read = COUNTS.get_or_init(|| File::open("/proc/self/io").unwrap()).read_at(&mut text, 0).unwrap();
    let text = String::from_utf8_lossy(&text[..read]);
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (number("syscr:"), number("syscw:"))
}
