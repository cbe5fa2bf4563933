//! `lodefs mkfs` and `lodefs info` without a mount: what is made, what is never overwritten, what is said.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::{Workbench, fail, info, lodefs, succeed};
use lodefs_layout::superblock::Superblock;
use rustix::fs::{FlockOperation, flock};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

fn mkfs(path: &Path, further: &[&str]) -> Command {
    let mut command = lodefs(["mkfs"]);
    command.args(further).arg(path);
    command
}

/// The inode map alone has a GiB on a volume of a TiB.
#[test]
fn a_sparse_volume_takes_room_only_for_what_is_written() {
    use std::os::unix::fs::MetadataExt as _;

    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("v");
    succeed(lodefs(["mkfs", "--sparse", "--size", "64G"]).arg(&path));
    let taken = fs::metadata(&path).unwrap().blocks() * 512;
    // The saved bitmap has 2 MiB.
    assert!(taken < 4 << 20, "{taken} bytes");
}

#[test]
fn a_volume_is_what_it_was_asked_to_be() {
    let bench = Workbench::new();
    let uuid = "01234567-89ab-4def-8123-456789abcdef";
    succeed(&mut mkfs(&bench.volume(), &["--size", "16M", "--label", "seam", "--uuid", uuid]));
    let report = info(&bench.volume());
    assert_eq!(report["label"], "seam");
    assert_eq!(report["uuid"], uuid);
    assert_eq!(report["size"], 16 << 20);
    assert_eq!(report["state"], "clean");
    assert_eq!(report["medium"]["forced"], false);
    assert!(report["mount"].is_null());
    assert_eq!(fs::metadata(bench.volume()).unwrap().len(), 16 << 20);
}

#[test]
fn a_forced_domain_is_reported_as_forced() {
    let bench = Workbench::new();
    succeed(&mut mkfs(&bench.volume(), &["--size", "16M"]));
    let text = succeed(lodefs(["info"]).arg(bench.volume()).env("LODEFS_FORCE_DOMAIN", "cpu-cache"));
    assert!(text.contains("cpu-cache, forced"), "{text}");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let bench = Workbench::new();
    let volume = bench.volume();
    succeed(&mut mkfs(&volume, &["--size", "16M", "--label", "first"]));
    assert!(fail(1, &mut mkfs(&volume, &[])).contains("volume 'first'"));
    assert!(fail(1, &mut mkfs(&volume, &["--size", "32M"])).contains("--force"));
    assert_eq!(info(&volume)["label"], "first");

    let diary = bench.path("diary");
    fs::write(&diary, "dear diary").unwrap();
    assert!(fail(1, &mut mkfs(&diary, &["--size", "16M"])).contains("content"));
    assert_eq!(fs::read_to_string(&diary).unwrap(), "dear diary");
}

#[test]
fn force_overwrites_and_may_change_the_size() {
    let bench = Workbench::new();
    let volume = bench.volume();
    succeed(&mut mkfs(&volume, &["--size", "16M", "--label", "first"]));
    succeed(&mut mkfs(&volume, &["--force", "--label", "second"]));
    assert_eq!(info(&volume)["label"], "second");
    succeed(&mut mkfs(&volume, &["--force", "--size", "8M"]));
    assert_eq!(info(&volume)["size"], 8 << 20);
    // A size that is impossible must not cost the content.
    fail(1, &mut mkfs(&volume, &["--force", "--size", "1K"]));
    assert_eq!(info(&volume)["size"], 8 << 20);
}

#[test]
fn a_volume_in_use_is_not_overwritten_even_by_force() {
    let bench = Workbench::new();
    let volume = bench.volume();
    succeed(&mut mkfs(&volume, &["--size", "16M", "--label", "mine"]));
    let user = File::open(&volume).unwrap();
    flock(&user, FlockOperation::NonBlockingLockExclusive).unwrap();
    for further in [&[][..], &["--force"], &["--force", "--size", "8M"]] {
        assert!(fail(1, &mut mkfs(&volume, further)).contains("in use"));
    }
    assert_eq!(info(&volume)["state"], "in-use");
    drop(user);
    assert_eq!(info(&volume)["label"], "mine");
}

#[test]
fn a_sparse_volume_takes_little_room() {
    use std::os::unix::fs::MetadataExt;
    let bench = Workbench::new();
    succeed(&mut mkfs(&bench.volume(), &["--size", "256M", "--sparse"]));
    assert!(fs::metadata(bench.volume()).unwrap().blocks() * 512 < 64 << 20);
}

