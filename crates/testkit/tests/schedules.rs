//! Schedules of threads in the engine, chosen by shuttle: `cargo xtask schedules` runs this with the scheduler in place.
#![cfg(lodefs_shuttle)]

use lodefs_pmem::Domain;
use lodefs_testkit::schedules::{Meeting, Plan, Theme};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

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

fn run(scheduler: impl Scheduler + 'static, theme: Theme, seed: u64, domain: Domain) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = shuttle::FailurePersistence::Print;
    Runner::new(scheduler, config).run(move || meet(theme, seed, domain));
}

fn explore(theme: Theme) {
    let (plans, schedules) = counts();
    for seed in 0..plans {
        let domain = [Domain::MemoryController, Domain::Page, Domain::Volatile][seed as usize % 3];
        run(RandomScheduler::new_from_seed(seed, schedules), theme, seed, domain);
        run(PctScheduler::new_from_seed(seed, 3, schedules), theme, seed, domain);
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
