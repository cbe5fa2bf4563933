//! Schedules of threads in the engine, chosen by shuttle: `cargo xtask schedules` runs this with the scheduler in place.
#![cfg(lodefs_shuttle)]

mod interrupt;
mod words;

use std::sync::Arc;

use lodefs_core::{
    DaxPolicy, Fallocate, FormatOptions, Fs, LeaseOptions, Lessee, NewInode, NewKind, Node, OpenOptions,
    Recall, RenameMode, SetAttr, Touch, fsck,
};
use lodefs_pmem::Domain;
use lodefs_sync::{Condvar, Mutex, point};
use lodefs_testkit::memory_file::MemoryFile;
use lodefs_testkit::schedules::leases::{self, Variant};
use lodefs_testkit::schedules::{Meeting, Plan, Theme};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

use interrupt::Interrupt;

/// Plans of each theme, and schedules of each plan.
fn counts() -> (u64, usize) {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    (set("LODEFS_SCHEDULE_PLANS").unwrap_or(20), set("LODEFS_SCHEDULES").unwrap_or(25) as usize)
}

/// One in so many crash images is looked at.
const ONE_IN: u64 = 40;

fn meet(theme: Theme, seed: u64, domain: Domain) {
    let mut meeting = Meeting::new(Plan::random(theme, seed), domain).unwrap();
    let threads: Vec<_> = meeting.begin().unwrap().into_iter().map(shuttle::thread::spawn).collect();
    let records: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    if let Err(fault) = meeting.judge(&records, ONE_IN, seed) {
        panic!("{theme:?}, seed {seed}, {domain}: {fault}");
    }
}

/// Programs that map files meet others who change them.
fn meet_programs(seed: u64, variant: Variant) {
    let meeting = leases::Meeting::new(seed, variant).unwrap();
    let threads: Vec<_> = meeting.begin().into_iter().map(shuttle::thread::spawn).collect();
    let deeds = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    if let Err(fault) = meeting.judge(deeds) {
        panic!("seed {seed}: {fault}");
    }
}

fn run(scheduler: impl Scheduler + 'static, theme: Theme, seed: u64, domain: Domain) {
    Runner::new(scheduler, config(shuttle::FailurePersistence::Print)).run(move || meet(theme, seed, domain));
}

fn config(failure_persistence: shuttle::FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = failure_persistence;
    config
}

fn explore(theme: Theme) {
    let (plans, schedules) = counts();
    for seed in 0..plans {
        let domain = [Domain::MemoryController, Domain::Page, Domain::Volatile][seed as usize % 3];
        run(RandomScheduler::new_from_seed(seed, schedules), theme, seed, domain);
        run(PctScheduler::new_from_seed(seed, 3, schedules), theme, seed, domain);
        // Some thousand moments, which take a while.
        if theme == Theme::Closing && seed == 0 {
            run(Interrupt::default(), theme, seed, domain);
        }
    }
    println!("{theme:?}: {plans} plans, {} schedules", plans * 2 * schedules as u64);
}

#[test]
fn names_in_one_directory() {
    explore(Theme::Names);
}

#[test]
fn the_content_of_one_file() {
    explore(Theme::Content);
}

#[test]
fn a_volume_that_is_closed() {
    explore(Theme::Closing);
}

#[test]
fn a_volume_that_is_nearly_full() {
    explore(Theme::Full);
}

#[test]
fn names_in_a_directory_of_several_leaves() {
    explore(Theme::Tree);
}

#[test]
fn programs_that_map_files() {
    let (plans, schedules) = counts();
    for seed in 0..plans {
        let run = |scheduler: Box<dyn Scheduler + Send>| {
            let config = config(shuttle::FailurePersistence::Print);
            Runner::new(scheduler, config).run(move || meet_programs(seed, Variant::Right));
        };
        run(Box::new(RandomScheduler::new_from_seed(seed, schedules)));
        run(Box::new(PctScheduler::new_from_seed(seed, 3, schedules)));
    }
    println!("programs: {plans} plans, {} schedules", plans * 2 * schedules as u64);
}

