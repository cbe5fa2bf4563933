//! What a crash leaves of the making of a volume: the old volume, a mark that it is to be made again, or the new one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use lodefs_core::{Error, FormatOptions, Fs, OpenOptions, fsck};
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::crash::{Options, Snapshot, for_each_crash_image};

const SIZE: u64 = 1 << 20;

fn bytes_of(medium: &Medium) -> Vec<u8> {
    let mut bytes = vec![0; medium.size() as usize];
    medium.read(0, &mut bytes).unwrap();
    bytes
}

fn labelled(label: &str) -> FormatOptions {
    FormatOptions { label: label.to_owned(), ..FormatOptions::default() }
}

/// A volume that was there before.
fn old_volume() -> Vec<u8> {
    let medium = Medium::anonymous(SIZE, Domain::Volatile).unwrap();
    Fs::format(&medium, &labelled("old")).unwrap();
    bytes_of(&medium)
}

/// What the image of a crash is taken for.
fn state_of(image: &[u8]) -> String {
    let medium = |access| Medium::from_image(image, Domain::Volatile, access).unwrap();
    match Fs::probe(&medium(Access::ReadOnly)) {
        Ok(found) => {
            let report =
                fsck::check(medium(Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap();
            let others = report
                .findings
                .iter()
                .filter(|finding| finding.code != fsck::Code::SuperblockDamaged)
                .count();
            assert_eq!(others, 0, "{:?}", report.findings);
            drop(Fs::open(medium(Access::ReadWrite), &OpenOptions::default()).unwrap());
            found.label
        }
        Err(Error::Unfinished) => "unfinished".to_owned(),
        Err(Error::NotAVolume) if image.iter().all(|byte| *byte == 0) => "empty".to_owned(),
        Err(error) => panic!("{error}; it begins with {:?}", &image[..32]),
    }
}

fn states(start: &[u8], domain: Domain) -> BTreeMap<String, usize> {
    let (medium, recording) = Medium::recording_from_image(start, domain, Access::ReadWrite).unwrap();
    Fs::format(&medium, &labelled("new")).unwrap();
    let mut found = BTreeMap::new();
    let result = for_each_crash_image(
        &Snapshot::new(start.to_vec(), 0),
        &[&recording.take()],
        &Options::new(domain),
        |image| {
            *found.entry(state_of(image.bytes())).or_default() += 1;
            ControlFlow::<()>::Continue(())
        },
    );
    assert!(result.is_continue());
    found
}

const DOMAINS: [Domain; 4] = [Domain::Volatile, Domain::Page, Domain::CpuCache, Domain::MemoryController];

#[test]
fn a_crash_leaves_an_empty_medium_a_mark_or_the_volume() {
    for domain in DOMAINS {
        let found = states(&vec![0; SIZE as usize], domain);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["empty", "new", "unfinished"], "{domain}");
    }
}

#[test]
fn a_crash_leaves_the_old_volume_a_mark_or_the_new_one() {
    for domain in DOMAINS {
        let found = states(&old_volume(), domain);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["new", "old", "unfinished"], "{domain}");
    }
}
