//! Real volumes, made by the engine, from which hostile images are made. They are small, so that a case is quick.

use std::sync::{Arc, LazyLock};

use lodefs_core::{FormatOptions, Fs, NewInode, NewKind, NewNames};
use lodefs_pmem::Domain;

use super::atlas::Atlas;
use super::image::Image;
use super::sample;
use crate::engine::EngineTarget;
use crate::generate::Generator;
use crate::profile::Profile;
use crate::target::Target as _;

/// Bytes in the smallest volume.
const SMALL: u64 = 1 << 20;
/// Bytes in a volume with some of everything.
const MEDIUM: u64 = 5 << 19;
/// Operations that age a volume.
const OPERATIONS: usize = 600;

/// A volume.
pub struct Base {
    /// What it is, in a word.
    pub name: &'static str,
    /// Its bytes.
    pub image: Image,
    /// Where everything is.
    pub atlas: Atlas,
    /// It was closed, so that all there is can be seen without recovery.
    pub is_closed: bool,
}

/// All of them, the same each time.
pub fn all() -> &'static [Base] {
    static ALL: LazyLock<Vec<Base>> = LazyLock::new(make_all);
    &ALL
}

fn make_all() -> Vec<Base> {
    let empty = Image::made_with(SMALL, |_| ());
    let furnished = Image::made_with(MEDIUM, sample::fill);
    // As made before there were keyed names.
    let options = FormatOptions { names: NewNames::FromUuid, ..Image::format() };
    let from_uuid = Image::made_as(MEDIUM, &options, sample::fill);
    let aged = Image::made_with(MEDIUM, |fs| drop(age(fs, 1)));
    let full = Image::made_with(SMALL, fill_up);
    let crashed = furnished.crashed_as(Domain::Volatile, |fs| age(fs, 2));
    let gated = furnished.crashed_as(Domain::Page, |fs| {
        let open = age(fs, 3);
        fs.sync().expect("the medium works");
        // These are in the journal only, and after a power failure they must not come back.
        (open, age(fs, 4))
    });
    let base = |name, image: Image, is_closed| {
        let atlas = Atlas::of(&image);
        Base { name, image, atlas, is_closed }
    };
    vec![
        base("empty", empty, true),
        base("furnished", furnished, true),
        base("from-uuid", from_uuid, true),
        base("aged", aged, true),
        base("full", full, true),
        base("crashed", crashed, false),
        base("gated", gated, false),
    ]
}

/// Random operations. Gives back the files that are still open, some of which have no name any more.
fn age(fs: &Arc<Fs>, seed: u64) -> EngineTarget {
    let mut target = EngineTarget::new(Arc::clone(fs));
    for operation in Generator::new(seed, Profile::LODEFS).take(OPERATIONS) {
        // Some are refused, as they are meant to be.
        let _ = target.apply(&operation);
    }
    assert_eq!(target.fault(), None, "the engine works");
    target
}

/// Files of one block until there is no room for another.
fn fill_up(fs: &Arc<Fs>) {
    let root = fs.root().expect("there is a root directory");
    let new = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
    for number in 0_u32.. {
        let Ok(file) = fs.create(&root, format!("file {number}").as_bytes(), &new) else { break };
        if fs.write(&file, 0, &number.to_le_bytes().repeat(500), false).is_err() {
            break;
        }
    }
    assert!(fs.space().blocks_available < 4, "it is full");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_they_are_called() {
        for base in all() {
            let report = base.image.check().unwrap();
            assert!(report.is_clean(), "{}: {:?}", base.name, report.findings);
            assert_eq!(report.was_clean, base.is_closed, "{}", base.name);
            assert_eq!(report.records_replayed > 0, !base.is_closed, "{}", base.name);
        }
        assert!(make_all().iter().zip(all()).all(|(again, base)| again.image == base.image));
    }
}