/// Plans in one of which what is wrong must be found.
const PLANS_MAX: u64 = 100;

/// What comes of it where something is done wrong, and in which plan.
fn found(variant: Variant) -> (u64, String) {
    for seed in 0..PLANS_MAX {
        let meet = move || {
            let scheduler = RandomScheduler::new_from_seed(seed, 50);
            let config = config(shuttle::FailurePersistence::None);
            Runner::new(scheduler, config).run(move || meet_programs(seed, variant));
        };
        if let Err(panic) = std::thread::spawn(meet).join() {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            return (seed, text.unwrap_or_else(|| "(no message)".to_owned()));
        }
    }
    panic!("{variant:?}: nothing is wrong with {PLANS_MAX} plans");
}

#[test]
fn what_programs_or_the_server_do_wrong_is_found() {
    const LOST: &str = "no order explains";
    const NOT_ITS_OWN: &str = "somebody else's block";
    const COPIES: &str = "two copies";
    for (variant, expected) in [
        (Variant::LateGrant, &[LOST, NOT_ITS_OWN][..]),
        (Variant::EarlyReuse, &[LOST, NOT_ITS_OWN]),
        (Variant::ZeroesStay, &[LOST]),
        (Variant::KindAtFault, &[COPIES]),
        (Variant::AnswersAtOnce, &[LOST, NOT_ITS_OWN]),
    ] {
        let (seed, text) = found(variant);
        println!("{variant:?}, plan {seed}: {}", text.lines().next().unwrap_or_default());
        assert!(expected.iter().any(|expected| text.contains(expected)), "{variant:?}: {text}");
    }
}

