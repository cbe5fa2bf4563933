//! Who may do what, and what becomes of attributes and rights: as on XFS.
//!
//! Threads with different users, groups and capabilities make the same calls on a mounted volume and on XFS. After each
//! call the result, all attributes and what the kernel then allows are compared. On the volume, what the kernel remembers
//! must be what the server says.

#[path = "../common/mod.rs"]
mod common;

mod beside;
mod operation;
mod person;
mod programs;
mod seen;
mod stage;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use operation::Operation;
use person::{Actor, PEOPLE};
use seen::{Shown, Statuses};
use stage::{Fixture, Stage};

/// Cases of the table for each pair of operation and person; and calls at random. `LODEFS_TEST_CALLS` for other numbers of
/// calls.
const CASES: u64 = 2;
const CALLS: u64 = 3000;
/// Operations of one sequence.
const SEQUENCE: u64 = 12;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

/// Numbers at random (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

/// What came of an operation on one of the two file systems.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    result: Result<i64, i32>,
    shown: Vec<Shown>,
    allowed: Vec<[bool; 3]>,
    /// What `f` was before the call.
    before: seen::Before,
}

struct Tester {
    stage: Stage,
    actors: Vec<Actor>,
    /// What was found: how often, and an example.
    findings: BTreeMap<String, (u64, String)>,
    made: u64,
}

impl Tester {
    fn new() -> Option<Self> {
        let stage = Stage::new()?;
        let actors = PEOPLE.iter().map(|person| Actor::new(*person)).collect();
        Some(Self { stage, actors, findings: BTreeMap::new(), made: 0 })
    }

    /// Makes the calls, one after the other, in a new fixture on both sides. Ends at the first finding, because the two
    /// sides differ from there on.
    fn run(&mut self, fixture: Fixture, calls: &[(usize, Operation)]) {
        let places: Vec<PathBuf> =
            self.stage.sides().iter().map(|side| side.join(format!("case{}", self.made))).collect();
        for place in &places {
            fixture.make(place);
        }
        // What a later read does to the access time depends on ticks of the clock.
        let mut knows_access = calls.len() == 1;
        for &(actor, operation) in calls {
            self.made += 1;
            let [(ours, stale), (theirs, _)] = [0, 1].map(|side| self.make(&places[side], actor, operation));
            knows_access &= fixture.is_direct && ours.shown.iter().all(Shown::may_be_direct);
            let [ours, theirs] = [ours, theirs].map(|outcome| comparable(outcome, knows_access, operation));
            let found = match stale {
                Some(stale) => stale,
                None if ours == theirs => continue,
                None if is_known(operation, &ours, &theirs) => break,
                None => difference(&ours, &theirs),
            };
            let person = self.actors[actor].person.name;
            let example = format!("as {person} in {fixture:?}, calls {calls:?}");
            self.findings.entry(format!("{operation:?}: {found}")).or_insert((0, example)).0 += 1;
            break;
        }
        for place in &places {
            stage::remove(place);
        }
    }

    /// Makes one call on one side. Tells what the kernel remembers wrongly, if anything.
    fn make(&self, place: &Path, actor: usize, operation: Operation) -> (Outcome, Option<String>) {
        let before = seen::asked(place);
        let of_file = seen::Before::of(place);
        let needs = operation.needs_descriptor();
        let file = if needs { open(place, "f", operation.flags_of_descriptor()) } else { None };
        let other = if needs { open(place, "g", libc::O_RDONLY) } else { None };
        let given = [&file, &other].map(|file| file.as_ref().map_or(-1, File::as_raw_fd));
        let at = place.to_owned();
        let result = self.actors[actor].run(move || operation.perform(&at, given));
        let at = place.to_owned();
        let by_actor = self.actors[actor].run(move || seen::remembered(&at));
        let by_root = seen::remembered(place);
        let allowed = self.actors.iter().map(|actor| {
            let at = place.to_owned();
            actor.run(move || seen::allowed(&at))
        });
        let allowed = allowed.collect();
        let now = seen::asked(place);
        drop((file, other));
        let stale = stale(&by_root, &now).or_else(|| stale_of_actor(&by_actor, &now));
        (Outcome { result, shown: seen::shown(place, &before, &now), allowed, before: of_file }, stale)
    }

    /// Fails with all that was found.
    fn judge(self) {
        let Self { findings, made, .. } = self;
        let all: u64 = findings.values().map(|(count, _)| count).sum();
        eprintln!("{made} calls, {all} findings");
        for (found, (count, example)) in &findings {
            eprintln!("{count} times: {found}\n    {example}");
        }
        assert!(findings.is_empty(), "{all} findings");
    }
}

/// A file that root opens; an immutable file, for example, cannot be.
fn open(place: &Path, name: &str, flags: i32) -> Option<File> {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let mut options = OpenOptions::new();
    options.read(true).write(writes).custom_flags(flags & !libc::O_ACCMODE);
    options.open(place.join(name)).ok()
}

