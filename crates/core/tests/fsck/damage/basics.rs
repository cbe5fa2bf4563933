//! Superblock, state and journal.

use std::collections::BTreeSet;

use lodefs_core::fsck::{Code, Finding, Object};
use lodefs_core::{Error, FormatOptions, Fs, NewInode, NewKind};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::geometry::Geometry;
use lodefs_layout::journal::{RECORD_ALIGN, RECORD_HEAD_SIZE, RecordHead, WriteHead, seal};
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::{Domain, Medium};
use zerocopy::{FromBytes, IntoBytes};

use crate::image::Image;
use crate::sample::{SAMPLE, SIZE, contents};
use crate::seeded::{Seeded, is_note};

#[test]
fn an_undamaged_volume_is_clean() {
    let report = SAMPLE.image.check().unwrap();
    assert_eq!(report.findings, []);
    assert!(report.was_clean && report.is_clean());
    assert_eq!(report.directories, 6);
    let (report, same) = SAMPLE.image.repair(&mut |_| panic!("there is nothing to ask"));
    assert_eq!(report.unwrap().findings, []);
    assert!(same == SAMPLE.image, "a volume in order is not touched");
}

#[test]
fn a_volume_that_was_never_opened_is_clean() {
    let medium = Medium::anonymous(SIZE, Domain::Volatile).unwrap();
    Fs::format(&medium, &FormatOptions::default()).unwrap();
    let mut bytes = vec![0; SIZE as usize];
    medium.read(0, &mut bytes).unwrap();
    let report = Image::of(bytes).check().unwrap();
    assert_eq!(report.findings, []);
    assert!(report.was_clean);
}

#[test]
fn a_crashed_volume_is_clean() {
    let crashed = crashed();
    let report = crashed.check().unwrap();
    assert_eq!(report.findings, []);
    assert!(!report.was_clean && report.records_replayed > 0);
}

fn crashed() -> Image {
    SAMPLE.image.crashed_after(|fs| {
        for i in 0..10 {
            make(fs, &format!("new {i}"));
        }
        fs.unlink(&fs.root().unwrap(), b"few").unwrap();
    })
}

fn make(fs: &std::sync::Arc<Fs>, name: &str) {
    let new = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
    fs.create(&fs.root().unwrap(), name.as_bytes(), &new).unwrap();
}

#[test]
fn superblock_damaged() {
    Seeded::new(|image, _| image.flip(50))
        .finds(Code::SuperblockDamaged, Object::Superblock { block: 0 })
        .verify();
    let last = SIZE / BLOCK_SIZE - 1;
    for offset in [0, 100] {
        Seeded::new(|image, _| image.flip(image.last_block() + offset))
            .finds(Code::SuperblockDamaged, Object::Superblock { block: last })
            .verify();
    }
}

#[test]
fn superblock_differs() {
    let block = SIZE / BLOCK_SIZE - 1;
    let seeded = Seeded::new(|image, _| {
        let mut superblock = image.superblock();
        superblock.label[0] = b'x';
        image.put(image.last_block(), &superblock.sealed());
    });
    seeded.finds(Code::SuperblockDiffers, Object::Superblock { block }).verify();
}

#[test]
fn superblock_lost() {
    let seeded = Seeded::new(|image, _| {
        image.flip(100);
        image.flip(image.last_block() + 101);
    });
    let image = seeded.image.clone();
    seeded.finds(Code::SuperblockLost, Object::Superblock { block: 0 }).verify();
    let (report, repaired) = image.repair(&mut |_| true);
    report.unwrap();
    assert_eq!(repaired.superblock().uuid, SAMPLE.image.superblock().uuid);
}

/// Without the key of the names no name would be found. The directories are built again.
#[test]
fn superblock_lost_with_the_key_of_the_names() {
    let key_at = std::mem::offset_of!(Superblock, name_key) as u64;
    let mut image = SAMPLE.image.clone();
    for at in [0, image.last_block()] {
        image.flip(at + 100);
        image.flip(at + key_at);
    }
    let before = contents(&SAMPLE.image);
    let (report, repaired) = image.repair(&mut |finding| finding.code == Code::SuperblockLost);
    let codes: BTreeSet<Code> = report.unwrap().findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::SuperblockLost, Code::EntryHash].into());
    assert!(repaired.check().unwrap().is_clean());
    assert!(!repaired.superblock().has_keyed_names());
    let after = contents(&repaired);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, content) in before {
        assert!((after[&path].ino, &after[&path].bytes) == (content.ino, &content.bytes), "{path}");
    }
}

