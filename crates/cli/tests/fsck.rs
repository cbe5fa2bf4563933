//! `lodefs fsck`: what it says, and its exit status.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use common::{Workbench, fail, lodefs, succeed};

fn status_of(arguments: &[&str], bench: &Workbench) -> (Option<i32>, String) {
    let output = lodefs(["fsck"]).args(arguments).arg(bench.volume()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_new_volume_is_clean_and_a_damaged_one_is_repaired() {
    let bench = Workbench::new();
    succeed(lodefs(["mkfs", "--size", "8M"]).arg(bench.volume()));
    let (status, text) = status_of(&[], &bench);
    assert_eq!(status, Some(0));
    assert!(text.contains(": clean; 1 inodes, 1 of them directories"), "{text}");

    // The second copy of the superblock, in the last block.
    let file = OpenOptions::new().write(true).open(bench.volume()).unwrap();
    file.write_all_at(b"damage", (8 << 20) - 4096 + 50).unwrap();
    let before = fs::read(bench.volume()).unwrap();
    let (status, text) = status_of(&[], &bench);
    assert_eq!(status, Some(4));
    assert!(text.contains("superblock in block 2047: one copy of the superblock is damaged"), "{text}");
    assert!(before == fs::read(bench.volume()).unwrap(), "a check changes nothing");

    let (status, json) = status_of(&["--json"], &bench);
    assert_eq!(status, Some(4));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["clean"], &json["blocks_total"]), (&false.into(), &2048.into()));
    assert_eq!(json["findings"][0]["code"], "superblock-damaged");

    let (status, text) = status_of(&["--repair", "--yes"], &bench);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("repaired: it is written again from the other copy"), "{text}");
    assert_eq!(status_of(&[], &bench).0, Some(0));
}

#[test]
fn what_is_no_volume_and_wrong_usage_have_a_status_of_their_own() {
    let bench = Workbench::new();
    assert!(fail(8, lodefs(["fsck"]).arg(bench.volume())).contains("there is no such file"));
    fs::write(bench.volume(), vec![b'x'; 1 << 20]).unwrap();
    assert!(fail(8, lodefs(["fsck"]).arg(bench.volume())).contains("not a lodefs volume"));
    assert!(fail(8, lodefs(["fsck", "--repair"]).arg(bench.volume())).contains("add --yes"));
    assert_eq!(lodefs(["fsck", "--nonsense"]).output().unwrap().status.code(), Some(16));
    assert_eq!(lodefs(["fsck", "--help"]).output().unwrap().status.code(), Some(0));
}
