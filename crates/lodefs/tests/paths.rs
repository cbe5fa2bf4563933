//! Paths lead where they lead on Linux, and are refused as there: the same operation on the same tree, by this library
//! and by the host, must have the same result and leave the same tree.

use std::collections::BTreeMap;
use std::fs::File as HostFile;
use std::os::fd::OwnedFd;
use std::path::Path;

use lodefs::{Dir, File, OpenOptions, RenameMode, Volume, errno};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Paths that are tried, from within `outer/base`.
fn paths() -> Vec<String> {
    let fixed = [
        "",
        ".",
        "./",
        "..",
        "../",
        "../base",
        "../base/f",
        "../..",
        "d",
        "d/",
        "d//",
        "d/.",
        "d/..",
        "d/../f",
        "d/f",
        "d//f",
        "./d/./f",
        "d/f/",
        "d/f/.",
        "d/f/..",
        "d/f/x",
        "d/up",
        "d/up/",
        "d/missing",
        "d/missing/",
        "d/missing/x",
        "e",
        "e/",
        "e/.",
        "e/..",
        "e/new",
        "e/new/",
        "f",
        "f/",
        "f/.",
        "f/x",
        "to_f",
        "to_f/",
        "to_f/.",
        "to_d",
        "to_d/",
        "to_d/.",
        "to_d/..",
        "to_d/f",
        "to_d/../f",
        "to_d_slash",
        "to_f_slash",
        "to_e",
        "to_e/",
        "nowhere",
        "nowhere/",
        "nowhere/.",
        "nowhere/x",
        "into_e",
        "into_e/",
        "self",
        "self/",
        "self/x",
        "chain0",
        "chain1",
        "chain0/",
        "missing",
        "missing/",
        "missing/.",
        "missing/..",
        "missing/x",
    ];
    let mut paths: Vec<String> = fixed.map(str::to_owned).to_vec();
    paths.extend([
        "x".repeat(255),
        "x".repeat(256),
        format!("{}/x", "x".repeat(256)),
        "é\u{1f980}".to_owned(),
    ]);
    paths
}

/// Symbolic links: name and target.
fn links() -> Vec<(String, String)> {
    let fixed = [
        ("to_f", "f"),
        ("to_d", "d"),
        ("to_d_slash", "d/"),
        ("to_f_slash", "f/"),
        ("to_e", "e"),
        ("nowhere", "no/where"),
        ("into_e", "e/made"),
        ("self", "self"),
        ("d/up", "../f"),
    ];
    let mut links: Vec<_> = fixed.map(|(name, target)| (name.to_owned(), target.to_owned())).to_vec();
    // From `chain0` it is 41 links to `f`, one too many.
    links.extend((0..40).map(|i| (format!("chain{i}"), format!("chain{}", i + 1))));
    links.push(("chain40".to_owned(), "f".to_owned()));
    links
}

const OPERATIONS: [&str; 22] = [
    "stat",
    "lstat",
    "readlink",
    "open",
    "open-nofollow",
    "open-write",
    "create",
    "create-new",
    "create-nofollow",
    "mkdir",
    "rmdir",
    "unlink",
    "symlink",
    "link-from",
    "link-to",
    "rename-file-to",
    "rename-dir-to",
    "rename-empty-to",
    "rename-from",
    "rename-from-slash",
    "exchange",
    "no-replace",
];

type Outcome = Result<(), i32>;