/// If the key is whole in one copy, it counts, whatever else is damaged there.
#[test]
fn superblock_lost_but_for_the_key_of_the_names() {
    let mut image = SAMPLE.image.clone();
    let last = image.last_block();
    image.flip(100);
    image.flip(std::mem::offset_of!(Superblock, name_key) as u64);
    image.flip(last + 101);
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().findings.len(), 1);
    assert_eq!(repaired.superblock().name_key, SAMPLE.image.superblock().name_key);
    assert!(repaired.check().unwrap().is_clean());
}

/// The identity is lost with the superblocks, and with that the hashes of names.
#[test]
fn superblocks_without_a_trace() {
    for trace in [0, 0xa5] {
        let mut image = SAMPLE.image.clone();
        for at in [0, image.last_block()] {
            image.bytes_mut()[at as usize..][..BLOCK_SIZE as usize].fill(trace);
        }
        assert!(matches!(image.open_and(|_| ()), Err(Error::SuperblockLost)));
        let findings = image.check().unwrap().findings;
        assert!(findings.iter().any(|finding| finding.code == Code::IdentityLost), "{findings:#?}");
        let (report, same) = image.repair(&mut |_| false);
        assert!(report.unwrap().left().next().is_some() && same == image);
        let (report, repaired) = image.repair(&mut |_| true);
        let report = report.unwrap();
        assert_eq!(report.left().collect::<Vec<_>>(), Vec::<&Finding>::new());
        assert_eq!(repaired.check().unwrap().findings, []);
        let all = |image: &Image| -> Vec<_> {
            let all = contents(image).into_iter();
            all.map(|(path, content)| (path, content.ino, content.bytes, content.xattrs)).collect()
        };
        assert!(all(&repaired) == all(&SAMPLE.image));
    }
}

