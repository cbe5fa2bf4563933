//! A program that embeds a volume is stopped at a random instruction of an operation, and ended there: the next open finds
//! the state before the operation or the one after it, and fsck finds nothing. An operation that has returned is there.
//!
//! The program is this test itself, started again. `LODEFS_STEP_POINTS` sets at how many instructions each operation is
//! stopped, in each domain (default 2); `LODEFS_STEP_SEED` chooses others.

use std::fs;
use std::path::Path;

use lodefs::{Domain, File, OpenOptions, Volume};
use lodefs_core::fsck;
use lodefs_pmem::Medium;
use lodefs_testkit::stepper::{self, Stepped, Stop};

const VOLUME_SIZE: u64 = 2 << 20;

/// What the program is to do: a domain, the number of an operation, and the volume.
const TASK: &str = "LODEFS_STEP_TASK";

type Operation = fn(&Volume) -> std::io::Result<()>;

/// The operations. Each is found done or not done, whole.
const OPERATIONS: [(&str, Operation); 8] = [
    ("create", |volume| File::create_new(volume, "d/new").map(drop)),
    ("append", |volume| append(volume, "d/full", &[2; 9000])),
    ("hole", |volume| {
        OpenOptions::new().write(true).open(volume, "d/full")?.write_all_at(&[3; 5000], 30_000)
    }),
    ("truncate", |volume| OpenOptions::new().write(true).open(volume, "d/full")?.set_len(100)),
    ("replace", |volume| volume.rename("d/full", "d/other")),
    ("unlink", |volume| volume.remove_file("d/full")),
    ("attribute", |volume| volume.set_xattr("d/full", "user.key", [4; 3000])),
    ("link and sync", |volume| {
        volume.hard_link("d/full", "d/link")?;
        volume.sync()
    }),
];

fn append(volume: &Volume, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(volume, name)?.append(bytes).map(drop)
}

fn open(path: &Path, domain: Domain) -> Volume {
    Volume::options().force_domain(domain).commit_interval(None).open(path).unwrap()
}

/// A volume with something in it.
fn make_template(path: &Path, domain: Domain) {
    let volume = Volume::options().size(VOLUME_SIZE).force_domain(domain).create(path).unwrap();
    volume.create_dir_all("d/sub").unwrap();
    for name in ["d/full", "d/other", "d/sub/file"] {
        volume.write(name, [1; 10_000]).unwrap();
    }
    volume.close().unwrap();
}

/// Everything that can be seen in a volume.
fn describe(volume: &Volume) -> Vec<String> {
    let describe = |entry: std::io::Result<lodefs::WalkEntry>| {
        let entry = entry.unwrap();
        let metadata = volume.symlink_metadata(entry.path()).unwrap();
        let (content, attribute) = if metadata.is_dir() {
            (Vec::new(), None)
        } else {
            (volume.read(entry.path()).unwrap(), volume.xattr(entry.path(), "user.key").unwrap())
        };
        let runs = content.chunk_by(|one, other| one == other).map(|run| (run[0], run.len()));
        let runs: Vec<(u8, usize)> = runs.collect();
        format!(
            "{} {:o} {} {runs:?} {:?}",
            entry.path().display(),
            metadata.mode(),
            metadata.nlink(),
            attribute.map(|value| value.len())
        )
    };
    volume.walk("d").unwrap().map(describe).collect()
}

/// The program: opens the volume, waits for the stepper, and does its operation.
#[test]
#[ignore = "a process of its own"]
fn program() {
    let task = std::env::var(TASK).expect("started by the test");
    let words: Vec<&str> = task.splitn(3, ' ').collect();
    let volume = open(Path::new(words[2]), words[0].parse().unwrap());
    let (_, operation) = OPERATIONS[words[1].parse::<usize>().unwrap()];
    stepper::between_stops(|| operation(&volume).unwrap());
}

/// Runs operation `number` on the volume at `path` for so many instructions, and ends it.
fn step(path: &Path, domain: Domain, number: usize, instructions: u64) -> Stepped {
    stepper::step("program", TASK, &format!("{domain} {number} {}", path.display()), instructions)
}

fn assert_whole(path: &Path, domain: Domain) {
    let options = lodefs_pmem::OpenOptions { force_domain: Some(domain), ..Default::default() };
    let medium = Medium::open(path, &options).unwrap();
    let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// Ends each operation at random instructions.
fn end_everywhere(domain: Domain) {
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (points, mut seed) = (number("LODEFS_STEP_POINTS", 2), number("LODEFS_STEP_SEED", 1));
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (template, path) = (scratch.path().join("template"), scratch.path().join("vol"));
    make_template(&template, domain);
    let copy = || assert_eq!(fs::copy(&template, &path).unwrap(), VOLUME_SIZE);
    for (operation, (name, perform)) in OPERATIONS.iter().enumerate() {
        copy();
        let volume = open(&path, domain);
        let before = describe(&volume);
        perform(&volume).unwrap();
        let after = describe(&volume);
        drop(volume);

        copy();
        let whole = step(&path, domain, operation, u64::MAX);
        assert_eq!(whole.stop, Stop::Returned);
        assert_eq!(describe(&open(&path, domain)), after, "{domain}: {name} has returned");
        let mut found_after = 0;
        for _ in 0..points {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Every other one near the end, where the record is written and its bytes go home.
            let range = if seed >> 63 == 0 { whole.instructions } else { whole.instructions / 8 };
            let instruction = whole.instructions - 1 - (seed >> 20) % range;
            copy();
            let stepped = step(&path, domain, operation, instruction);
            let place = format!("{domain}: {name}, ended after {} instructions", stepped.instructions);
            assert_whole(&path, domain);
            let found = describe(&open(&path, domain));
            assert!(found == after || (found == before && stepped.stop == Stop::Ended), "{place}: {found:?}");
            found_after += u64::from(found == after);
        }
        eprintln!(
            "{domain}: {name}: {} instructions, {found_after} of {points} were done",
            whole.instructions
        );
    }
}

#[test]
fn on_page() {
    end_everywhere(Domain::Page);
}

#[test]
fn on_volatile() {
    end_everywhere(Domain::Volatile);
}

#[test]
fn on_memory_controller() {
    end_everywhere(Domain::MemoryController);
}
