//! Inodes by themselves, with attributes and symbolic links.

use lodefs_core::Ino;
use lodefs_core::fsck::{Code, Object};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::blob::{BLOB_HEAD_SIZE, BlobHead};
use lodefs_layout::inode::InodeSlot;
use zerocopy::FromZeros;

use crate::image::Image;
use crate::sample::SAMPLE;
use crate::seeded::Seeded;

/// Changes an inode.
type Edit = fn(&mut InodeSlot);
/// Damages something of an inode.
type Damage = fn(&mut Image, u64);

#[test]
fn inode_checksum_with_sound_content() {
    // The access time: everything that can be checked is right.
    let after = Seeded::new(|image, sample| image.flip(image.inode_at(sample.ino("/other")) + 50))
        .finds_at(Code::InodeChecksum, "/other")
        .touches("/other")
        .verify();
    assert_eq!(after["/other"].bytes.len(), 29_999);
}

#[test]
fn inode_checksum_of_directories() {
    for path in ["/dir", "/big", ""] {
        let seeded = Seeded::new(|image, sample| image.flip(image.inode_at(sample.ino(path)) + 50));
        seeded.finds_at(Code::InodeChecksum, path).verify();
    }
}

#[test]
fn inode_checksum_with_unsound_content() {
    let after = Seeded::new(|image, sample| {
        let at = image.inode_at(sample.ino("/plain"));
        image.bytes_mut()[at as usize + 10..][..200].fill(0x5a);
    })
    .finds_at(Code::InodeChecksum, "/plain")
    .touches("/plain")
    .touches("/hard")
    .verify();
    assert!(!after.contains_key("/plain") && !after.contains_key("/hard"));
}

#[test]
fn a_directory_that_is_gone_loses_no_files() {
    let after = Seeded::new(|image, sample| {
        let at = image.inode_at(sample.ino("/big"));
        image.bytes_mut()[at as usize + 10..][..200].fill(0x5a);
    })
    .finds_at(Code::InodeChecksum, "/big")
    .touches("/big")
    .verify();
    let before = crate::sample::contents(&SAMPLE.image);
    for (path, content) in before.iter().filter(|(path, _)| path.starts_with("/big/")) {
        let found = &after[&format!("/lost+found/#{}", content.ino)];
        assert!(found == content, "{path}");
    }
}

#[test]
fn inode_type() {
    let seeded = Seeded::new(|image, sample| {
        image.edit_inode(sample.ino("/plain"), |slot| slot.mode = 0o010_755_000.into());
    });
    let seeded = seeded.finds_at(Code::InodeType, "/plain").touches("/plain").touches("/hard");
    seeded.verify();
}

#[test]
fn inode_free_slot() {
    let free = (1..512).find(|ino| SAMPLE.image.inode(*ino).is_free()).unwrap();
    Seeded::new(|image, _| image.put(image.inode_at(free) + 100, &7_u32))
        .finds(Code::InodeFreeSlot, Object::Inode(Ino(free)))
        .verify();
}

#[test]
fn a_slot_whose_type_was_wiped_is_not_taken_for_a_free_one() {
    let ino = SAMPLE.ino("/empty");
    let root = SAMPLE.ino("");
    let at = SAMPLE.image.entry(root, "empty");
    let entry = Object::Entry { directory: Ino(root), block: at.block, tag: at.tag, name: b"empty".to_vec() };
    Seeded::new(|image, _| image.put(image.inode_at(ino) + 4, &0_u32))
        .finds(Code::InodeFreeSlot, Object::Inode(Ino(ino)))
        .finds(Code::EntryDangling, entry)
        .finds(Code::CounterWrong, Object::Counter("inodes in use"))
        .touches("/empty")
        .verify();
}