fn embedded(base: &Dir, operation: &str, path: &str) -> Outcome {
    let mut options = OpenOptions::new();
    let rename = |from: &str, to: &str, mode| base.rename_with(from, base, to, mode);
    let done = match operation {
        "stat" => base.metadata(path).map(drop),
        "lstat" => base.symlink_metadata(path).map(drop),
        "readlink" => base.read_link(path).map(drop),
        "open" => File::open(base, path).map(drop),
        "open-nofollow" => options.read(true).no_follow(true).open(base, path).map(drop),
        "open-write" => options.write(true).open(base, path).map(drop),
        "create" => options.write(true).create(true).open(base, path).map(drop),
        "create-new" => options.write(true).create_new(true).open(base, path).map(drop),
        "create-nofollow" => options.write(true).create(true).no_follow(true).open(base, path).map(drop),
        "mkdir" => base.create_dir(path),
        "rmdir" => base.remove_dir(path),
        "unlink" => base.remove_file(path),
        "symlink" => base.symlink("target", path),
        "link-from" => base.hard_link(path, "new"),
        "link-to" => base.hard_link("f", path),
        "rename-file-to" => rename("f", path, RenameMode::Replace),
        "rename-dir-to" => rename("d", path, RenameMode::Replace),
        "rename-empty-to" => rename("e", path, RenameMode::Replace),
        "rename-from" => rename(path, "new", RenameMode::Replace),
        "rename-from-slash" => rename(path, "new/", RenameMode::Replace),
        "exchange" => rename("f", path, RenameMode::Exchange),
        "no-replace" => rename("f", path, RenameMode::NoReplace),
        _ => unreachable!(),
    };
    done.map_err(|error| errno(&error).expect("an error of the system"))
}

fn on_host(base: &OwnedFd, operation: &str, path: &str) -> Outcome {
    let open = |flags| {
        let opened = rustix::fs::openat(base, path, flags | OFlags::CLOEXEC, Mode::from(0o666));
        // The library opens files and directories by different functions.
        opened.and_then(|fd| match rustix::fs::fstat(&fd)?.st_mode & 0o170_000 {
            0o040_000 => Err(rustix::io::Errno::ISDIR),
            _ => Ok(()),
        })
    };
    let rename = |from, to, flags| rustix::fs::renameat_with(base, from, base, to, flags);
    let none = RenameFlags::empty();
    let done = match operation {
        "stat" => rustix::fs::statat(base, path, AtFlags::empty()).map(drop),
        "lstat" => rustix::fs::statat(base, path, AtFlags::SYMLINK_NOFOLLOW).map(drop),
        "readlink" => rustix::fs::readlinkat(base, path, Vec::new()).map(drop),
        "open" => open(OFlags::RDONLY),
        "open-nofollow" => open(OFlags::RDONLY | OFlags::NOFOLLOW),
        "open-write" => open(OFlags::WRONLY),
        "create" => open(OFlags::WRONLY | OFlags::CREATE),
        "create-new" => open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL),
        "create-nofollow" => open(OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW),
        "mkdir" => rustix::fs::mkdirat(base, path, Mode::from(0o777)),
        "rmdir" => rustix::fs::unlinkat(base, path, AtFlags::REMOVEDIR),
        "unlink" => rustix::fs::unlinkat(base, path, AtFlags::empty()),
        "symlink" => rustix::fs::symlinkat("target", base, path),
        "link-from" => rustix::fs::linkat(base, path, base, "new", AtFlags::empty()),
        "link-to" => rustix::fs::linkat(base, "f", base, path, AtFlags::empty()),
        "rename-file-to" => rename("f", path, none),
        "rename-dir-to" => rename("d", path, none),
        "rename-empty-to" => rename("e", path, none),
        "rename-from" => rename(path, "new", none),
        "rename-from-slash" => rename(path, "new/", none),
        "exchange" => rename("f", path, RenameFlags::EXCHANGE),
        "no-replace" => rename("f", path, RenameFlags::NOREPLACE),
        _ => unreachable!(),
    };
    done.map_err(rustix::io::Errno::raw_os_error)
}

/// What is in a tree: for each path, what it says about itself.
type Tree = BTreeMap<String, String>;

fn make_embedded(volume: &Volume) -> Dir {
    volume.create_dir_all("outer/base").unwrap();
    let base = volume.open_dir("outer/base").unwrap();
    for dir in ["d", "e"] {
        base.create_dir(dir).unwrap();
    }
    for file in ["f", "d/f"] {
        base.write(file, file).unwrap();
    }
    for (name, target) in links() {
        base.symlink(target, name).unwrap();
    }
    base
}

