//! What the fuzzers do with hostile images (`fuzz/`), with inputs that are the same each time.
//!
//! `LODEFS_HOSTILE_CASES` sets the number of cases for each target, `LODEFS_HOSTILE_FIRST` the first; a failing case
//! prints its number.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use lodefs_testkit::hostile::Target;
use lodefs_testkit::hostile::memory::Counting;
use lodefs_testkit::rng::Rng;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Cases for each target in a normal run.
const CASES: u64 = 600;
/// Longest input, in bytes.
const INPUT_MAX: u64 = 120;

/// What takes so long does not end, on whatever machine.
const HANGS: Duration = Duration::from_mins(5);

/// Prints the number of the case if it fails.
struct Case(Target, u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(target, number) = self;
            eprintln!("{target}: run it again with LODEFS_HOSTILE_FIRST={number} LODEFS_HOSTILE_CASES=1");
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Waits for the numbers of cases, and gives up if the next one takes too long to come: the last does not end.
fn watch(target: Target, cases: &Receiver<u64>) {
    let mut last = 0;
    loop {
        match cases.recv_timeout(HANGS) {
            Ok(number) => last = number,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("{target}: case {last} does not end");
                std::process::abort();
            }
        }
    }
}

fn run(target: Target) {
    let (begun, cases) = mpsc::channel();
    let watchdog = std::thread::spawn(move || watch(target, &cases));
    let first = setting("LODEFS_HOSTILE_FIRST", 0);
    for number in first..first + setting("LODEFS_HOSTILE_CASES", CASES) {
        let _case = Case(target, number);
        begun.send(number).expect("the watchdog listens");
        let mut rng = Rng::new(number);
        let size = rng.below(INPUT_MAX);
        let data: Vec<u8> = (0..size).map(|_| rng.next_u64() as u8).collect();
        target.run(&data);
    }
    drop(begun);
    watchdog.join().expect("it does not panic");
}

#[test]
fn open() {
    run(Target::Open);
}

#[test]
fn recovery() {
    run(Target::Recovery);
}

#[test]
fn fsck() {
    run(Target::Fsck);
}

#[test]
fn repair() {
    run(Target::Repair);
}

#[test]
fn decoders() {
    run(Target::Decoders);
}

/// An extent of a file reaches behind the end of the volume, where the medium goes on.
#[test]
fn an_extent_behind_the_volume_is_not_written() {
    const FURNISHED: u8 = 1;
    const GUARDED: u8 = 8;
    const INODE_FIELD: u8 = 5;
    const PLAIN: u8 = 2;
    const EXTENT_STARTS: [u8; 4] = [168, 192, 216, 240];
    const EIGHT_BYTES_BEHIND_THE_END: u8 = 0x20 | 0x0a;
    for (field, salt) in EXTENT_STARTS.into_iter().flat_map(|field| (0..8).map(move |salt| (field, salt))) {
        let head = [FURNISHED, GUARDED | salt << 4, INODE_FIELD, 0, PLAIN, 0, field, 0];
        Target::Open.run(&[&head[..], &[EIGHT_BYTES_BEHIND_THE_END, 3]].concat());
    }
}
