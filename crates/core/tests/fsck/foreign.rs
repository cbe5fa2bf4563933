//! Bytes that are no volume, or only the beginning of one. (What else the bytes of an image may be is tried by
//! `lodefs_testkit::hostile`.)

use lodefs_core::{Error, Fs, NewInode, NewKind, OpenOptions};
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::rng::Rng;

use crate::image::Image;
use crate::sample::SAMPLE;

/// The error that opening gives; fsck gives the same, and changes nothing.
fn refusal(image: &Image) -> Error {
    let medium = Medium::from_image(image.bytes(), Domain::Volatile, Access::ReadOnly).unwrap();
    let opened = Fs::open(medium, &OpenOptions { read_only: true, ..OpenOptions::default() });
    let refusal = opened.err().expect("it is no volume");
    assert!(image.check().is_err());
    let (report, same) = image.repair(&mut |_| true);
    assert!(report.is_err() && same == *image);
    refusal
}

#[test]
fn a_volume_that_is_cut_off_is_refused() {
    let bytes = SAMPLE.image.bytes();
    for size in [1, 4095, 4096, 8191, 8192, 12_288, 40_000, 1 << 20, bytes.len() - 4096, bytes.len() - 1] {
        refusal(&Image::of(bytes[..size].to_vec()));
    }
}

#[test]
fn random_bytes_are_no_volume() {
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..65_536).map(|_| rng.next_u64() as u8).collect();
        assert!(matches!(refusal(&Image::of(bytes)), Error::NotAVolume));
    }
}

#[test]
fn regions_are_those_of_a_volume_of_this_size() {
    let edits: [fn(&mut Superblock); 7] = [
        |superblock| superblock.lanes = 4.into(),
        |superblock| superblock.state.blocks = 1.into(),
        |superblock| superblock.journal.start = 4.into(),
        |superblock| superblock.inode_map.blocks = (superblock.inode_map.blocks.get() + 1).into(),
        |superblock| superblock.data.start = (superblock.data.start.get() + 1).into(),
        // fsck would have no room for what it has to put somewhere.
        |superblock| superblock.data.blocks = 1.into(),
        |superblock| superblock.total_blocks = u64::MAX.into(),
    ];
    for edit in edits {
        let mut image = SAMPLE.image.clone();
        let mut superblock = image.superblock();
        edit(&mut superblock);
        image.put(0, &superblock.sealed());
        let refusal = refusal(&image);
        assert!(matches!(refusal, Error::Corrupt { .. } | Error::Truncated { .. }), "{refusal}");
    }
}

#[test]
fn a_forged_number_of_inodes_is_counted_again() {
    let mut image = SAMPLE.image.clone();
    image.edit_state(|state| state.used_inodes = u64::MAX.into());
    let open = |image: &Image| {
        let medium = Medium::from_image(image.bytes(), Domain::Volatile, Access::ReadWrite).unwrap();
        Fs::open(medium, &OpenOptions::default()).unwrap()
    };
    let fs = open(&image);
    assert_eq!(fs.space().inodes_free, open(&SAMPLE.image).space().inodes_free);
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    fs.create(&fs.root().unwrap(), b"one more", &new).unwrap();
}
