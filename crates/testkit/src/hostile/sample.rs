//! A volume with some of everything, made once, and what is on it.

#![expect(
    clippy::missing_panics_doc,
    reason = "the volume is in order, or the test is wrong and has to fail"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use lodefs_core::{Fallocate, Fs, Kind, NewInode, NewKind, Node, OpenOptions, SetAttr, XattrMode};
use lodefs_pmem::{Access, Domain, Medium};

use super::image::Image;

/// Bytes in the sample volume.
pub const SIZE: u64 = 8 << 20;
/// Files in the directory `/big`: enough for several leaves below a node.
pub const BIG: u32 = 300;

/// A volume that was closed properly, and the inodes of its paths.
pub struct Sample {
    /// The volume.
    pub image: Image,
    inodes: BTreeMap<String, u64>,
}

impl Sample {
    /// The inode that a path leads to.
    pub fn ino(&self, path: &str) -> u64 {
        self.inodes[path]
    }
}

/// The sample volume.
pub static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let image = Image::made_with(SIZE, fill);
    let inodes = contents(&image).into_iter().map(|(path, content)| (path, content.ino)).collect();
    Sample { image, inodes }
});

fn new(kind: NewKind<'_>) -> NewInode<'_> {
    NewInode { kind, perm: 0o750, umask: 0, uid: 7, gid: 8 }
}

/// Makes some of everything.
pub fn fill(fs: &Arc<Fs>) {
    let root = fs.root().unwrap();
    let make =
        |dir: &Node, name: &str, kind: NewKind<'_>| fs.create(dir, name.as_bytes(), &new(kind)).unwrap();
    let write = |file: &Node, offset: u64, byte: u8, size: usize| {
        assert_eq!(fs.write(file, offset, &vec![byte; size], false).unwrap(), size);
    };
    let plain = make(&root, "plain", NewKind::File);
    write(&plain, 0, 1, 50_000);
    let other = make(&root, "other", NewKind::File);
    write(&other, 0, 2, 30_000);
    make(&root, "empty", NewKind::File);
    // Every second block: as many extents as blocks, in several extent blocks.
    let scattered = make(&root, "scattered", NewKind::File);
    for i in 0..300 {
        write(&scattered, i * 8192, i as u8, 4096);
    }
    let few = make(&root, "few", NewKind::File);
    for i in 0..3 {
        write(&few, i * 40_960, 3, 5000);
    }
    let reserved = make(&root, "reserved", NewKind::File);
    write(&reserved, 0, 4, 100);
    fs.fallocate(&reserved, Fallocate::Allocate { keep_size: true }, 0, 100_000).unwrap();
    make(&root, "link", NewKind::Symlink(b"plain"));
    make(&root, "longlink", NewKind::Symlink(&[b'x'; 1000]));
    make(&root, "fifo", NewKind::Fifo);
    make(&root, "socket", NewKind::Socket);
    make(&root, "char", NewKind::CharDevice(0x0103));
    make(&root, "block", NewKind::BlockDevice(0x0801));
    fs.link(&plain, &root, b"hard").unwrap();
    for (name, value) in [("user.one", &b"1"[..]), ("security.two", &[2; 5000]), ("trusted.three", b"")] {
        fs.set_xattr(&other, name.as_bytes(), value, XattrMode::Set).unwrap();
    }
    fs.set_xattr(&few, b"system.posix_acl_access", &acl(), XattrMode::Set).unwrap();
    let dir = make(&root, "dir", NewKind::Directory);
    fs.set_xattr(&dir, b"system.posix_acl_default", &acl(), XattrMode::Set).unwrap();
    make(&dir, "child", NewKind::File);
    let sub = make(&dir, "sub", NewKind::Directory);
    let deep = make(&sub, "deep", NewKind::Directory);
    let file = make(&deep, "file", NewKind::File);
    write(&file, 10, 5, 9000);
    make(&root, "emptydir", NewKind::Directory);
    let big = make(&root, "big", NewKind::Directory);
    for i in 0..BIG {
        let file = make(&big, &format!("a file with a longer name, number {i}"), NewKind::File);
        if i % 50 == 0 {
            write(&file, 0, i as u8, 200);
        }
    }
    let gone = make(&root, "gone", NewKind::File);
    write(&gone, 0, 6, 20_000);
    drop(gone);
    fs.unlink(&root, b"gone").unwrap();
    fs.set_attr(&other, &SetAttr { size: Some(29_999), ..SetAttr::default() }).unwrap();
}

/// An access control list with a named user.
pub(crate) fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 6, 1234), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 4, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// All that a user sees of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its number.
    pub ino: u64,
    /// Its attributes, as text.
    pub attr: String,
    /// Content of a file, or target of a symbolic link.
    pub bytes: Vec<u8>,
    /// Names and values of its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything on a volume that can be reached, by path.
pub fn contents(image: &Image) -> BTreeMap<String, Content> {
    let medium = Medium::from_image(image.bytes(), Domain::Volatile, Access::ReadOnly).unwrap();
    let fs = Fs::open(medium, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap();
    let mut found = BTreeMap::new();
    visit(&fs, &fs.root().unwrap(), "", &mut found);
    found
}

fn visit(fs: &Fs, node: &Node, path: &str, found: &mut BTreeMap<String, Content>) {
    let attr = fs.attr(node).unwrap();
    let mut names = Vec::new();
    let bytes = match attr.kind {
        Kind::File => {
            let mut bytes = vec![0; attr.size as usize];
            assert_eq!(fs.read(node, 0, &mut bytes).unwrap(), bytes.len());
            bytes
        }
        Kind::Symlink => fs.read_link(node).unwrap(),
        Kind::Directory => {
            fs.read_dir(node, 0, &mut |entry| {
                names.push(String::from_utf8_lossy(&entry.name).into_owned());
                true
            })
            .unwrap();
            names.retain(|name| name != "." && name != "..");
            Vec::new()
        }
        _ => Vec::new(),
    };
    let list = fs.list_xattr(node).unwrap();
    let xattrs = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let xattrs = xattrs.map(|name| (name.to_vec(), fs.get_xattr(node, name).unwrap())).collect();
    // Links and size of a directory change when something in it does.
    let of_directory = attr.kind == Kind::Directory;
    let numbers = if of_directory { (0, 0, 0) } else { (attr.links, attr.size, attr.sectors) };
    let times = if of_directory {
        (attr.btime, attr.btime, attr.btime)
    } else {
        (attr.mtime, attr.ctime, attr.btime)
    };
    let attr = format!(
        "{:?} {:o} {} {} {} {numbers:?} {times:?}",
        attr.kind, attr.perm, attr.uid, attr.gid, attr.rdev
    );
    found.insert(path.to_owned(), Content { ino: node.ino().0, attr, bytes, xattrs });
    for name in names {
        let child = fs.lookup(node, name.as_bytes()).unwrap();
        visit(fs, &child, &format!("{path}/{name}"), found);
    }
}