fn tree_embedded(volume: &Volume) -> Tree {
    let entries = volume.walk("outer").unwrap().map(Result::unwrap);
    let describe = |entry: lodefs::WalkEntry| {
        let path = entry.path();
        let text = match entry.file_type() {
            kind if kind.is_dir() => "directory".to_owned(),
            kind if kind.is_symlink() => format!("-> {}", volume.read_link(path).unwrap().display()),
            _ => volume.read_to_string(path).unwrap(),
        };
        (path.strip_prefix("outer").unwrap().to_str().unwrap().to_owned(), text)
    };
    entries.map(describe).collect()
}

fn make_on_host(outer: &Path) -> OwnedFd {
    let base = outer.join("base");
    for dir in ["", "d", "e"] {
        std::fs::create_dir_all(base.join(dir)).unwrap();
    }
    for file in ["f", "d/f"] {
        std::fs::write(base.join(file), file).unwrap();
    }
    for (name, target) in links() {
        std::os::unix::fs::symlink(target, base.join(name)).unwrap();
    }
    HostFile::open(base).unwrap().into()
}

fn tree_on_host(outer: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![outer.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let text = if kind.is_dir() {
                left.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else {
                std::fs::read_to_string(&path).unwrap()
            };
            tree.insert(path.strip_prefix(outer).unwrap().to_str().unwrap().to_owned(), text);
        }
    }
    tree
}

/// The same tree in a volume and on the host.
struct Pair {
    volume: Volume,
    base: Dir,
    scratch: tempfile::TempDir,
    host_base: OwnedFd,
}

impl Pair {
    fn new() -> Self {
        let volume = Volume::in_memory(4 << 20).unwrap();
        let base = make_embedded(&volume);
        let scratch = tempfile::tempdir().unwrap();
        let host_base = make_on_host(&scratch.path().join("outer"));
        Self { volume, base, scratch, host_base }
    }

    fn trees_are_equal(&self) -> bool {
        tree_embedded(&self.volume) == tree_on_host(&self.scratch.path().join("outer"))
    }
}

