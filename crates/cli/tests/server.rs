//! What a server stands: signals that are not for it, limits of resources, programs that come and go, names that others have chosen.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Workbench, can_mount, fail, lodefs, on_memory, succeed};
use rustix::process::{Pid, Signal, kill_process};

/// The variable with the file of [`a_program`].
const FILE: &str = "LODEFS_TEST_FILE";

/// Waits until something is so; it fails after ten seconds.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let mut tries = 0..1000;
    while !is_so() {
        assert!(tries.next().is_some(), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn descriptors(server: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.as_raw_nonzero())).expect("the server").count()
}

#[test]
fn signals_of_other_purposes_do_not_end_a_server() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let server = mounted.server();
    let old = bench.path("log.old");
    fs::rename(bench.path("log"), &old).expect("the log");
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::PIPE,
        Signal::XFSZ,
        Signal::HUP,
    ] {
        kill_process(server, signal).expect("the server");
    }
    // The last one has the log opened again.
    wait_until("no new log", || {
        fs::read_to_string(bench.path("log")).is_ok_and(|log| log.contains("reload"))
    });
    fs::write(mounted.path("f"), "served").expect("the mount");
    assert_eq!(mounted.server(), server);
    mounted.unmount();
    assert!(!fs::read_to_string(&old).expect("the old log").contains("closed"));
    assert!(fs::read_to_string(bench.path("log")).expect("the new log").contains("closed"));
}

#[test]
fn a_limit_of_memory_leaves_no_dead_mount() {
    if !can_mount() {
        return;
    }
    for limit in [150_000, 200_000, 250_000] {
        let bench = Workbench::new();
        let mut mount = bench.mount_command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!(r#"ulimit -v {limit}; exec "$0" "$@""#)]).arg(mount.get_program());
        let message = fail(1, shell.args(mount.get_args()));
        assert!(message.contains("ulimit -v"), "{message}");
        assert!(!bench.directory().exists(), "the directory of the mount is left");
        // Nothing is in the way of a mount without the limit.
        succeed(&mut mount);
        common::Mounted { directory: bench.directory() }.unmount();
    }
}

#[test]
fn a_server_takes_as_many_descriptors_as_it_may_have() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mount = bench.mount_command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -Sn 64; exec "$0" "$@""#]).arg(mount.get_program());
    succeed(shell.args(mount.get_args()));
    let mounted = common::Mounted { directory: bench.directory() };
    let limits = fs::read_to_string(format!("/proc/{}/limits", mounted.server().as_raw_nonzero()));
    let limits = limits.expect("the server");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let mut values = line.split_whitespace();
    assert_eq!(values.next(), values.next(), "{line}");
    mounted.unmount();
}

/// A program that attaches, and ends.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let path = std::env::var_os(FILE).expect("the test has set it");
    let file = fs::File::options().read(true).write(true).open(path).expect("the file");
    let attached = lodefs_direct::File::new(file).expect("the mount lets it attach");
    attached.write_at(&[2; 4096], 0).expect("the file");
    let mut bytes = [0; 4096];
    attached.read_at(&mut bytes, 0).expect("the file");
    assert_eq!(bytes, [2; 4096]);
}

/// Whether another program comes or not.
#[test]
fn nothing_is_left_of_programs_that_have_ended() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    succeed(on_memory(&mut bench.mount_command(&["-o", "dax=always"])));
    let mounted = common::Mounted { directory: bench.directory() };
    fs::write(mounted.path("f"), [1; 4096]).expect("the mount");
    let server = mounted.server();
    let before = descriptors(server);
    for _ in 0..3 {
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        succeed(program.args(["a_program", "--exact", "--ignored"]).env(FILE, mounted.path("f")));
    }
    wait_until("descriptors are left", || descriptors(server) <= before);
    mounted.unmount();
}

#[test]
fn names_do_not_reach_a_terminal_as_they_are() {
    let bench = Workbench::new();
    let name = OsStr::from_bytes(b"\x1b]0;title\x07\n\xff\\");
    let quoted = "\\033]0;title\\a\\n\\377\\\\";
    let message = fail(1, lodefs(["dax", "status"]).arg(bench.path("").join(name)));
    assert!(message.contains(quoted), "{message:?}");
    // What a library says of the name keeps to one line, too.
    let message = fail(1, lodefs(["info"]).arg(bench.path("").join(name)));
    assert!(message.contains("\\033]0;title\\a") && !message.contains('\x1b'), "{message:?}");
    if !can_mount() {
        return;
    }
    // The log, too: the volume has such a name.
    let name = OsStr::from_bytes(b"\x1b]0;title\x07\n\\");
    let quoted = "\\033]0;title\\a\\n\\\\";
    let volume = bench.path("").join(name);
    let mut mount = lodefs(["mount", "--create", Workbench::SIZE, "--log"]);
    succeed(mount.arg(bench.path("log")).arg(&volume).arg(bench.directory()));
    let mounted = common::Mounted { directory: bench.directory() };
    fs::write(mounted.path("").join(name), "").expect("the mount");
    let text = succeed(lodefs(["dax", "status"]).arg(mounted.path("").join(name)));
    assert!(text.contains(quoted) && text.lines().count() == 1, "{text:?}");
    let text = succeed(lodefs(["info"]).arg(&mounted.directory));
    assert!(text.contains(quoted) && !text.contains('\x1b'), "{text:?}");
    let json = succeed(lodefs(["dax", "status", "--json"]).arg(mounted.path("").join(name)));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let exact = json[0]["path"].as_str().expect("a path");
    assert!(Path::new(exact) == mounted.path("").join(name), "{exact:?}");
    mounted.unmount();
    let log = fs::read_to_string(bench.path("log")).expect("the log");
    assert!(log.contains(quoted) && !log.contains('\x1b'), "{log:?}");
}

/// Without a log, messages would be lost, and nobody would know.
#[test]
fn a_missing_log_is_said() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mut mount = lodefs(["mount", "--create", Workbench::SIZE]);
    let output = mount.arg(bench.volume()).arg(bench.directory()).output().expect("the program starts");
    let mounted = common::Mounted { directory: bench.directory() };
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{message}");
    assert_eq!(message.contains("name a file with --log"), !Path::new("/dev/log").exists(), "{message}");
    mounted.unmount();
}
