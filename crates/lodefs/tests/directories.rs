//! Directories: listing, walking, removing, links, flags.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use lodefs::{File, Flags, Kind, RenameMode, Volume, XattrMode, errno};

fn volume() -> Volume {
    Volume::in_memory(32 << 20).unwrap()
}

#[test]
fn a_large_directory_is_listed_once_while_it_changes() {
    let volume = volume();
    volume.create_dir("d").unwrap();
    let names: BTreeSet<String> = (0..5000).map(|i| format!("name {i}")).collect();
    for name in &names {
        volume.write(format!("d/{name}"), "").unwrap();
    }
    let mut listed = BTreeSet::new();
    for (i, entry) in volume.read_dir("d").unwrap().enumerate() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        // What has been listed goes, and others come, which may be listed or not.
        volume.remove_file(format!("d/{name}")).unwrap();
        if i < 5000 {
            volume.write(format!("d/new {i}"), "").unwrap();
        }
        assert!(listed.insert(name.clone()), "{name} is listed twice");
    }
    assert!(listed.is_superset(&names));
}

#[test]
fn entries_say_what_they_are() {
    let volume = volume();
    volume.create_dir("d").unwrap();
    volume.write("d/f", "123").unwrap();
    volume.symlink("nowhere", "d/l").unwrap();
    let mut entries: Vec<_> = volume.read_dir("d/").unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_name().to_owned());
    let kinds: Vec<_> = entries.iter().map(|entry| entry.file_type().kind()).collect();
    assert_eq!(kinds, [Kind::File, Kind::Symlink]);
    assert_eq!(entries[0].path().to_str(), Some("d/f"));
    assert_eq!(entries[0].metadata().unwrap().len(), 3);
    assert_eq!(entries[1].metadata().unwrap().len(), 7, "of the link itself");
    assert_eq!(entries[0].ino(), entries[0].metadata().unwrap().ino());
    volume.remove_file("d/f").unwrap();
    assert_eq!(entries[0].metadata().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(volume.read_dir("d/l").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_walk_lists_directories_before_what_is_in_them() {
    let volume = volume();
    for dir in ["a/b/c", "a/skipped/x", "z"] {
        volume.create_dir_all(dir).unwrap();
    }
    volume.write("a/b/f", "").unwrap();
    volume.symlink("..", "a/b/up").unwrap();
    let mut walk = volume.walk(".").unwrap();
    let mut seen: Vec<(String, usize)> = Vec::new();
    while let Some(entry) = walk.next() {
        let entry = entry.unwrap();
        if entry.file_name() == "skipped" {
            walk.skip_dir();
        }
        let path = entry.path().to_str().unwrap().to_owned();
        let parent = entry.path().parent().unwrap().to_str().unwrap().to_owned();
        assert!(
            parent == "." || seen.iter().any(|(seen, _)| *seen == parent),
            "{path} comes before {parent}"
        );
        seen.push((path, entry.depth()));
    }
    seen.sort();
    let expected = [
        ("./a", 0),
        ("./a/b", 1),
        ("./a/b/c", 2),
        ("./a/b/f", 2),
        ("./a/b/up", 2),
        ("./a/skipped", 1),
        ("./z", 0),
    ];
    assert_eq!(seen, expected.map(|(path, depth)| (path.to_owned(), depth)));
}

#[test]
fn a_tree_is_removed_whatever_is_in_it() {
    let volume = volume();
    volume.write("outside", "stays").unwrap();
    volume.create_dir_all("t/a/b").unwrap();
    volume.write("t/a/b/f", "x").unwrap();
    volume.symlink("../outside", "t/link").unwrap();
    volume.symlink("..", "t/a/up").unwrap();
    volume.symlink("t", "to_t").unwrap();
    for i in 0..1000 {
        volume.write(format!("t/a/{i}"), "").unwrap();
    }
    volume.remove_dir_all("to_t").unwrap();
    assert!(volume.exists("t/a/b/f").unwrap(), "only the link is gone");
    assert_eq!(volume.remove_dir_all("outside").unwrap_err().kind(), ErrorKind::NotADirectory);
    volume.remove_dir_all("t").unwrap();
    let left: Vec<_> =
        volume.read_dir("/").unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    assert_eq!(left, ["outside"]);
}

/// Deeper than a stack would be.
#[test]
fn a_very_deep_tree_can_be_walked_and_removed() {
    let volume = volume();
    let before = volume.space().blocks_free;
    volume.create_dir("top").unwrap();
    let mut dir = volume.open_dir("top").unwrap();
    for _ in 0..3000 {
        dir.create_dir("d").unwrap();
        dir = dir.open_dir("d").unwrap();
    }
    drop(dir);
    assert_eq!(volume.walk("top").unwrap().last().unwrap().unwrap().depth(), 2999);
    volume.remove_dir_all("top").unwrap();
    assert!(!volume.exists("top").unwrap());
    // Chunks of inodes, and the leaf of the root, stay.
    assert!(volume.space().blocks_free + 1200 > before);
}

#[test]
fn an_immutable_file_keeps_its_tree() {
    let volume = volume();
    volume.create_dir_all("t/d").unwrap();
    volume.write("t/d/f", "").unwrap();
    volume.set_flags("t/d/f", Flags::IMMUTABLE).unwrap();
    assert_eq!(volume.remove_dir_all("t").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(volume.exists("t/d/f").unwrap());
    volume.set_flags("t/d/f", Flags::empty()).unwrap();
    volume.remove_dir_all("t").unwrap();
}

#[test]
fn an_append_only_file_is_only_appended_to() {
    let volume = volume();
    volume.write("log", "1").unwrap();
    volume.set_flags("log", Flags::APPEND).unwrap();
    assert_eq!(volume.write("log", "").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(volume.rename("log", "other").unwrap_err().kind(), ErrorKind::PermissionDenied);
    let file = lodefs::OpenOptions::new().append(true).open(&volume, "log").unwrap();
    file.append(b"2").unwrap();
    assert_eq!(volume.read("log").unwrap(), b"12");
    assert_eq!(errno(&volume.set_flags("/", Flags::from_bits_retain(1 << 20)).unwrap_err()), Some(95));
}

#[test]
fn all_parents_are_made() {
    let volume = volume();
    volume.create_dir_all("a/b/c").unwrap();
    volume.create_dir_all("a/b/c").unwrap();
    volume.create_dir_all("/a/./b/../x//y/").unwrap();
    assert!(volume.metadata("a/x/y").unwrap().is_dir());
    volume.symlink("a", "l").unwrap();
    volume.create_dir_all("l/z").unwrap();
    volume.write("a/f", "").unwrap();
    assert_eq!(volume.create_dir_all("a/f").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(volume.create_dir_all("a/f/x").unwrap_err().kind(), ErrorKind::NotADirectory);
    volume.symlink("gone", "dangling").unwrap();
    assert_eq!(volume.create_dir_all("dangling/x").unwrap_err().kind(), ErrorKind::AlreadyExists);
    volume.create_dir_all("/").unwrap();
    assert_eq!(volume.metadata("a").unwrap().nlink(), 5);
}

#[test]
fn threads_make_the_same_tree() {
    let volume = volume();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..50 {
                    volume.create_dir_all(format!("{i}/a/b/c")).unwrap();
                    File::create(&volume, format!("{i}/f")).unwrap();
                }
            });
        }
    });
    assert_eq!(volume.walk("/").unwrap().count(), 50 * 5);
}

