//! The blocks of directories.

use lodefs_core::fsck::{Code, Object};
use lodefs_core::{Ino, NewInode, NewKind};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::state::State;

use crate::image::Image;
use crate::sample::{BIG, SAMPLE, contents};
use crate::seeded::Seeded;

fn block_of(path: &str, block: u64) -> Object {
    Object::DirectoryBlock { directory: Ino(SAMPLE.ino(path)), block }
}

fn files_of_big(after: &std::collections::BTreeMap<String, crate::sample::Content>) -> usize {
    after.keys().filter(|path| path.starts_with("/big/")).count()
}

#[test]
fn a_leaf_with_a_damaged_head_keeps_its_entries() {
    let leaf = SAMPLE.image.tree(SAMPLE.ino("/big")).1[1];
    Seeded::new(|image, _| image.flip(leaf * BLOCK_SIZE + 9))
        .finds(Code::DirBlock, block_of("/big", leaf))
        .verify();
}

#[test]
fn a_destroyed_leaf_loses_names_but_no_files() {
    let leaf = SAMPLE.image.tree(SAMPLE.ino("/big")).1[1];
    let lost = SAMPLE.image.entries(leaf).len();
    let after = Seeded::new(|image, _| image.bytes_mut()[(leaf * BLOCK_SIZE) as usize..][..4096].fill(0xee))
        .finds(Code::DirBlock, block_of("/big", leaf))
        .touches("/big")
        .verify();
    // Old leaves still know some of the names.
    let nameless = after.keys().filter(|path| path.starts_with("/lost+found/")).count();
    assert!(nameless > 0 && nameless <= lost, "{nameless} of {lost}");
    assert_eq!(files_of_big(&after) + nameless, BIG as usize);
    let before = contents(&SAMPLE.image);
    for (path, content) in before.iter().filter(|(path, _)| path.starts_with("/big/")) {
        let lost = format!("/lost+found/#{}", content.ino);
        assert!(after.get(path).or(after.get(&lost)) == Some(content), "{path}");
    }
}

#[test]
fn a_damaged_node_keeps_what_it_still_leads_to() {
    let node = SAMPLE.image.tree(SAMPLE.ino("/big")).0[0];
    Seeded::new(|image, _| image.flip(node * BLOCK_SIZE + 3000))
        .finds(Code::DirBlock, block_of("/big", node))
        .verify();
}

#[test]
fn a_destroyed_node_loses_no_names() {
    // Its leaves are found among the blocks that seem to be free, and so are old ones that do not count.
    let node = SAMPLE.image.tree(SAMPLE.ino("/big")).0[0];
    let after = Seeded::new(|image, _| image.bytes_mut()[(node * BLOCK_SIZE) as usize..][..4096].fill(0xee))
        .finds(Code::DirBlock, block_of("/big", node))
        .verify();
    assert!(!after.contains_key("/lost+found"));
}

#[test]
fn blocks_elsewhere() {
    let ino = SAMPLE.ino("/dir/sub");
    for block in [1 << 44, SAMPLE.image.tree(SAMPLE.ino("/dir")).1[0]] {
        // The old root is found again.
        Seeded::new(|image, _| image.edit_inode(ino, |slot| slot.root = block.into()))
            .finds(Code::DirBlock, block_of("/dir/sub", block))
            .verify();
    }
}

#[test]
fn a_destroyed_root_loses_names_but_no_files() {
    let block = SAMPLE.image.tree(SAMPLE.ino("/dir/sub")).1[0];
    let after = Seeded::new(|image, _| image.bytes_mut()[(block * BLOCK_SIZE) as usize..][..4096].fill(0xee))
        .finds(Code::DirBlock, block_of("/dir/sub", block))
        .touches("/dir/sub/deep")
        .verify();
    assert!(!after.contains_key("/dir/sub/deep"));
    assert!(after.contains_key(&format!("/lost+found/#{}/file", SAMPLE.ino("/dir/sub/deep"))));
}

#[test]
fn a_child_that_is_there_twice() {
    let node = SAMPLE.image.tree(SAMPLE.ino("/big")).0[0];
    let mut block = 0;
    let seeded = Seeded::new(|image, _| {
        image.edit_children(node, |children| {
            children[1].block = children[0].block;
            block = children[0].block.get();
        });
    });
    seeded.finds(Code::DirBlock, block_of("/big", block)).touches("/big").verify();
}

#[test]
fn dir_order() {
    let node = SAMPLE.image.tree(SAMPLE.ino("/big")).0[0];
    // Two hashes change places.
    let mut image = SAMPLE.image.clone();
    image.edit_children(node, |children| {
        let hash = children[1].hash;
        children[1].hash = children[2].hash;
        children[2].hash = hash;
    });
    let report = image.check().unwrap();
    assert_eq!(report.findings[0].code, Code::DirOrder);
    assert_eq!(report.findings[0].object, block_of("/big", node));
    let (report, repaired) = image.repair(&mut |_| panic!("nothing is lost"));
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
    assert!(contents(&repaired) == contents(&SAMPLE.image));
}

#[test]
fn a_tree_that_leads_to_itself_ends() {
    let node = SAMPLE.image.tree(SAMPLE.ino("/big")).0[0];
    let mut image = SAMPLE.image.clone();
    image.edit_children(node, |children| {
        for child in children.iter_mut() {
            child.block = node.into();
        }
    });
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
}

#[test]
fn the_first_child_has_whatever_is_less_than_all() {
    let mut image = SAMPLE.image.clone();
    let (nodes, _) = image.tree(SAMPLE.ino("/big"));
    image.edit_children(nodes[0], |children| {
        children[0].hash = (children[1].hash.get() - 1).into();
    });
    assert_eq!(image.check().unwrap().findings, []);
    assert!(contents(&image) == contents(&SAMPLE.image));
}

/// The leaves below a damaged node look free until its directory is built again; that of another must not be built there.
#[test]
fn directories_that_are_built_again_leave_each_other_their_leaves() {
    const FILES: u32 = 150;
    let mut image = Image::made_with(8 << 20, |fs| {
        let root = fs.root().unwrap();
        let new = |kind| NewInode { kind, perm: 0o700, umask: 0, uid: 0, gid: 0 };
        for name in ["one", "two", "three"] {
            let dir = fs.create(&root, name.as_bytes(), &new(NewKind::Directory)).unwrap();
            for i in 0..FILES {
                let file = format!("{name} {i} {}", "x".repeat(60));
                fs.create(&dir, file.as_bytes(), &new(NewKind::File)).unwrap();
            }
        }
    });
    let before = contents(&image);
    // So that the saved bitmap is not believed.
    image.flip(image.state_at(1 - State::slot_of(image.state().update.get())) + 20);
    for name in ["/one", "/two", "/three"] {
        let (nodes, leaves) = image.tree(before[name].ino);
        assert!(leaves.len() > 3);
        image.bytes_mut()[(nodes[0] * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].fill(0xee);
    }
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
    let after = contents(&repaired);
    let missing: Vec<&String> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    assert_eq!(missing, Vec::<&String>::new());
}
