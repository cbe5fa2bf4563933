//! Attributes that somebody asks for at the moment of a change: what the kernel remembers afterwards is not old.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use super::common::{Workbench, can_mount};
use super::seen::status;

/// Changes of each kind.
const CHANGES: usize = 400;

type Change = (&'static str, fn(&Path, usize));

const KINDS: [Change; 8] = [
    ("create", |at, number| {
        File::create(at.join(format!("c{number}"))).unwrap();
    }),
    ("mkdir", |at, number| fs::create_dir(at.join(format!("d{number}"))).unwrap()),
    ("rename", |at, number| {
        fs::rename(at.join(format!("c{number}")), at.join(format!("e{number}"))).unwrap();
    }),
    ("link", |at, number| fs::hard_link(at.join("f"), at.join(format!("l{number}"))).unwrap()),
    ("setxattr", |at, number| {
        let value = vec![b'v'; number % 2 * 5000 + 1];
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at.join("f"), "user.x", &value, none).unwrap();
    }),
    ("chmod", |at, number| {
        let mode = 0o600 + (number as u32 & 7);
        fs::set_permissions(at.join("f"), fs::Permissions::from_mode(mode)).unwrap();
    }),
    ("write", |at, number| {
        let file = fs::OpenOptions::new().write(true).open(at.join("f")).unwrap();
        file.write_all_at(b"x", number as u64).unwrap();
    }),
    ("fallocate", |at, number| {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).custom_flags(libc::O_CLOEXEC).open(at.join("f")).unwrap();
        let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, keep, number as u64 * 4096, 4096).unwrap();
    }),
];

#[test]
fn attributes_that_are_asked_for_beside_a_change_are_not_remembered_for_ever() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let at = mounted.directory.as_path();
    fs::write(at.join("f"), "x").unwrap();
    let mut stale = Vec::new();
    for (name, change) in KINDS {
        let start = Barrier::new(2);
        let mut count = 0;
        for number in 0..CHANGES {
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    for name in [".", "f", ".", "f"] {
                        status(at, name, libc::AT_STATX_FORCE_SYNC);
                    }
                });
                start.wait();
                change(at, number);
            });
            let differs = |name: &&str| status(at, name, 0) != status(at, name, libc::AT_STATX_FORCE_SYNC);
            count += [".", "f"].iter().filter(|name| differs(name)).count();
        }
        if count > 0 {
            stale.push((name, count));
        }
    }
    assert!(stale.is_empty(), "of {CHANGES} changes each: {stale:?}");
    mounted.unmount();
}