#[test]
fn links_share_a_file() {
    let volume = volume();
    volume.write("f", "x").unwrap();
    volume.hard_link("f", "g").unwrap();
    volume.write("g", "yz").unwrap();
    assert_eq!(volume.read("f").unwrap(), b"yz");
    assert_eq!(volume.metadata("f").unwrap().nlink(), 2);
    volume.create_dir("d").unwrap();
    assert_eq!(volume.hard_link("d", "e").unwrap_err().kind(), ErrorKind::PermissionDenied);
    volume.symlink("f", "s").unwrap();
    volume.hard_link("s", "t").unwrap();
    assert!(volume.symlink_metadata("t").unwrap().is_symlink());
    assert_eq!(volume.read_link("t").unwrap().to_str(), Some("f"));
    let long = "x".repeat(4095);
    volume.symlink(&long, "long").unwrap();
    assert_eq!(volume.read_link("long").unwrap().to_str(), Some(long.as_str()));
    assert_eq!(volume.symlink("x".repeat(4096), "longer").unwrap_err().kind(), ErrorKind::InvalidFilename);
}

#[test]
fn renames_stay_within_a_volume() {
    let (volume, other) = (volume(), volume());
    volume.write("f", "").unwrap();
    let refused = volume.rename_with("f", &other, "f", RenameMode::Replace).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CrossesDevices);
    volume.create_dir_all("a/b").unwrap();
    let b = volume.open_dir("a/b").unwrap();
    volume.rename_with("f", &b, "g", RenameMode::Whiteout).unwrap();
    assert_eq!(volume.metadata("f").unwrap().file_type().kind(), Kind::CharDevice);
    volume.rename("a", "z").unwrap();
    assert!(b.exists("g").unwrap() && volume.exists("z/b/g").unwrap(), "an open directory moves along");
    assert!(b.exists("../../z").unwrap());
}

#[test]
fn attributes_by_path() {
    let volume = volume();
    volume.write("f", "").unwrap();
    volume.symlink("f", "l").unwrap();
    volume.set_owner("l", Some(7), Some(8)).unwrap();
    assert_eq!(volume.symlink_metadata("l").unwrap().uid(), 7, "of the link itself");
    assert_eq!(volume.metadata("l").unwrap().ino(), volume.metadata("f").unwrap().ino());
    volume.set_xattr("l", "user.x", "1").unwrap();
    assert_eq!(volume.xattr_names("f").unwrap(), ["user.x"]);
    let create = volume.set_xattr_with("f", "user.x", "2", XattrMode::Create);
    assert_eq!(create.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(errno(&volume.set_xattr_with("f", "user.y", "2", XattrMode::Replace).unwrap_err()), Some(61));
    assert_eq!(errno(&volume.set_xattr("f", "x", "").unwrap_err()), Some(95));
    assert_eq!(errno(&volume.set_xattr("f", "user.x", vec![0; 65537]).unwrap_err()), Some(7));
    volume.remove_xattr("f", "user.x").unwrap();
    assert!(volume.xattr_names("f").unwrap().is_empty());
}

#[test]
fn a_directory_that_is_gone_takes_nothing_in() {
    let volume = volume();
    volume.create_dir("d").unwrap();
    let dir = volume.open_dir("d").unwrap();
    volume.remove_dir("d").unwrap();
    assert_eq!(dir.write("f", "").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.read_dir(".").unwrap().count(), 0);
    assert!(dir.tmpfile().is_err());
}
