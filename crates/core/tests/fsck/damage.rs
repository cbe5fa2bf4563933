//! One damage for each thing that fsck can say.

mod basics;
mod directories;
mod entries;
mod extents;
mod inodes;
mod map;
mod names;
mod saved;
mod sharing;

#[test]
fn every_kind_of_finding_is_seeded() {
    let tests = [
        include_str!("damage/basics.rs"),
        include_str!("damage/directories.rs"),
        include_str!("damage/entries.rs"),
        include_str!("damage/extents.rs"),
        include_str!("damage/inodes.rs"),
        include_str!("damage/map.rs"),
        include_str!("damage/names.rs"),
        include_str!("damage/saved.rs"),
        include_str!("damage/sharing.rs"),
    ];
    for code in lodefs_core::fsck::Code::ALL {
        let name = format!("Code::{code:?}");
        assert!(tests.iter().any(|test| test.contains(&name)), "{name}");
    }
}
