//! How each golden image is made.

use std::ops::ControlFlow;
use std::sync::Arc;

use lodefs_core::{FormatOptions, Fs, NewNames, Result};
use lodefs_layout::checksum::Seed;
use lodefs_layout::names::NameKey;
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_sync::set_thread_number;

use super::{changes, furnish};
use crate::crash::{Options, Snapshot, for_each_crash_image};
use crate::hostile::image::{BOOT, Image, open_options};

/// Bytes in most images.
const SIZE: u64 = 3 << 19;
/// The key of the image with keyed names.
const KEY: NameKey = NameKey(*b"golden key      ");
/// Bytes in the image with a large directory.
const TREE_SIZE: u64 = 5 << 19;

/// Makes an image. `None` if there is no such image.
pub fn make(name: &str) -> Option<Result<Image>> {
    let made = match name {
        "1-closed" => closed(SIZE, NewNames::FromUuid, furnish::furnish),
        "1-tree" => closed(TREE_SIZE, NewNames::FromUuid, furnish::tree),
        "1-keyed" => keyed(),
        "1-crashed" => furnished().and_then(|image| crashed(&image, changes::of_every_kind)),
        "1-gated" => furnished().and_then(|image| gated(&image)),
        "1-orphans" => furnished().and_then(|image| crashed(&image, changes::that_leave_orphans)),
        _ => return None,
    };
    Some(made)
}

fn furnished() -> Result<Image> {
    closed(SIZE, NewNames::FromUuid, furnish::furnish)
}

/// A volume with keyed names, as made since there are such.
fn keyed() -> Result<Image> {
    let seed = Seed::of_volume(&[7; 16]).with_name_key(KEY);
    closed(SIZE, NewNames::Key(KEY), |fs| furnish::keyed(fs, seed))
}

/// A volume that was filled and closed.
fn closed(size: u64, names: NewNames, fill: impl FnOnce(&Arc<Fs>) -> Result<()>) -> Result<Image> {
    // Which lane of the journal a record goes to follows from it.
    set_thread_number(0);
    let label = "golden".into();
    let options = FormatOptions { label, root_gid: 7, root_perm: 0o775, names, ..Image::format() };
    let mut filled = Ok(());
    let image = Image::made_as(size, &options, |fs| filled = fill(fs));
    filled.map(|()| image)
}

/// What a power failure leaves on persistent memory of what `work` did: the journal, and hardly anything at home.
fn crashed<T>(image: &Image, work: impl FnOnce(&Arc<Fs>) -> Result<T>) -> Result<Image> {
    set_thread_number(0);
    let domain = Domain::MemoryController;
    let (medium, recording) = Medium::recording_from_image(image.bytes(), domain, Access::ReadWrite)?;
    let fs = Fs::open(medium.with_boot_id(BOOT), &open_options())?;
    let open = work(&fs)?;
    let log = recording.take();
    drop(open);
    let options = Options {
        exhaustive_max: 0,
        singles_max: 0,
        random: 0,
        stores_between: 0,
        from_event: log.len(),
        ..Options::new(domain)
    };
    // The first image of a moment has nothing in it but what is durable.
    let start = Snapshot::new(image.bytes().to_vec(), 0);
    let durable =
        for_each_crash_image(&start, &[&log], &options, |crash| ControlFlow::Break(crash.bytes().to_vec()));
    match durable {
        ControlFlow::Break(bytes) => Ok(Image::of(bytes)),
        ControlFlow::Continue(_) => unreachable!("there is an image of each moment"),
    }
}

/// What a killed process leaves of a volume of pages, with changes before and after a sync.
fn gated(image: &Image) -> Result<Image> {
    set_thread_number(0);
    let mut done = Ok(());
    let crashed = image.crashed_as(Domain::Page, |fs| {
        done = changes::of_every_kind(fs).and_then(|()| fs.sync());
        done = std::mem::replace(&mut done, Ok(())).and_then(|()| changes::of_the_last_moment(fs));
    });
    done.map(|()| crashed)
}