fn stale(remembered: &Statuses, now: &Statuses) -> Option<String> {
    let differs = |(_, (remembered, now)): &(usize, (&Option<_>, &Option<_>))| remembered != now;
    let found = remembered.iter().zip(now).enumerate().find(differs);
    found.map(|(name, _)| format!("the kernel remembers {:?} wrongly", stage::NAMES[name]))
}

/// The same, of what somebody has seen who may not see everything.
fn stale_of_actor(remembered: &Statuses, now: &Statuses) -> Option<String> {
    let seen = |(remembered, now): (&Option<_>, &Option<_>)| {
        if remembered.is_none() { (None, None) } else { (remembered.clone(), now.clone()) }
    };
    let (remembered, now) = remembered.iter().zip(now).map(seen).unzip();
    stale(&remembered, &now)
}

fn difference(ours: &Outcome, theirs: &Outcome) -> String {
    if ours.result != theirs.result {
        return format!("result {:?}, on XFS {:?}", ours.result, theirs.result);
    }
    if ours.shown != theirs.shown {
        return seen::difference(&ours.shown, &theirs.shown);
    }
    format!("allowed {:?}, on XFS {:?}", ours.allowed, theirs.allowed)
}

/// Without what cannot be the same on a FUSE mount, or need not (docs/SEMANTICS.md).
fn comparable(mut outcome: Outcome, knows_access: bool, operation: Operation) -> Outcome {
    if !knows_access {
        outcome.shown.iter_mut().for_each(Shown::forget_access);
    }
    if matches!(operation, Operation::Exchange) {
        outcome.shown.iter_mut().for_each(Shown::forget_change);
    }
    if outcome.shown.iter().any(Shown::is_immutable_f) {
        // The kernel's access(2) does not know of immutable files.
        outcome.allowed.iter_mut().for_each(|allowed| allowed[1] = false);
    }
    outcome
}

/// Differences that docs/SEMANTICS.md names. The two sides may differ afterwards.
fn is_known(operation: Operation, ours: &Outcome, theirs: &Outcome) -> bool {
    // Who does not own a file with set-id bits changes nothing by chown(-1, -1), and is not told.
    let asks = matches!(operation, Operation::Chown(u32::MAX, u32::MAX))
        && (ours.result, theirs.result) == (Ok(0), Err(libc::EPERM))
        && ours.shown == theirs.shown;
    // A process with CAP_FSETID writes a file that has set-id bits and capabilities: the former go, too.
    let same_but_lost = |(ours, theirs): (&Shown, &Shown)| ours == theirs || ours.has_lost_set_id(theirs);
    let loses = theirs.before.had_capability
        && ours.result == theirs.result
        && ours.shown.len() == theirs.shown.len()
        && ours.shown.iter().zip(&theirs.shown).all(same_but_lost);
    // The kernel takes capabilities before it asks to change the owner, which is refused then.
    let refused = matches!(operation, Operation::Chown(..))
        && theirs.before.had_capability
        && theirs.result == Err(libc::EPERM)
        && ours.shown.len() == theirs.shown.len()
        && ours.shown.iter().zip(&theirs.shown).all(|(ours, theirs)| ours.has_lost_capability(theirs));
    // The kernel does not know of flags, and finds another reason first.
    let has_another_reason = theirs.before.had_flags
        && ours.result.is_err()
        && theirs.result == Err(libc::EPERM)
        && ours.shown == theirs.shown;
    // An open with O_TRUNC looks the same to the server, and moves the times also of an empty file.
    let empties = matches!(operation, Operation::Truncate(0))
        && theirs.before.was_empty
        && ours.result == theirs.result;
    // The server takes the kernel's removal of capabilities for one by a process that may ask for that.
    let keeps = theirs.before.had_capability
        && theirs.before.had_flags
        && ours.result == Err(libc::EPERM)
        && theirs.result.is_ok();
    asks || loses || refused || keeps || has_another_reason || empties
}

#[test]
fn every_operation_by_everybody_does_what_it_does_on_xfs() {
    let Some(mut tester) = Tester::new() else { return };
    let cases = number("LODEFS_TEST_CALLS").map_or(CASES, |calls| calls / 1500 + 1);
    let mut numbers = Numbers(number("LODEFS_TEST_SEED").unwrap_or(1));
    for operation in operation::all() {
        for actor in 0..PEOPLE.len() {
            for _ in 0..cases {
                tester.run(Fixture::of(numbers.below(Fixture::ALL)), &[(actor, operation)]);
            }
        }
    }
    tester.judge();
}

#[test]
fn operations_at_random_do_what_they_do_on_xfs() {
    let Some(mut tester) = Tester::new() else { return };
    let calls = number("LODEFS_TEST_CALLS").unwrap_or(CALLS);
    let mut numbers = Numbers(number("LODEFS_TEST_SEED").unwrap_or(1) + 100);
    let all = operation::all();
    while tester.made < calls {
        let sequence: Vec<_> = (0..SEQUENCE)
            .map(|_| {
                let actor = numbers.below(PEOPLE.len() as u64) as usize;
                (actor, all[numbers.below(all.len() as u64) as usize])
            })
            .collect();
        tester.run(Fixture::of(numbers.below(Fixture::ALL)), &sequence);
    }
    tester.judge();
}
