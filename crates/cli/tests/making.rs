//! Making a volume is killed at each of its system calls: there is then nothing, a complete volume, or what can be made
//! again without `--force`; and never a file left over.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Workbench, info, lodefs, succeed};
use lodefs_core::{Fs, fsck};
use lodefs_pmem::{Access, Medium, MediumError, OpenOptions};
use lodefs_testkit::stepper::kill_at_call;

const SIZE: u64 = 2 << 20;

/// What is at the path before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    EmptyFile,
    Hole,
    Volume,
}

impl Before {
    fn set_up(self, path: &Path) {
        let _ = fs::remove_file(path);
        match self {
            Self::Nothing => {}
            Self::EmptyFile => drop(File::create(path).unwrap()),
            Self::Hole => File::create(path).unwrap().set_len(SIZE).unwrap(),
            Self::Volume => drop(succeed(lodefs(["mkfs", "--size", "2M", "--label", "old"]).arg(path))),
        }
    }
}

fn mkfs(path: &Path, further: &[&str]) -> Command {
    let mut command = lodefs(["mkfs", "--label", "new"]);
    command.args(further).arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn medium(path: &Path) -> Result<Medium, MediumError> {
    Medium::open(path, &OpenOptions { access: Access::ReadOnly, force_domain: None })
}

/// Whether there is a volume, which is then whole, but for the first superblock: that one is written last.
fn is_volume(path: &Path) -> bool {
    if !medium(path).is_ok_and(|medium| Fs::probe(&medium).is_ok()) {
        return false;
    }
    let report = fsck::check(medium(path).unwrap(), &fsck::Options::default(), &mut |_| ()).unwrap();
    let is_first = |object| matches!(object, &fsck::Object::Superblock { block: 0 });
    let others: Vec<_> = report.findings.iter().filter(|finding| !is_first(&finding.object)).collect();
    assert!(others.is_empty(), "{others:?}");
    true
}

/// What a kill left is nothing, or a volume, or can be made again.
fn assert_can_be_used(bench: &Workbench, before: Before, again: &[&str]) {
    let path = bench.volume();
    if !is_volume(&path) {
        assert!(path.exists() || matches!(before, Before::Nothing), "the file is gone");
        succeed(&mut mkfs(&path, again));
        assert!(is_volume(&path));
    }
    let left: Vec<_> =
        fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lode.vol"], "nothing else is left");
}

/// Kills `mkfs` at each of its calls, and looks at what is left.
fn kill_at_each_call(before: Before, further: &[&str], again: &[&str]) {
    let bench = Workbench::new();
    let path = bench.volume();
    // Before a call there is what was there after the one before.
    for stops in (0..).step_by(2) {
        assert!(stops < 20_000, "it never ends");
        before.set_up(&path);
        let ended = kill_at_call(&mut mkfs(&path, further), stops);
        if let Some(status) = ended {
            assert!(status.success(), "{status}");
            assert!(stops > 100, "so few calls make no volume: {stops}");
            assert_eq!(info(&path)["label"], "new");
            return;
        }
        assert_can_be_used(&bench, before, again);
    }
}

#[test]
fn a_new_file_is_complete_or_not_there() {
    kill_at_each_call(Before::Nothing, &["--size", "2M"], &["--size", "2M"]);
}

#[test]
fn an_empty_file_can_be_made_again() {
    kill_at_each_call(Before::EmptyFile, &["--size", "2M"], &["--size", "2M"]);
}

#[test]
fn a_file_that_has_its_size_can_be_made_again() {
    kill_at_each_call(Before::Hole, &[], &[]);
}

#[test]
fn an_old_volume_is_whole_or_can_be_made_again() {
    kill_at_each_call(Before::Volume, &["--force"], &[]);
}