#[test]
fn inode_value() {
    let edits: [(&'static str, Edit); 10] = [
        ("/other", |slot| slot.mode = (slot.mode.get() | 0x4000_0000).into()),
        ("/other", |slot| slot.times_ns[2] = 1_000_000_000.into()),
        ("/empty", |slot| slot.size = (1 << 63).into()),
        ("/other", |slot| slot.rdev = 9.into()),
        ("/empty", |slot| slot.xattr_size = 9.into()),
        ("/fifo", |slot| slot.size = 9.into()),
        ("/other", |slot| slot.xflags = 0x1008.into()),
        ("/other", |slot| slot.uid = u32::MAX.into()),
        ("/other", |slot| slot.gid = u32::MAX.into()),
        ("/link", |slot| slot.inline[90] = 1),
    ];
    for (path, edit) in edits {
        Seeded::new(|image, sample| image.edit_inode(sample.ino(path), edit))
            .finds_at(Code::InodeValue, path)
            .touches(path)
            .verify();
    }
}

#[test]
fn an_impossible_size_becomes_that_of_the_content() {
    let after =
        Seeded::new(|image, sample| image.edit_inode(sample.ino("/few"), |slot| slot.size = u64::MAX.into()))
            .finds_at(Code::InodeValue, "/few")
            .touches("/few")
            .verify();
    assert_eq!(after["/few"].bytes.len(), 90_112);
}

#[test]
fn root_missing() {
    let seeded = Seeded::new(|image, _| {
        let at = image.inode_at(1);
        image.put(at, &InodeSlot::new_zeroed());
        image.edit_state(|state| state.used_inodes = (state.used_inodes.get() - 1).into());
    });
    // Everything that hangs from it loses its name.
    let seeded = seeded.finds_at(Code::RootMissing, "");
    let seeded = SAMPLE_TOP.iter().fold(seeded.touches(""), |seeded, path| seeded.touches(path));
    let after = seeded.verify();
    let before = crate::sample::contents(&SAMPLE.image);
    let kept = |path: &str, new: &str| assert!(before[path] == after[new], "{path}");
    kept("/other", &format!("/lost+found/#{}", SAMPLE.ino("/other")));
    let dir = SAMPLE.ino("/dir");
    kept("/dir/sub/deep/file", &format!("/lost+found/#{dir}/sub/deep/file"));
}

const SAMPLE_TOP: [&str; 17] = [
    "/plain",
    "/hard",
    "/other",
    "/empty",
    "/scattered",
    "/few",
    "/reserved",
    "/link",
    "/longlink",
    "/fifo",
    "/socket",
    "/char",
    "/block",
    "/dir",
    "/emptydir",
    "/big",
    "/lost+found",
];

#[test]
fn symlink_target() {
    let damages: [(&'static str, Damage); 4] = [
        ("/link", |image, ino| image.edit_inode(ino, |slot| slot.inline[1] = 0)),
        ("/link", |image, ino| {
            image.edit_inode(ino, |slot| {
                slot.size = 0.into();
                slot.inline.fill(0);
            });
        }),
        ("/longlink", |image, ino| image.flip(image.inode(ino).root.get() * BLOCK_SIZE + 40)),
        ("/longlink", |image, ino| image.edit_inode(ino, |slot| slot.root = 0.into())),
    ];
    for (path, damage) in damages {
        Seeded::new(|image, sample| damage(image, sample.ino(path)))
            .finds_at(Code::SymlinkTarget, path)
            .touches(path)
            .verify();
    }
}

#[test]
fn xattr_blob() {
    let damages: [Damage; 3] = [
        |image, ino| image.flip(image.inode(ino).xattr_block.get() * BLOCK_SIZE + 40),
        |image, ino| image.edit_inode(ino, |slot| slot.xattr_block = (1 << 50).into()),
        |image, ino| image.edit_inode(ino, |slot| slot.xattr_size = u32::MAX.into()),
    ];
    for damage in damages {
        let after = Seeded::new(|image, sample| damage(image, sample.ino("/other")))
            .finds_at(Code::XattrBlob, "/other")
            .touches("/other")
            .verify();
        assert_eq!(after["/other"].xattrs, []);
        assert!(after["/other"].bytes == crate::sample::contents(&SAMPLE.image)["/other"].bytes);
    }
}

/// Replaces the attributes of an inode, with a right checksum.
fn put_attributes(image: &mut Image, ino: u64, attributes: &[u8]) {
    let block = image.inode(ino).xattr_block.get();
    let head = BlobHead::new(ino, attributes, image.seed());
    image.put(block * BLOCK_SIZE, &head);
    image.put(block * BLOCK_SIZE + BLOB_HEAD_SIZE as u64, attributes);
    image.edit_inode(ino, |slot| slot.xattr_size = (attributes.len() as u32).into());
}

fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = (name.len() as u32).to_le_bytes().to_vec();
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(value);
    bytes
}

#[test]
fn xattr_content() {
    let nonsense =
        [vec![0xff; 30], Vec::new(), [attribute("user.b", b"1"), attribute("user.a", b"2")].concat()];
    for bytes in nonsense {
        // The file with one block of attributes.
        Seeded::new(|image, sample| put_attributes(image, sample.ino("/few"), &bytes))
            .finds_at(Code::XattrContent, "/few")
            .touches("/few")
            .verify();
    }
}

#[test]
fn xattr_name() {
    let bytes = [attribute("user.good", b"1"), attribute("zzz.bad", b"2")].concat();
    let after = Seeded::new(|image, sample| put_attributes(image, sample.ino("/few"), &bytes))
        .finds_at(Code::XattrName, "/few")
        .touches("/few")
        .verify();
    assert_eq!(after["/few"].xattrs, [(b"user.good".to_vec(), b"1".to_vec())]);
}

#[test]
fn xattr_acl() {
    let acl = SAMPLE_ACL.with(Clone::clone);
    for bytes in [
        attribute("system.posix_acl_access", b"nonsense"),
        attribute("system.posix_acl_access", &2_u32.to_le_bytes()),
        attribute("system.posix_acl_default", &acl),
    ] {
        let after = Seeded::new(|image, sample| put_attributes(image, sample.ino("/few"), &bytes))
            .finds_at(Code::XattrAcl, "/few")
            .touches("/few")
            .verify();
        assert_eq!(after["/few"].xattrs, []);
    }
}

thread_local! {
    /// A list that is valid, on a directory.
    static SAMPLE_ACL: Vec<u8> = {
        let contents = crate::sample::contents(&SAMPLE.image);
        contents["/dir"].xattrs[0].1.clone()
    };
}

#[test]
fn an_attribute_blob_of_another_inode_is_not_believed() {
    Seeded::new(|image, sample| {
        let from = image.inode(sample.ino("/few"));
        image.edit_inode(sample.ino("/other"), |slot| {
            slot.xattr_block = from.xattr_block;
            slot.xattr_size = from.xattr_size;
        });
    })
    .finds_at(Code::XattrBlob, "/other")
    .touches("/other")
    .verify();
}
