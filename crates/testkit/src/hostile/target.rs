//! What is done with hostile images, and what must hold then.

use std::fmt;

use lodefs_core::fsck::{Code, Finding, Outcome, Report};
use lodefs_core::{Error, Fs};
use lodefs_pmem::Access;

use super::edit::{self, Case, Way};
use super::exercise::{demand_use, look, use_it};
use super::image::open_options;
use super::memory::bounded;
use super::site::Site;
use super::survival::{self, Contents};
use super::{bases, decode, messages};
use crate::rng::Rng;

/// What is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is opened, looked at, used, closed and opened again.
    Open,
    /// The same; what is wrong with it comes from journal records.
    Recovery,
    /// It is checked.
    Fsck,
    /// It is repaired.
    Repair,
    /// The input is taken for each of the structures that are stored.
    Decoders,
    /// The input is taken for each message between programs and servers.
    Messages,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Recovery, Self::Fsck, Self::Repair, Self::Decoders, Self::Messages];

    /// Its name, which is that of its fuzzer as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recovery => "recovery",
            Self::Fsck => "fsck",
            Self::Repair => "repair",
            Self::Decoders => "decoders",
            Self::Messages => "messages",
        }
    }

    /// Inputs to begin with: every volume as it is, and each with one edit of each kind; or one message of each kind.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        if self == Self::Messages {
            return messages::seeds();
        }
        let mut rng = Rng::new(self as u64);
        let mut seeds = Vec::new();
        for base in 0..bases::all().len() as u8 {
            seeds.push(vec![base, 0]);
            for kind in 0..edit::KINDS {
                let settings = [base, rng.next_u64() as u8, kind, rng.next_u64() as u8];
                let rest = [rng.next_u64().to_le_bytes(), rng.next_u64().to_le_bytes()];
                seeds.push([&settings[..], &rest.concat()[..edit::SIZE - 2]].concat());
            }
        }
        seeds
    }

    /// Does it with the case that an input stands for.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn run(self, data: &[u8]) {
        match self {
            Self::Open => open(&Site::of(Case::of(data, Way::InPlace))),
            Self::Recovery => recover(&Site::of(Case::of(data, Way::ByRecords))),
            Self::Fsck => check(&Site::of(Case::of(data, Way::InPlace))),
            Self::Repair => repair_any(data),
            Self::Decoders => {
                decode::parse(data);
                if let Some(case) = decode::place(data) {
                    let site = Site::of(case);
                    open(&site);
                    check(&Site::again(&site));
                }
            }
            Self::Messages => messages::parse(data),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| format!("there is no target {name:?}"))
    }
}

/// Read-only nothing changes; otherwise nothing outside of the volume does.
fn open(site: &Site) {
    let _ = site.look();
    let _ = Fs::probe_clean(site.medium(Access::ReadOnly));
    site.assert_unchanged();
    bounded(site.size(), || {
        if let Ok(fs) = Fs::open(site.medium(Access::ReadWrite), &open_options()) {
            use_it(&fs, &look(&fs), &site.case.changed, site.case.salt);
            let _ = fs.close();
        }
    });
    site.assert_nothing_behind_it_changed();
    bounded(site.size(), || {
        if let Ok(fs) = Fs::open(site.medium(Access::ReadWrite), &open_options()) {
            let _ = look(&fs);
        }
    });
    site.assert_nothing_behind_it_changed();
}

/// Whatever the records say, the superblocks stay as they are, and fsck takes the records for the same as the engine does.
fn recover(site: &Site) {
    check(site);
    open(site);
    site.assert_superblocks_unchanged();
}

/// A check changes nothing and says the same each time; and what it calls clean can be read to the last byte.
fn check(site: &Site) {
    let report = site.check();
    site.assert_unchanged();
    match (&report, site.check()) {
        (Ok(first), Ok(second)) => assert_eq!(*first, second),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        (first, second) => panic!("first {first:?}, then {second:?}"),
    }
    if report.is_ok_and(|report| report.is_clean()) {
        assert_eq!(site.look(), None, "fsck says that this volume is in order");
    }
}

fn repair_any(data: &[u8]) {
    let case = Case::of(data, Way::InPlace);
    if case.salt & 8 == 0 {
        let agrees = case.salt & 4 == 0;
        repair(&Site::of(case), agrees);
    } else if let Some((case, affected)) = survival::damage(data) {
        let base = case.base;
        let site = Site::of(case);
        if repair(&site, true) {
            let fs = Fs::open(site.medium(Access::ReadWrite), &open_options()).expect("it was opened before");
            let after = Contents::of(&fs).expect("it was looked at before");
            affected.verify(base, &after).unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
}

/// Repairs a volume. Nothing is left but what there was no room for; then it can be used, and is in order after that.
/// Returns whether it came to that.
fn repair(site: &Site, agrees: bool) -> bool {
    let checked = site.check();
    let mut rng = Rng::new(site.case.salt);
    let report = site.repair(&mut |_| agrees || rng.one_in(2));
    site.assert_nothing_behind_it_changed();
    match (checked, report) {
        // Whoever knows only how to read it says so first.
        (_, Err(Error::Incompatible(_))) => {
            site.assert_unchanged();
            false
        }
        (Err(before), Err(after)) => {
            assert_eq!(before.to_string(), after.to_string());
            site.assert_unchanged();
            false
        }
        (Ok(_), Ok(report)) => judge(site, agrees, &report),
        (checked, report) => panic!("check says {checked:?}, repair says {report:?}"),
    }
}

/// What must be true of a volume after a repair that says this.
fn judge(site: &Site, agrees: bool, report: &Report) -> bool {
    let left: Vec<&Finding> = report.left().collect();
    let lacks_room = |finding: &Finding| match &finding.outcome {
        Outcome::Failed(reason) => reason.contains("No space left"),
        _ => false,
    };
    assert!(!agrees || left.iter().all(|it| lacks_room(it)), "left: {left:#?}");
    let again = site.check().expect("what was repaired is a volume");
    if !left.is_empty() {
        let _ = site.look();
        // Now with every remedy, where some were declined.
        let report = site.repair(&mut |_| true).expect("what was repaired is a volume");
        assert!(report.left().all(lacks_room), "left in the end: {:#?}", report.findings);
        site.assert_nothing_behind_it_changed();
        return false;
    }
    assert_eq!(again.findings, [], "after the repair");
    let repaired = site.bytes();
    let second =
        site.repair(&mut |_| panic!("there is nothing to ask")).expect("what was repaired is a volume");
    assert_eq!(second.findings, [], "in the second repair");
    // A volume that has crashed, and is otherwise in order, is recovered each time.
    let has_nothing_to_recover = second.was_clean && second.records_replayed == 0;
    assert!(!has_nothing_to_recover || site.bytes() == repaired, "the second repair has changed something");
    assert_eq!(site.look(), None, "after the repair");
    let fs =
        Fs::open(site.medium(Access::ReadWrite), &open_options()).expect("what was repaired can be opened");
    demand_use(&fs).unwrap_or_else(|fault| panic!("what was repaired cannot be used: {fault}"));
    fs.close().expect("what was repaired can be closed");
    drop(fs);
    let used = site.check().expect("what was used is a volume");
    // Counts that were forged to be the highest possible, which is not wrong yet, are counted on from there. Wherever the
    // limit is, some count is the last before it.
    let is_beyond = |it: &Finding| matches!(it.code, Code::StateCount | Code::StateLost);
    let was_at_limit = report.findings.is_empty() && used.findings.iter().all(is_beyond);
    assert!(was_at_limit || used.findings.is_empty(), "after using it: {:#?}", used.findings);
    true
}