/// Whoever waits is told, though it may be said before he waits, or to several at once.
#[test]
fn nobody_waits_for_what_was_said() {
    let wait_and_tell = || {
        let shared = Arc::new((Mutex::new(0), Condvar::default()));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let shared = Arc::clone(&shared);
                shuttle::thread::spawn(move || {
                    let (count, changed) = &*shared;
                    let mut count = count.lock();
                    while *count < number {
                        count = changed.wait(count);
                    }
                    *count += 1;
                    drop(count);
                    changed.notify_all();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*shared.0.lock(), 3);
    };
    Runner::new(RandomScheduler::new_from_seed(0, 1000), Config::new()).run(wait_and_tell);
    Runner::new(PctScheduler::new_from_seed(0, 3, 1000), Config::new()).run(wait_and_tell);
}

/// Two directories are moved into each other: one of them at most gets there, or both would hang in the air.
fn swallow_each_other() {
    let file = MemoryFile::new(1 << 20).unwrap();
    Fs::format(&file.open(Domain::Volatile).unwrap(), &FormatOptions::default()).unwrap();
    let fs = Fs::open(file.open(Domain::Volatile).unwrap(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let new = NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };
    let [a, b] = ["a", "b"].map(|name| fs.create(&root, name.as_bytes(), &new).unwrap());
    let threads = [("a", b), ("b", a)].map(|(name, into)| {
        let (fs, root) = (Arc::clone(&fs), root.clone());
        let moved = move || {
            fs.rename(&root, name.as_bytes(), &into, name.as_bytes(), RenameMode::Replace, (0, 0)).is_ok()
        };
        shuttle::thread::spawn(moved)
    });
    let moved: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{moved:?}");
    let left = ["a", "b"].iter().filter(|name| fs.lookup(&root, name.as_bytes()).is_ok()).count();
    assert_eq!(left, 1);
}

#[test]
fn directories_that_are_moved_into_each_other() {
    let (plans, schedules) = counts();
    let runs = plans as usize * schedules;
    let run =
        |scheduler: Box<dyn Scheduler + Send>| Runner::new(scheduler, Config::new()).run(swallow_each_other);
    run(Box::new(RandomScheduler::new_from_seed(0, runs)));
    run(Box::new(PctScheduler::new_from_seed(0, 3, runs)));
}

/// A program that answers late, if at all.
#[derive(Default)]
struct Late(Mutex<Vec<Recall>>);

impl Lessee for Late {
    fn recall(&self, mut recall: Recall) {
        recall.answer.give_up();
        self.0.lock().push(recall);
    }
}

/// A volume is closed while a program answers that was given up on: what it had may be used again, or is not freed at all.
fn close_while_one_answers() {
    const BLOCK: u64 = 4096;
    let file = MemoryFile::new(1 << 20).unwrap();
    let open = || file.open(Domain::MemoryController).unwrap();
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let options = OpenOptions { dax: DaxPolicy::Always, ..OpenOptions::default() };
    let fs = Fs::open(open(), &options).unwrap();
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    let node = fs.create(&fs.root().unwrap(), b"f", &new).unwrap();
    fs.write(&node, 0, &[1; BLOCK as usize], false).unwrap();
    let program = Arc::new(Late::default());
    let options = LeaseOptions { writable: true, sync: false, pid: 1 };
    let lease = fs.lease(&node, Arc::clone(&program) as Arc<dyn Lessee>, options).unwrap();
    let touch = Touch { offset: 0, write: true, from: 0, to: BLOCK, window: BLOCK };
    lease.touch(&touch, |_| {}).unwrap();
    fs.fallocate(&node, Fallocate::PunchHole, 0, BLOCK).unwrap();
    let (closing, looking) = (Arc::clone(&fs), Arc::clone(&fs));
    let threads = [
        shuttle::thread::spawn(move || drop(std::mem::take(&mut *program.0.lock()))),
        shuttle::thread::spawn(move || closing.close().unwrap()),
        shuttle::thread::spawn(move || assert!(looking.attr(&node).is_ok())),
    ];
    assert!(lease.is_direct());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(lease);
    drop(fs);
    Fs::open(open(), &OpenOptions::default()).unwrap().close().unwrap();
    let medium = file.open_read_only(Domain::MemoryController).unwrap();
    let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn a_volume_is_closed_while_a_program_answers() {
    let (plans, schedules) = counts();
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        Runner::new(scheduler, config(shuttle::FailurePersistence::Print)).run(close_while_one_answers);
    };
    run(Box::new(RandomScheduler::new_from_seed(0, plans as usize * schedules)));
    run(Box::new(PctScheduler::new_from_seed(0, 3, plans as usize * schedules)));
    run(Box::new(Interrupt::default()));
}

/// A program that answers at once.
struct Answers;

impl Lessee for Answers {
    fn recall(&self, recall: Recall) {
        drop(recall);
    }
}

/// Files are counted on in words, and settled, while the volume is closed.
fn reserve_while_it_is_closed() {
    const BLOCK: u64 = 4096;
    let file = MemoryFile::new(1 << 20).unwrap();
    let open = || file.open(Domain::MemoryController).unwrap();
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let options = OpenOptions { dax: DaxPolicy::Always, ..OpenOptions::default() };
    let fs = Fs::open(open(), &options).unwrap();
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    let threads = [b"a", b"b"].map(|name| {
        let node = fs.create(&fs.root().unwrap(), name, &new).unwrap();
        let lease = fs.lease_data(&node, Arc::new(Answers), true, 1).unwrap();
        let fs = Arc::clone(&fs);
        shuttle::thread::spawn(move || {
            for _ in 0..2 {
                // Refused, once it is closed.
                drop(lease.reserve(0, BLOCK, |_| {}));
                drop(fs.fallocate(&node, Fallocate::PunchHole, 0, BLOCK));
            }
        })
    });
    let closing = Arc::clone(&fs);
    let closing = shuttle::thread::spawn(move || closing.close().unwrap());
    for thread in threads.into_iter().chain([closing]) {
        thread.join().unwrap();
    }
    drop(fs);
    Fs::open(open(), &OpenOptions::default()).unwrap().close().unwrap();
    let medium = file.open_read_only(Domain::MemoryController).unwrap();
    let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn files_are_reserved_for_and_settled_while_a_volume_is_closed() {
    let (plans, schedules) = counts();
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let config = config(shuttle::FailurePersistence::Print);
        Runner::new(scheduler, config).run(reserve_while_it_is_closed)
    };
    run(Box::new(RandomScheduler::new_from_seed(0, plans as usize * schedules)));
    run(Box::new(PctScheduler::new_from_seed(0, 3, plans as usize * schedules)));
    println!("closed at {} moments", run(Box::new(Interrupt::default())));
}

fn chmod(fs: &Fs, node: &Node, number: u32) -> lodefs_core::Result<()> {
    fs.set_attr(node, &SetAttr { perm: Some(0o700 | number & 7), ..SetAttr::default() }).map(|_| ())
}

/// Everybody wants the journal emptied, or all of it made durable, at the same time: whoever needs the blocks that were freed before, whoever
/// finds a lane nearly full (after so many `changes` before), whoever syncs, and whoever closes the volume, after a `pause`.
fn empty_the_journal(changes: u32, pause: usize) {
    const BLOCK: u64 = 4096;
    let file = MemoryFile::new(1 << 20).unwrap();
    let open = || file.open(Domain::Page).unwrap();
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    let [freed, filling] = [b"a", b"b"].map(|name| fs.create(&root, name, &new).unwrap());
    let allocate = |node, blocks| {
        fs.fallocate(node, Fallocate::Allocate { keep_size: false }, 0, blocks * BLOCK).unwrap();
    };
    allocate(&freed, 4);
    allocate(&filling, fs.space().blocks_available - 1);
    (0..changes).for_each(|number| chmod(&fs, &root, number).unwrap());
    fs.set_attr(&freed, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    type Work = fn(&Arc<Fs>, &Node, usize);
    // Refused, once it is closed.
    let change: Work = |fs, filling, _| (0..8).for_each(|number| drop(chmod(fs, filling, number)));
    let sync: Work = |fs, filling, _| {
        for number in 0..8 {
            drop(chmod(fs, filling, number));
            assert!(fs.sync().is_ok());
        }
    };
    let works: [Work; 7] = [
        |fs, filling, _| drop(fs.append(filling, &[2; 2 * BLOCK as usize], false)),
        sync,
        sync,
        sync,
        |fs, _, pause| {
            // Nothing can be changed from its first step on, so the others begin.
            (0..pause).for_each(|_| point());
            assert!(fs.close().is_ok());
        },
        change,
        change,
    ];
    let threads = works.map(|work| {
        let (fs, filling) = (Arc::clone(&fs), filling.clone());
        shuttle::thread::spawn(move || work(&fs, &filling, pause))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop((root, freed, filling));
    assert!(fs.close().is_ok());
    drop(fs);
    Fs::open(open(), &OpenOptions::default()).unwrap().close().unwrap();
    let medium = file.open_read_only(Domain::Page).unwrap();
    let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn a_journal_that_many_want_to_be_emptied() {
    let (plans, schedules) = counts();
    for plan in 0..plans {
        // A lane is to be emptied after 88.
        let (changes, pause) = (80 + (plan % 8) as u32, 20 * plan as usize);
        let run = |scheduler: Box<dyn Scheduler + Send>| {
            let config = config(shuttle::FailurePersistence::Print);
            Runner::new(scheduler, config).run(move || empty_the_journal(changes, pause));
        };
        run(Box::new(RandomScheduler::new_from_seed(plan, schedules)));
        run(Box::new(PctScheduler::new_from_seed(plan, 3, schedules)));
    }
}