#[test]
fn a_file_without_content_may_be_used_as_it_is() {
    let bench = Workbench::new();
    File::create(bench.volume()).unwrap().set_len(16 << 20).unwrap();
    succeed(&mut mkfs(&bench.volume(), &[]));
    assert_eq!(info(&bench.volume())["size"], 16 << 20);
}

#[test]
fn impossible_volumes_are_refused_and_leave_nothing() {
    let bench = Workbench::new();
    let volume = bench.volume();
    for (further, word) in [
        (&[][..], "--size"),
        (&["--size", "1000K"], "too small"),
        (&["--size", "65T"], "too large"),
        (&["--size", "16M", "--label", &"x".repeat(65)], "label"),
    ] {
        let message = fail(1, &mut mkfs(&volume, further));
        assert!(message.contains(word), "{message}");
        assert!(!volume.exists(), "{further:?} left a file behind");
    }
    assert!(fail(1, &mut mkfs(&bench.path("no/such"), &["--size", "16M"])).contains("no/such"));
    assert!(fail(1, &mut mkfs(bench.path("").as_path(), &["--size", "16M"])).contains("directory"));
}

#[test]
fn a_full_host_is_named() {
    if !common::can_mount() {
        return;
    }
    let bench = Workbench::new();
    // A small host of its own: asking the real one for more than it has would take all of it from everybody, if only
    // for a moment.
    let script =
        r#"mount -t tmpfs -o size=8M none "$2" && "$1" mkfs --size 16M "$2/lode.vol"; echo $?; ls "$2""#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_lodefs")])
        .arg(bench.path(""))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("lode.vol: the host has no room"), "{message}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "status 1, and no file left");
}

#[test]
fn damaged_and_foreign_images_are_told_apart() {
    let bench = Workbench::new();
    let volume = bench.volume();
    succeed(&mut mkfs(&volume, &["--size", "16M"]));
    let refusal = |path: &Path| fail(1, lodefs(["info"]).arg(path));

    let file = File::options().read(true).write(true).open(&volume).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0).unwrap();
    let mut newer = Superblock::read_from_prefix(&block).unwrap().0;
    newer.version = U32::new(newer.version.get() + 1);
    for at in [0, (16 << 20) - 4096] {
        file.write_all_at(newer.sealed().as_bytes(), at).unwrap();
    }
    assert!(refusal(&volume).contains("newer lodefs"));
    for at in [0, (16 << 20) - 4096] {
        file.write_all_at(&block, at).unwrap();
    }
    file.set_len(8 << 20).unwrap();
    let output = lodefs(["info"]).arg(&volume).output().unwrap();
    let (text, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("damaged") && message.contains("truncated"), "{text}{message}");
    file.set_len(0).unwrap();
    assert!(refusal(&volume).contains("empty"));
    fs::write(&volume, vec![b'x'; 16 << 20]).unwrap();
    assert!(refusal(&volume).contains("not a lodefs volume"));
    assert!(refusal(&bench.path("none")).contains("no such file"));
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    let bench = Workbench::new();
    assert!(succeed(&mut lodefs(["completions", "bash"])).contains("umount"));
    succeed(lodefs(["man"]).arg(bench.path("man")));
    let page = fs::read_to_string(bench.path("man/lodefs-mount.1")).unwrap();
    assert!(page.contains("writeback"), "{page}");
}

#[test]
fn a_volume_that_has_lost_its_superblocks_is_not_given_up() {
    let bench = Workbench::new();
    let path = bench.volume();
    succeed(&mut mkfs(&path, &["--size", "16M"]));
    let file = File::options().write(true).open(&path).unwrap();
    for block in [0, (16 << 20) / 4096 - 1] {
        file.write_all_at(&[0; 4096], block * 4096).unwrap();
    }
    drop(file);
    let message = fail(1, lodefs(["info"]).arg(&path));
    assert!(message.contains("fsck --repair") && !message.contains("mkfs"), "{message}");
    let message = fail(1, &mut mkfs(&path, &[]));
    assert!(message.contains("fsck --repair"), "{message}");
    let status = |further: &[&str]| lodefs(["fsck"]).args(further).arg(&path).output().unwrap().status.code();
    assert_eq!([status(&[]), status(&["--repair", "--yes"]), status(&[])], [Some(4), Some(1), Some(0)]);
    assert_eq!(info(&path)["state"], "clean");
}
