//! A program that makes a volume is killed at each of its system calls: the next attempt succeeds.
//!
//! The program is this test itself, started again.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use lodefs::Volume;
use lodefs_testkit::stepper::kill_at_call;

const SIZE: u64 = 2 << 20;
/// The path at which the program makes a volume.
const TASK: &str = "LODEFS_MAKING_TASK";

/// The program.
#[test]
#[ignore = "a process of its own"]
fn program() {
    let path = std::env::var_os(TASK).expect("started by the test");
    Volume::create(Path::new(&path), SIZE).unwrap().close().unwrap();
}

fn kill_at_each_call(is_there: bool) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("vol");
    let mut unfinished = 0;
    for stops in (0..).step_by(2) {
        assert!(stops < 20_000, "it never ends");
        let _ = fs::remove_file(&path);
        if is_there {
            File::create(&path).unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["program", "--exact", "--ignored", "--test-threads=1"]).env(TASK, &path);
        let ended = kill_at_call(command.stdout(Stdio::null()), stops);
        let opened = Volume::open(&path);
        if let Some(status) = ended {
            assert!(status.success() && opened.is_ok(), "{status} {opened:?}");
            assert_eq!(unfinished > 10, is_there, "{unfinished} of {stops}");
            return;
        }
        if opened.is_err() {
            assert_eq!(path.exists(), is_there, "{opened:?}");
            unfinished += u32::from(path.metadata().is_ok_and(|metadata| metadata.len() > 0));
            Volume::create(&path, SIZE).unwrap().close().unwrap();
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn a_new_volume_is_complete_or_not_there() {
    kill_at_each_call(false);
}

#[test]
fn an_empty_file_can_be_made_again() {
    kill_at_each_call(true);
}
