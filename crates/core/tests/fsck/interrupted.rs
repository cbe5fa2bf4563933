//! A crash in the middle of a repair: the volume is not worse than before, and repairing again finishes the work.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use lodefs_core::fsck::{self, Options};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::extent::ExtentBlockHead;
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::crash::{self, Snapshot, for_each_crash_image};

use crate::image::Image;
use crate::sample::{Content, SAMPLE, contents};

/// Images of one repair that are looked at.
const IMAGES_MAX: usize = 150;

/// Crashes while the image is repaired, at many moments, and repairs what is left. The files below `kept` must be there
/// afterwards, wherever they are.
fn interrupt(image: &Image, domain: Domain, kept: &str) {
    let (medium, recording) = Medium::recording_from_image(image.bytes(), domain, Access::ReadWrite).unwrap();
    let report = fsck::repair(medium, &Options::default(), &mut |_| true, &mut |_| {}).unwrap();
    assert!(!report.findings.is_empty() && report.left().count() == 0);
    let log = recording.take();
    let options =
        crash::Options { random: 2, singles_max: 1, exhaustive_max: 3, ..crash::Options::new(domain) };
    let moments = log.len();
    let mut images = 0;
    let mut last_position = 0;
    let _ = for_each_crash_image(&Snapshot::new(image.bytes().to_vec(), 0), &[&log], &options, |crash| {
        // Spread over the whole repair, if it is long.
        if moments < IMAGES_MAX || images == 0 || (crash.position - last_position) * IMAGES_MAX >= moments {
            (images, last_position) = (images + 1, crash.position);
            verify(&Image::of(crash.bytes().to_vec()), kept, crash.position);
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(images >= 5, "{images} images are too few");
}

fn verify(crashed: &Image, kept: &str, position: usize) {
    let (report, repaired) = crashed.repair(&mut |_| true);
    let report = report.unwrap();
    assert_eq!(report.left().count(), 0, "after event {position}: {:#?}", report.findings);
    assert_eq!(repaired.check().unwrap().findings, [], "after event {position}");
    let by_number = |all: BTreeMap<String, Content>| -> BTreeMap<u64, Content> {
        all.into_values().map(|content| (content.ino, content)).collect()
    };
    let after = by_number(contents(&repaired));
    for (path, content) in contents(&SAMPLE.image).iter().filter(|(path, _)| path.starts_with(kept)) {
        assert!(after.get(&content.ino) == Some(content), "{path}, after event {position}");
    }
}

fn damaged(damage: impl FnOnce(&mut Image)) -> Image {
    let mut image = SAMPLE.image.clone();
    damage(&mut image);
    image
}

/// What a device loses when a block of it goes bad.
fn destroy(image: &mut Image, block: u64) {
    image.bytes_mut()[(block * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].fill(0xee);
}

const DOMAINS: [Domain; 2] = [Domain::MemoryController, Domain::Page];

#[test]
fn directories() {
    let image = damaged(|image| {
        let (nodes, leaves) = image.tree(SAMPLE.ino("/big"));
        destroy(image, leaves[1]);
        image.flip(nodes[0] * BLOCK_SIZE + 1000);
    });
    for domain in DOMAINS {
        interrupt(&image, domain, "/big/");
    }
}

#[test]
fn inodes_and_their_map() {
    let image = damaged(|image| {
        image.flip(image.map_at(1));
        image.flip(image.inode_at(SAMPLE.ino("/dir")) + 50);
        image.flip(image.inode_at(SAMPLE.ino("/plain")) + 50);
    });
    for domain in DOMAINS {
        interrupt(&image, domain, "/big/");
        interrupt(&image, domain, "/dir/");
    }
}

#[test]
fn files() {
    let image = damaged(|image| {
        let ino = SAMPLE.ino("/scattered");
        let chain = image.chain(ino);
        image.put(chain[1] * BLOCK_SIZE, &ExtentBlockHead::new(ino, chain[0], chain[1], image.seed()));
        let target = image.first_extent(SAMPLE.ino("/plain")).1.physical;
        image.edit_first_extent(SAMPLE.ino("/few"), |extent| extent.physical = target);
    });
    for domain in DOMAINS {
        interrupt(&image, domain, "/plain");
    }
}

#[test]
fn the_ground() {
    let bitmap = SAMPLE.image.superblock().saved_bitmap.start.get() * BLOCK_SIZE;
    let image = damaged(|image| {
        image.flip(bitmap + 500);
        image.flip(image.state_at(0) + 9);
        image.flip(image.state_at(1) + 40);
        image.flip(100);
    });
    for domain in DOMAINS {
        interrupt(&image, domain, "");
    }
}