#[test]
fn every_operation_on_every_path_is_as_on_the_host() {
    let mut differences = Vec::new();
    let mut pair = Pair::new();
    for operation in OPERATIONS {
        for path in paths() {
            let ours = embedded(&pair.base, operation, &path);
            let theirs = on_host(&pair.host_base, operation, &path);
            if ours != theirs {
                differences.push(format!("{operation} {path:?}: {ours:?}, on the host {theirs:?}"));
            } else if !pair.trees_are_equal() {
                differences.push(format!("{operation} {path:?} leaves another tree"));
            }
            if ours.is_ok() || theirs.is_ok() {
                pair = Pair::new();
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What cannot be tried on the host without changing its root directory.
#[test]
fn a_slash_at_the_start_is_the_root_of_the_volume() {
    let volume = Volume::in_memory(4 << 20).unwrap();
    volume.create_dir_all("a/b").unwrap();
    volume.write("f", "at the root").unwrap();
    volume.symlink("/f", "a/b/absolute").unwrap();
    volume.symlink("/", "a/b/root").unwrap();
    let b = volume.open_dir("a/b").unwrap();
    for path in
        ["/f", "//f", "absolute", "root/f", "../../f", "../../../../f", "/../f", "root/../a/b/absolute"]
    {
        assert_eq!(b.read_to_string(path).unwrap(), "at the root", "{path}");
    }
    for (outcome, expected) in [
        (b.create_dir("/"), "EEXIST 17"),
        (b.remove_dir("/"), "EBUSY 16"),
        (b.remove_file("/"), "EISDIR 21"),
        (b.rename("/", "x"), "EBUSY 16"),
        (b.rename("/f", "/"), "EBUSY 16"),
        (b.write("/", ""), "EISDIR 21"),
        (b.hard_link("/f", "/"), "EEXIST 17"),
        (b.remove_dir_all("/.."), "ENOTEMPTY 39"),
    ] {
        let found = errno(&outcome.unwrap_err()).unwrap().to_string();
        assert_eq!(expected.split(' ').next_back(), Some(found.as_str()), "{expected}");
    }
    assert!(volume.exists("a/b/absolute").unwrap() && volume.exists("f").unwrap());
}

/// A directory that cannot be removed keeps what is in it, by whatever path it is named.
#[test]
fn nothing_is_removed_of_a_directory_that_cannot_be_removed() {
    let volume = Volume::in_memory(4 << 20).unwrap();
    volume.create_dir_all("a/b/c").unwrap();
    volume.write("a/b/f", "").unwrap();
    volume.symlink("/", "a/root").unwrap();
    volume.symlink("b", "a/link").unwrap();
    let below = volume.open_dir("a/b").unwrap();
    for (dir, path, expected) in [
        (&*volume, "/", Errno::BUSY),
        (&*volume, "//", Errno::BUSY),
        (&below, "/", Errno::BUSY),
        (&*volume, ".", Errno::INVAL),
        (&*volume, "/.", Errno::INVAL),
        (&below, "./", Errno::INVAL),
        (&*volume, "a/b/.", Errno::INVAL),
        (&*volume, "..", Errno::NOTEMPTY),
        (&*volume, "a/..", Errno::NOTEMPTY),
        (&below, "../", Errno::NOTEMPTY),
        (&below, "c/..", Errno::NOTEMPTY),
        (&*volume, "a/root/", Errno::NOTDIR),
        (&*volume, "a/root/.", Errno::INVAL),
        (&*volume, "a/link/", Errno::NOTDIR),
        (&*volume, "a/b/f", Errno::NOTDIR),
        (&*volume, "a/b/f/", Errno::NOTDIR),
        (&*volume, "", Errno::NOENT),
    ] {
        let error = dir.remove_dir_all(path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(expected.raw_os_error()), "{path:?}");
        for name in ["a/b/c", "a/b/f", "a/root", "a/link"] {
            assert!(volume.symlink_metadata(name).is_ok(), "{path:?} removed {name:?}");
        }
    }
}

/// The path of the directory leads through what is removed first.
#[test]
fn a_tree_is_removed_by_a_path_through_itself() {
    let volume = Volume::in_memory(4 << 20).unwrap();
    volume.create_dir_all("a/b").unwrap();
    volume.symlink("../a", "a/up").unwrap();
    volume.remove_dir_all("a/b/../up/../a").unwrap();
    assert!(!volume.exists("a").unwrap());
    volume.create_dir_all("a/b").unwrap();
    volume.symlink("a", "link").unwrap();
    volume.remove_dir_all("link/../a/").unwrap();
    volume.remove_dir_all("link").unwrap();
    assert!(volume.read_dir("/").unwrap().next().is_none());
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;

    let volume = Volume::in_memory(4 << 20).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff\x01 \n");
    volume.write(name, "x").unwrap();
    assert_eq!(volume.read_dir("/").unwrap().next().unwrap().unwrap().file_name(), name);
    let with_nul = std::ffi::OsStr::from_bytes(b"a\0b");
    assert_eq!(volume.write(with_nul, "x").unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(volume.exists(with_nul).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

/// Longer than `PATH_MAX`, which is a limit of system calls.
#[test]
fn paths_may_be_long() {
    let volume = Volume::in_memory(16 << 20).unwrap();
    let path = vec!["d".repeat(200); 100].join("/");
    volume.create_dir_all(&path).unwrap();
    volume.write(format!("{path}/f"), "deep").unwrap();
    assert_eq!(volume.walk(".").unwrap().last().unwrap().unwrap().depth(), 100);
    assert_eq!(volume.read(format!("{path}/../{}/f", "d".repeat(200))).unwrap(), b"deep");
}
