//! What a medium promises, on every domain.

use std::fs;
use std::path::Path;

use lodefs_pmem::{Access, DirtyRanges, Domain, Event, Flushed, Medium, MediumError, OpenOptions, What};
use proptest::prelude::*;

const SIZE: u64 = 16 << 10;

fn read(medium: &Medium, at: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    medium.read(at, &mut bytes).unwrap();
    bytes
}

fn read_meta(medium: &Medium, at: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    medium.read_meta(at, &mut bytes).unwrap();
    bytes
}

fn volume(content: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    file
}

fn open(path: &Path, access: Access, domain: Domain) -> Result<Medium, MediumError> {
    Medium::open(path, &OpenOptions { access, force_domain: Some(domain) })
}

/// One journalled change: store, and return what is dirty.
fn change(medium: &Medium, at: u64, bytes: &[u8], dirty: &mut DirtyRanges) {
    let ordered = medium.fence(Medium::nothing_flushed()).unwrap();
    dirty.push(medium.store_meta(at, bytes, &ordered).unwrap());
}

fn checkpoint(medium: &Medium, dirty: &mut DirtyRanges) {
    let durable = medium.sync(Medium::nothing_flushed()).unwrap();
    let staged = medium.stage(std::mem::take(dirty));
    let (settled, durable) = medium.settle(staged, &durable).unwrap();
    drop(durable);
    medium.release(settled, dirty);
}

proptest! {
    #[test]
    fn writes_and_zeroes_are_those_of_a_vector(
        changes in prop::collection::vec(
            (0u64..9000, prop::collection::vec(any::<u8>(), 0..700), any::<bool>()), 1..12)
    ) {
        for domain in Domain::ALL {
            let medium = Medium::anonymous(10_000, domain).unwrap();
            let mut model = vec![0u8; 10_000];
            for (at, bytes, zero) in &changes {
                let range = *at as usize..*at as usize + bytes.len();
                let flushed = if *zero {
                    model[range].fill(0);
                    medium.zero(*at, bytes.len() as u64).unwrap()
                } else {
                    model[range].copy_from_slice(bytes);
                    medium.write(*at, bytes).unwrap()
                };
                let _ordered = medium.fence(flushed).unwrap();
            }
            prop_assert_eq!(read(&medium, 0, 10_000), model);
        }
    }

    #[test]
    fn metadata_reaches_the_shared_bytes_by_settling_whatever_the_order(
        changes in prop::collection::vec((0u64..15_000, 1usize..500, any::<u8>(), 0u8..4), 1..20)
    ) {
        for domain in Domain::ALL {
            let medium = Medium::anonymous(15_500, domain).unwrap();
            let mut model = vec![0u8; 15_500];
            let mut dirty = DirtyRanges::default();
            for &(at, size, byte, then) in &changes {
                model[at as usize..at as usize + size].fill(byte);
                change(&medium, at, &vec![byte; size], &mut dirty);
                prop_assert_eq!(read_meta(&medium, 0, 15_500), model.clone());
                if then == 0 {
                    checkpoint(&medium, &mut dirty);
                }
            }
            checkpoint(&medium, &mut dirty);
            prop_assert_eq!(read_meta(&medium, 0, 15_500), model.clone());
            prop_assert_eq!(read(&medium, 0, 15_500), model);
        }
    }
}