/// Nothing agrees with what a state says of the identity.
#[test]
fn superblock_beyond_recognition() {
    let mut image = SAMPLE.image.clone();
    let geometry = Geometry::for_size(SIZE).unwrap();
    let blocks = [0, SIZE / BLOCK_SIZE - 1, geometry.state.start.get() + 1];
    let map =
        geometry.inode_map.start.get()..geometry.inode_map.start.get() + geometry.inode_map.blocks.get();
    for block in blocks.into_iter().chain(map) {
        image.bytes_mut()[(block * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].fill(0xa5);
    }
    assert!(matches!(image.check(), Err(Error::NotAVolume)));
    let (report, same) = image.repair(&mut |_| true);
    assert!(report.is_err() && same == image);
}

#[test]
fn state_damaged() {
    let newest = State::slot_of(SAMPLE.image.state().update.get());
    let older = 1 - newest;
    assert!(is_note(Code::StateDamaged), "a crash may have torn it");
    for zeroed in [false, true] {
        let seeded = Seeded::new(|image, _| {
            let at = image.state_at(older);
            if zeroed { image.bytes_mut()[at as usize..][..80].fill(0) } else { image.flip(at + 20) }
        });
        seeded.finds(Code::StateDamaged, Object::StateSlot(older)).verify();
    }
}

#[test]
fn a_bitmap_is_not_believed_if_the_newest_state_may_be_lost() {
    // Closed, opened again, changed; then the state that says so is damaged.
    let mut image = crashed();
    image.flip(image.state_at(State::slot_of(image.state().update.get())) + 20);
    assert!(image.state().is_clean());
    let opened = image.open_and(|fs| assert!(fs.recovery().inodes_scanned > 0)).unwrap();
    assert_eq!(opened.check().unwrap().findings, []);
}

#[test]
fn state_lost() {
    let seeded = Seeded::new(|image, _| {
        image.flip(image.state_at(0) + 9);
        image.flip(image.state_at(1) + 9);
    });
    seeded.finds(Code::StateLost, Object::State).verify();
}

#[test]
fn state_count() {
    let newest = State::slot_of(SAMPLE.image.state().update.get());
    for edit in [
        (|state| state.generation = (1 << 62).into()) as fn(&mut State),
        |state| state.committed_seq = ((1 << 61) + 1).into(),
        |state| state.update = (state.update.get() + (1 << 61)).into(),
    ] {
        let mut image = SAMPLE.image.clone();
        image.edit_state(edit);
        let report = image.check().unwrap();
        assert_eq!(report.findings[0].code, Code::StateCount);
        assert_eq!(report.findings[0].object, Object::StateSlot(newest));
        let (report, repaired) = image.repair(&mut |_| true);
        assert_eq!(report.unwrap().left().count(), 0);
        assert_eq!(repaired.check().unwrap().findings, []);
        assert!(crate::sample::contents(&repaired) == crate::sample::contents(&SAMPLE.image));
    }
}

#[test]
fn counts_do_not_overflow() {
    for count in [u64::MAX, u64::MAX - 1, (1 << 62) + 1] {
        let edits: [fn(&mut State, u64); 3] = [
            |state, count| state.generation = count.into(),
            |state, count| state.committed_seq = count.into(),
            |state, count| state.update = count.into(),
        ];
        for edit in edits {
            let mut image = SAMPLE.image.clone();
            image.edit_state(|state| edit(state, count));
            // The engine goes on with the other state, and fsck too.
            image.open_and(|fs| make(fs, "another")).unwrap();
            assert_eq!(image.check().unwrap().findings[0].code, Code::StateDamaged);
        }
    }
}

/// The records in the half of a lane that is in use: where each starts.
fn records(image: &Image, lane: u64) -> Vec<u64> {
    let superblock = image.superblock();
    let half = superblock.journal.blocks.get() / (2 * u64::from(superblock.lanes.get())) * BLOCK_SIZE;
    let generation = image.state().generation.get();
    let start = superblock.journal.start.get() * BLOCK_SIZE + lane * 2 * half + generation % 2 * half;
    let mut found = Vec::new();
    let mut at = start;
    loop {
        let head: RecordHead = image.get(at);
        if head.generation.get() != generation {
            return found;
        }
        found.push(at);
        at += u64::from(head.size.get()).next_multiple_of(RECORD_ALIGN as u64);
    }
}

/// A crashed volume, and the lane with the most records.
fn crashed_lane() -> (Image, u64, Vec<u64>) {
    let image = crashed();
    let lanes = 0..u64::from(image.superblock().lanes.get());
    let (lane, records) =
        lanes.map(|lane| (lane, records(&image, lane))).max_by_key(|(_, r)| r.len()).unwrap();
    assert!(records.len() >= 3);
    (image, lane, records)
}

#[test]
fn journal_record_invalid() {
    for target in [100, SIZE + 8192] {
        let (mut image, _, records) = crashed_lane();
        let at = *records.last().unwrap();
        let head: RecordHead = image.get(at);
        let mut bytes = image.bytes()[at as usize..][..head.size.get() as usize].to_vec();
        let write = &mut bytes[RECORD_HEAD_SIZE..];
        let (mut first, _) = WriteHead::read_from_prefix(write).unwrap();
        first.offset = target.into();
        write[..size_of::<WriteHead>()].copy_from_slice(first.as_bytes());
        seal(&mut bytes, head.generation.get(), head.seq.get(), image.seed());
        image.put(at, &bytes[..]);
        let report = image.check().unwrap();
        assert_eq!(report.findings[0].code, Code::JournalRecordInvalid);
        assert_eq!(report.findings[0].object, Object::JournalRecord(head.seq.get()));
        let (report, repaired) = image.repair(&mut |_| true);
        assert_eq!(report.unwrap().left().count(), 0);
        assert_eq!(repaired.check().unwrap().findings, []);
        repaired.open_and(|fs| make(fs, "another")).unwrap();
        let (_, same) = image.repair(&mut |_| false);
        assert!(same == image, "declined");
    }
}

#[test]
fn a_sequence_number_that_nothing_reaches() {
    let (mut image, _, records) = crashed_lane();
    let at = *records.last().unwrap();
    let head: RecordHead = image.get(at);
    let mut bytes = image.bytes()[at as usize..][..head.size.get() as usize].to_vec();
    seal(&mut bytes, head.generation.get(), 1 << 62, image.seed());
    image.put(at, &bytes[..]);
    assert_eq!(image.check().unwrap().findings[0].code, Code::JournalRecordInvalid);
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
}

#[test]
fn journal_records_lost() {
    let (mut image, lane, records) = crashed_lane();
    image.flip(records[records.len() - 2] + 30);
    let report = image.check().unwrap();
    assert_eq!(report.findings[0].code, Code::JournalRecordsLost);
    assert_eq!(report.findings[0].object, Object::JournalLane(lane));
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    let again = repaired.crashed_after(|fs| make(fs, "another"));
    assert_eq!(again.check().unwrap().findings, [], "no old record is taken for a new one");
}

#[test]
fn a_torn_last_record_is_no_finding() {
    let (mut image, _, records) = crashed_lane();
    image.flip(records.last().unwrap() + 30);
    let report = image.check().unwrap();
    assert!(report.findings.iter().all(|finding| finding.code != Code::JournalRecordsLost));
}

#[test]
fn old_records_are_not_believed_after_a_lost_state() {
    // The newest state is damaged: the generations of the records on the medium are unknown.
    let mut image = crashed();
    let newest = State::slot_of(image.state().update.get());
    image.flip(image.state_at(newest) + 20);
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    assert_eq!(repaired.check().unwrap().findings, []);
    let again = repaired.crashed_after(|fs| make(fs, "another"));
    assert_eq!(again.check().unwrap().findings, []);
}
