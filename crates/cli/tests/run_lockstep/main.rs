//! `lodefs run`: calls of one program at random, in lockstep on files of a volume and on files of the kernel.
//!
//! Each step is a call by an actor (a thread, a thread with descriptors of its own, a signal handler, a child that was forked or vforked) in
//! a way (a function of the C library, syscall(3), an instruction that no library sees, a stream, `io_uring`, Linux AIO). The same step is
//! made on both sides, and must come to the same: results, errno values, bytes, positions, sizes, flags.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "arguments and results of calls are registers"
)]

#[path = "../common/mod.rs"]
mod common;

mod actors;
mod calls;
mod side;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use actors::{Actor, Actors};
use calls::{Call, Done};
use common::programs::{playing, stage, told};
use side::Side;
use ways::Way;

/// Calls; `LODEFS_TEST_CALLS` for more.
const CALLS: u64 = 20_000;
/// Where the files of the other side are.
const REFERENCE: &str = "LODEFS_TEST_REFERENCE";
/// Calls between two comparisons of all that is in the files.
const COMPARED: u64 = 256;
/// For so long the library leaves a file to the kernel that somebody else has used.
const REST: Duration = Duration::from_millis(12);

/// What the test runs.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    assert_eq!(part, "lockstep");
    let reference = PathBuf::from(std::env::var_os(REFERENCE).expect("a place"));
    in_lockstep(&place, &reference);
}

/// Numbers that look random, and are the same for the same seed (xorshift64*).
pub(crate) struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Who makes a step, and how. Now and then many steps are plain calls of one thread, so that files are lent to the program.
struct Mood {
    plain: u64,
}

impl Mood {
    fn next(&mut self, numbers: &mut Numbers) -> (Actor, Way) {
        if self.plain > 0 {
            self.plain -= 1;
            return (Actor::This, Way::Library);
        }
        if numbers.below(24) == 0 {
            self.plain = numbers.below(64);
            sleep(REST);
        }
        (Actor::any(numbers), Way::any(numbers))
    }
}

fn in_lockstep(place: &Path, reference: &Path) {
    let (seed, calls) = (number("LODEFS_TEST_SEED", 1), number("LODEFS_TEST_CALLS", CALLS));
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut actors = Actors::new([Side::new(place), Side::new(reference)]);
    let mut mood = Mood { plain: 0 };
    let mut recent: Vec<(u64, Actor, Way, Call, Done)> = Vec::new();
    let mut refused = 0;
    for step in 0..calls {
        let (actor, way) = mood.next(&mut numbers);
        let call = Call::any(&mut numbers);
        let way = if way.can_make(&call) { way } else { Way::Library };
        let [found, expected] = actors.make(actor, way, &call);
        refused += u64::from(expected.result.is_err());
        recent.push((step, actor, way, call, expected.clone()));
        if found != expected {
            report(&recent);
            differences(&mut actors, [place, reference]);
            panic!("seed {seed}, step {step}: {found:?} instead of {expected:?}");
        }
        if step % COMPARED == COMPARED - 1 {
            for name in side::NAMES {
                let [found, expected] = [place, reference].map(|place| fs::read(place.join(name)).unwrap());
                if found != expected {
                    report(&recent);
                    let at = found.iter().zip(&expected).position(|(found, expected)| found != expected);
                    let (sizes, at) = ((found.len(), expected.len()), at.unwrap_or(0));
                    panic!("seed {seed}, step {step}: {name} differs at {at}, {sizes:?} bytes");
                }
            }
            recent.clear();
        }
    }
    println!("{calls} calls, {refused} of which were refused");
}

fn report(recent: &[(u64, Actor, Way, Call, Done)]) {
    for (step, actor, way, call, done) in recent {
        println!("{step}: {actor:?} {way:?} {call:?}: {:?}", done.result);
    }
}

/// Prints in what else the sides differ.
fn differences(actors: &mut Actors, places: [&Path; 2]) {
    for name in side::NAMES {
        let [found, expected] = places.map(|place| fs::read(place.join(name)).unwrap());
        let at = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        println!("{name}: {} and {} bytes, different at {at:?}", found.len(), expected.len());
    }
    for actor in [Actor::This, Actor::Unshared] {
        for slot in 0..side::SLOTS {
            let position = Call::Seek { slot, offset: 0, whence: libc::SEEK_CUR };
            for call in [position, Call::Size { slot }, Call::Flags { slot }] {
                let [found, expected] = actors.make(actor, Way::Unseen, &call).map(|done| done.result);
                println!("{actor:?} {call:?}: {found:?} and {expected:?}");
            }
        }
    }
}

#[test]
fn calls_in_every_way_come_to_the_same_as_on_files_of_the_kernel() {
    let Some((_bench, mounted)) = stage() else { return };
    let reference = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut command = playing(&[], "lockstep", &mounted.directory);
    let output = command.env(REFERENCE, reference.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    if number("LODEFS_TEST_CALLS", 0) > 0 {
        println!("{said}");
    }
    mounted.unmount();
}