#[test]
fn the_last_bytes_of_an_odd_size_are_reached() {
    for domain in Domain::ALL {
        let medium = Medium::anonymous(4096 + 13, domain).unwrap();
        let _ordered = medium.fence(medium.write(4096 + 5, &[9; 8]).unwrap()).unwrap();
        assert_eq!(read(&medium, 4096, 13), [0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        let mut dirty = DirtyRanges::default();
        change(&medium, 4096 + 12, &[7], &mut dirty);
        checkpoint(&medium, &mut dirty);
        assert_eq!(read(&medium, 4096 + 11, 2), [9, 7]);
    }
}

#[test]
fn every_call_checks_its_bounds() {
    for domain in Domain::ALL {
        let medium = Medium::anonymous(SIZE, domain).unwrap();
        let ordered = medium.fence(Medium::nothing_flushed()).unwrap();
        let out_of_range = |result: Result<(), MediumError>| {
            let error = result.unwrap_err();
            assert!(matches!(error, MediumError::OutOfRange { end: SIZE, .. }), "{error}");
        };
        for at in [SIZE - 3, SIZE, SIZE + 1, u64::MAX - 2, u64::MAX] {
            out_of_range(medium.read(at, &mut [0; 4]));
            out_of_range(medium.read_meta(at, &mut [0; 4]));
            out_of_range(medium.write(at, &[0; 4]).map(drop));
            out_of_range(medium.zero(at, 4).map(drop));
            out_of_range(medium.zero(at, u64::MAX).map(drop));
            out_of_range(medium.store_meta(at, &[0; 4], &ordered).map(drop));
        }
        assert!(medium.read(SIZE, &mut []).is_ok());
    }
}

#[test]
fn metadata_is_private_until_it_is_settled() {
    let file = volume(&[1; SIZE as usize]);
    let medium = open(file.path(), Access::ReadWrite, Domain::Page).unwrap();
    let mut dirty = DirtyRanges::default();
    change(&medium, 4100, b"changed", &mut dirty);
    assert_eq!(read_meta(&medium, 4100, 7), b"changed");
    assert_eq!(read(&medium, 4100, 7), [1; 7]);
    assert_eq!(fs::read(file.path()).unwrap(), [1; SIZE as usize]);
    checkpoint(&medium, &mut dirty);
    assert_eq!(&fs::read(file.path()).unwrap()[4099..4108], b"\x01changed\x01");
}

#[test]
fn staging_takes_metadata_as_it_is_then() {
    let medium = Medium::anonymous(SIZE, Domain::Page).unwrap();
    let mut dirty = DirtyRanges::default();
    change(&medium, 0, b"first", &mut dirty);
    let durable = medium.sync(Medium::nothing_flushed()).unwrap();
    let staged = medium.stage(std::mem::take(&mut dirty));
    change(&medium, 0, b"other", &mut dirty);
    let (settled, _) = medium.settle(staged, &durable).unwrap();
    assert_eq!((read(&medium, 0, 5), read_meta(&medium, 0, 5)), (b"first".to_vec(), b"other".to_vec()));
    medium.release(settled, &dirty);
    assert_eq!(read_meta(&medium, 0, 5), b"other", "a page that is dirty again keeps its private copy");
}

#[test]
fn releasing_drops_private_copies_of_what_is_clean() {
    let medium = Medium::anonymous(SIZE, Domain::Page).unwrap();
    let mut dirty = DirtyRanges::default();
    change(&medium, 0, b"gone", &mut dirty);
    change(&medium, 4096, b"kept", &mut dirty);
    let durable = medium.sync(Medium::nothing_flushed()).unwrap();
    let staged = medium.stage(std::mem::take(&mut dirty));
    let (settled, _) = medium.settle(staged, &durable).unwrap();
    change(&medium, 4096, b"more", &mut dirty);
    medium.release(settled, &dirty);
    let _ordered = medium.fence(medium.write(0, b"seen").unwrap()).unwrap();
    assert_eq!(read_meta(&medium, 0, 4), b"seen");
    assert_eq!(read_meta(&medium, 4096, 4), b"more");
}

#[test]
fn nothing_is_written_under_a_private_copy() {
    let file = volume(&vec![1; 4 << 20]);
    let medium = open(file.path(), Access::ReadWrite, Domain::Page).unwrap();
    let mut dirty = DirtyRanges::default();
    change(&medium, 4100, b"metadata", &mut dirty);
    let refused =
        |result: Result<Flushed, MediumError>| matches!(result, Err(MediumError::UnderMetadata { .. }));
    assert!(refused(medium.write(4096, b"data")) && refused(medium.write(4095, b"data")));
    assert!(refused(medium.zero(8191, 1)) && refused(medium.zero(0, 8193)));
    assert!(refused(medium.zero(0, 4 << 20)), "nor by the host");
    assert!(!refused(medium.write(4092, b"data")) && !refused(medium.write(8192, b"data")));
    checkpoint(&medium, &mut dirty);
    assert!(!refused(medium.write(4096, b"data")));
}

#[test]
fn without_an_overlay_metadata_is_changed_in_place() {
    for domain in [Domain::CpuCache, Domain::MemoryController, Domain::Volatile] {
        let medium = Medium::anonymous(SIZE, domain).unwrap();
        let mut dirty = DirtyRanges::default();
        change(&medium, 100, b"here", &mut dirty);
        assert_eq!(read(&medium, 100, 4), b"here");
        checkpoint(&medium, &mut dirty);
    }
}

#[test]
fn a_read_only_medium_changes_metadata_in_memory_and_nothing_else() {
    let before = vec![5; SIZE as usize];
    for domain in Domain::ALL {
        let file = volume(&before);
        let medium = open(file.path(), Access::ReadOnly, domain).unwrap();
        let is_read_only = |result: Result<(), MediumError>| {
            assert!(matches!(result, Err(MediumError::ReadOnly { .. })), "{domain}");
        };
        is_read_only(medium.write(0, b"x").map(drop));
        is_read_only(medium.zero(0, 1).map(drop));
        is_read_only(medium.zero(0, SIZE).map(drop));
        let mut dirty = DirtyRanges::default();
        change(&medium, 10, b"replayed", &mut dirty);
        assert_eq!(read_meta(&medium, 10, 8), b"replayed");
        assert_eq!(read(&medium, 10, 8), [5; 8]);
        let durable = medium.sync(Medium::nothing_flushed()).unwrap();
        is_read_only(medium.settle(medium.stage(dirty), &durable).map(drop));
        drop(medium);
        assert_eq!(fs::read(file.path()).unwrap(), before);
    }
}

#[test]
fn the_host_zeroes_nothing_behind_the_end() {
    let file = volume(&vec![5; 4 << 20]);
    let medium = open(file.path(), Access::ReadWrite, Domain::Page).unwrap();
    for (at, size) in [(4 << 20, 2 << 20), (3 << 20, (1 << 20) + 1), (u64::MAX - 100, 2 << 20), (1, u64::MAX)]
    {
        let refused = medium.zero(at, size);
        assert!(matches!(refused, Err(MediumError::OutOfRange { .. })), "{size} bytes at {at}: {refused:?}");
    }
    drop(medium);
    assert!(fs::read(file.path()).unwrap() == vec![5; 4 << 20]);
}

/// Elsewhere the host's own metadata, which says that a range is zero, would be no more durable than it likes.
#[test]
fn the_host_zeroes_only_behind_its_page_cache() {
    for domain in Domain::ALL {
        let file = volume(&vec![5; 4 << 20]);
        let (medium, recording) = open(file.path(), Access::ReadWrite, domain).unwrap().watched();
        let _ordered = medium.fence(medium.zero(0, 2 << 20).unwrap()).unwrap();
        let is_store = |event: &Event| matches!(event.what, What::Store { .. });
        assert_eq!(recording.take().iter().any(is_store), domain != Domain::Page, "{domain}");
    }
}

#[test]
fn large_ranges_of_a_file_are_zeroed_for_every_reader() {
    let file = volume(&vec![5; 4 << 20]);
    let medium = open(file.path(), Access::ReadWrite, Domain::Page).unwrap();
    assert_eq!(read(&medium, 2 << 20, 1), [5]);
    let _ordered = medium.fence(medium.zero(4097, 2 << 20).unwrap()).unwrap();
    let mut expected = vec![5; 4 << 20];
    expected[4097..4097 + (2 << 20)].fill(0);
    assert_eq!(read(&medium, 0, 4 << 20), expected);
    assert_eq!(read_meta(&medium, 0, 4 << 20), expected);
    assert_eq!(fs::read(file.path()).unwrap(), expected);
}

#[test]
fn a_file_cut_while_in_use_is_noticed_and_stays_noticed() {
    let file = volume(&[1; SIZE as usize]);
    let medium = open(file.path(), Access::ReadWrite, Domain::Page).unwrap();
    let _durable = medium.sync(Medium::nothing_flushed()).unwrap();
    file.as_file().set_len(SIZE - 4096).unwrap();
    let cut = medium.sync(Medium::nothing_flushed()).unwrap_err();
    assert!(matches!(cut, MediumError::TruncatedWhileMapped { mapped: SIZE, .. }), "{cut}");
    file.as_file().set_len(SIZE).unwrap();
    assert!(medium.sync(Medium::nothing_flushed()).is_err(), "what was cut off is not what is there now");
}

#[test]
fn an_image_is_copied_whole() {
    let image: Vec<u8> = (0..10_001u32).map(|i| i as u8).collect();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let medium = Medium::from_image(&image, Domain::MemoryController, access).unwrap();
        assert_eq!((medium.size(), medium.is_read_only()), (10_001, access == Access::ReadOnly));
        assert_eq!(read(&medium, 0, image.len()), image);
        assert_eq!(read_meta(&medium, 0, image.len()), image);
    }
}

#[test]
fn a_test_medium_can_claim_another_boot() {
    let medium = Medium::anonymous(4096, Domain::Page).unwrap();
    assert_eq!(medium.boot_id(), Medium::anonymous(4096, Domain::Page).unwrap().boot_id());
    assert_eq!(medium.with_boot_id([3; 16]).boot_id(), [3; 16]);
}
