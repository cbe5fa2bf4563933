//! A program that embeds a volume is killed at random moments while several of its threads change it. Whatever had
//! returned must be there, and nothing else: each thread's part of the volume must be as of its last acknowledged
//! operation, or of the one after, which may have been in progress; and fsck must find nothing.
//!
//! The program is this test itself, started again with [`CHILD`] in its environment. Rounds follow each other on one
//! volume, so that each starts from what the recovery before left. `LODEFS_KILL_ROUNDS` sets how many (in each domain),
//! `LODEFS_KILL_SEED` repeats a run, as far as chance does not come from the kernel.

mod model;
mod operation;
mod round;
mod worker;

use std::path::PathBuf;

use lodefs::{Domain, Volume};

use crate::round::Killing;
use lodefs_testkit::rng::Rng;

/// Environment variable that makes this test the program that is killed: what it is to do.
const CHILD: &str = "LODEFS_KILL_CHILD";

/// Small, so that the journal fills and turns over all the time.
const VOLUME_SIZE: u64 = 24 << 20;

fn rounds() -> u64 {
    std::env::var("LODEFS_KILL_ROUNDS").map_or(10, |rounds| rounds.parse().expect("a number of rounds"))
}

fn seed() -> u64 {
    let chance = || {
        u64::from(std::process::id()) << 32
            ^ u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
    };
    std::env::var("LODEFS_KILL_SEED").map_or_else(|_| chance(), |seed| seed.parse().expect("a number"))
}

/// Kills again and again, on a volume in `directory`.
fn kill_repeatedly(domain: Domain, directory: PathBuf) {
    let scratch = tempfile::tempdir_in(directory).unwrap();
    let path = scratch.path().join("vol");
    let volume = Volume::options().size(VOLUME_SIZE).force_domain(domain).create(&path).unwrap();
    worker::prepare(&volume);
    volume.close().unwrap();
    let seed = seed();
    println!("LODEFS_KILL_SEED={seed}");
    let mut killing = Killing::new(path, domain, Rng::new(seed));
    for round in 0..rounds() {
        killing.round().unwrap_or_else(|fault| panic!("seed {seed}, round {round} on {domain}: {fault}"));
    }
    assert!(killing.operations > 0, "no operation was ever acknowledged");
    println!(
        "{} operations were acknowledged, {} rounds needed recovery",
        killing.operations, killing.recoveries
    );
}

fn tmpfs() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}

#[test]
fn nothing_acknowledged_is_lost_on_a_volatile_volume() {
    kill_repeatedly(Domain::Volatile, tmpfs());
}

#[test]
fn nothing_acknowledged_is_lost_on_persistent_memory() {
    kill_repeatedly(Domain::MemoryController, tmpfs());
}

#[test]
fn nothing_acknowledged_is_lost_on_an_ordinary_file() {
    kill_repeatedly(Domain::Page, PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
}

/// Not a test: what the others start and kill.
#[test]
#[ignore = "does nothing unless the other tests start it"]
fn child() {
    if let Ok(task) = std::env::var(CHILD) {
        worker::run(&task.parse().unwrap());
    }
}
