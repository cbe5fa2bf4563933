//! What the tests of the command share: a volume in a temporary directory, mounted, and unmounted whatever happens.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod programs;
pub(crate) mod unseen;

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

/// Whether this machine can mount. If not, says so; in CI, where nobody reads, that is a failure.
pub(crate) fn can_mount() -> bool {
    let is_able = rustix::process::geteuid().is_root()
        && OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    if !is_able {
        assert!(std::env::var_os("CI").is_none(), "CI needs /dev/fuse and root to test the mount");
        eprintln!("NOTICE: not tested, because this needs /dev/fuse and root");
    }
    is_able
}

/// The program with these arguments.
pub(crate) fn lodefs<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lodefs"));
    command.args(arguments);
    command
}

/// Has a volume treated as one on persistent memory, unless the temporary directory lies on a file system that maps files of such
/// memory directly (`tests/kernel-dax.sh`).
pub(crate) fn on_memory(command: &mut Command) -> &mut Command {
    if is_on_dax() { command } else { command.env("LODEFS_FORCE_DOMAIN", "memory-controller") }
}

/// Whether it is said that the temporary directory lies there.
pub(crate) fn is_on_dax() -> bool {
    std::env::var_os("LODEFS_TEST_ON_DAX").is_some()
}

/// Runs a command that must succeed; its standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a command that must fail with this status and one line on standard error, which is returned.
pub(crate) fn fail(status: i32, command: &mut Command) -> String {
    let Output { status: found, stdout, stderr } = command.output().expect("the program starts");
    let message = String::from_utf8(stderr).expect("text");
    assert_eq!(found.code(), Some(status), "{command:?}: {message}");
    assert!(stdout.is_empty(), "{command:?}: {stdout:?}");
    assert_eq!(message.lines().count(), 1, "not one line: {message}");
    assert!(message.starts_with("lodefs: "), "{message}");
    message
}

/// Tests take turns. A process that one of them starts has, until it runs its program, a copy of all files that the
/// others have open, and their mounts cannot be unmounted meanwhile.
static TURN: Mutex<()> = Mutex::new(());

/// A temporary directory with a volume and a directory to mount it on.
pub(crate) struct Workbench {
    scratch: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Workbench {
    /// Size of the volume that [`Workbench::mount`] makes.
    pub(crate) const SIZE: &str = "64M";

    pub(crate) fn new() -> Self {
        // A test that failed had its turn.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { scratch: tempfile::tempdir().expect("temporary directory"), _turn: turn }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.path("lode.vol")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.path("mnt")
    }

    /// `lodefs mount --create` of the volume on the directory, with further arguments.
    pub(crate) fn mount_command(&self, further: &[&str]) -> Command {
        let mut command = lodefs(["mount", "--create", Self::SIZE]);
        command.arg("--log").arg(self.path("log")).args(further).arg(self.volume()).arg(self.directory());
        command
    }

    /// Mounts; the mount ends with the value.
    pub(crate) fn mount(&self, further: &[&str]) -> Mounted {
        succeed(&mut self.mount_command(further));
        Mounted { directory: self.directory() }
    }
}

/// The report about a volume or a directory.
pub(crate) fn info(path: &Path) -> serde_json::Value {
    let text = succeed(lodefs(["info", "--json"]).arg(path));
    serde_json::from_str(&text).expect("JSON")
}

/// A mount that is taken away when the test is over.
pub(crate) struct Mounted {
    pub(crate) directory: PathBuf,
}

impl Mounted {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Unmounts as a user would.
    pub(crate) fn unmount(self) {
        succeed(lodefs(["umount"]).arg(&self.directory));
    }

    /// The server's process.
    pub(crate) fn server(&self) -> rustix::process::Pid {
        let report = info(&self.directory);
        let pid = report["mount"]["pid"].as_i64().expect("a number");
        rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Usually it has been unmounted already, and this fails.
        let _ = lodefs(["umount", "--lazy"]).arg(&self.directory).output();
    }
}

/// Waits until a process has ended.
pub(crate) fn wait_for_end(pid: rustix::process::Pid) {
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let mut events = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut events, None).expect("the end of a process can be waited for");
}

/// The line of `/proc/mounts` about a directory: source, target, type, options.
pub(crate) fn mount_line(directory: &Path) -> Option<Vec<String>> {
    let directory = directory.canonicalize().expect("the directory exists");
    std::fs::read_to_string("/proc/mounts")
        .expect("/proc is there")
        .lines()
        .map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .rfind(|fields| Path::new(&fields[1]) == directory)
}
