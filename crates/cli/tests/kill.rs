//! kill -9 of the server under a writing load: nothing that had returned is lost, and nothing is damaged.
//!
//! `LODEFS_KILL_ROUNDS` sets how often, for each kind of volume (default 3).

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Mounted, can_mount, lodefs, succeed, wait_for_end};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

const WRITERS: u64 = 3;
const FILES: u64 = 12;

/// A small generator of pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Create(String),
    Write { name: String, offset: u64, bytes: Vec<u8> },
    Truncate { name: String, size: u64 },
    Rename { from: String, to: String },
    Unlink(String),
}

/// The files of one writer, as they must be: whatever had returned, and perhaps the operation that had not.
#[derive(Clone, Debug, Default)]
struct Expected {
    files: BTreeMap<String, Vec<u8>>,
    under_way: Option<Operation>,
}

impl Operation {
    fn random(random: &mut Random, files: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut name = || format!("f{}", random.below(FILES));
        let (name, other) = (name(), name());
        let Some(content) = files.get(&name) else { return Self::Create(name) };
        let size = content.len() as u64;
        match random.below(10) {
            0 => Self::Unlink(name),
            1 if name != other => Self::Rename { from: name, to: other },
            2 => Self::Truncate { name, size: random.below(40_000) },
            kind => {
                let offset =
                    if kind < 6 { size.min(100_000) } else { random.below(size + 5000).min(100_000) };
                let fill = random.below(255) as u8 + 1;
                Self::Write { name, offset, bytes: vec![fill; random.below(20_000) as usize + 1] }
            }
        }
    }

    fn on_disk(&self, directory: &Path) -> io::Result<()> {
        let open = |name: &String| OpenOptions::new().write(true).open(directory.join(name));
        match self {
            Self::Create(name) => File::create_new(directory.join(name)).map(drop),
            Self::Write { name, offset, bytes } => open(name)?.write_all_at(bytes, *offset),
            Self::Truncate { name, size } => open(name)?.set_len(*size),
            Self::Rename { from, to } => fs::rename(directory.join(from), directory.join(to)),
            Self::Unlink(name) => fs::remove_file(directory.join(name)),
        }
    }

    fn in_memory(&self, files: &mut BTreeMap<String, Vec<u8>>) {
        match self {
            Self::Create(name) => drop(files.insert(name.clone(), Vec::new())),
            Self::Write { name, offset, bytes } => {
                let content = files.get_mut(name).expect("it exists");
                let end = *offset as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset as usize..end].copy_from_slice(bytes);
            }
            Self::Truncate { name, size } => {
                files.get_mut(name).expect("it exists").resize(*size as usize, 0);
            }
            Self::Rename { from, to } => {
                let content = files.remove(from).expect("it exists");
                files.insert(to.clone(), content);
            }
            Self::Unlink(name) => drop(files.remove(name).expect("it exists")),
        }
    }
}

impl Expected {
    /// Works on `directory` until the server is gone.
    fn work(mut self, directory: &Path, seed: u64) -> (Self, u64) {
        let mut random = Random(seed | 1);
        for count in 0.. {
            let operation = Operation::random(&mut random, &self.files);
            self.under_way = Some(operation.clone());
            if let Err(error) = operation.on_disk(directory) {
                let gone = [libc_errno::ENOTCONN, libc_errno::ECONNABORTED, libc_errno::EIO];
                assert!(gone.contains(&error.raw_os_error().unwrap_or_default()), "{operation:?}: {error}");
                return (self, count);
            }
            operation.in_memory(&mut self.files);
            self.under_way = None;
        }
        unreachable!("the loop ends when the server is killed");
    }

    /// Compares with what is there after recovery, and goes on from that.
    fn verify(&mut self, directory: &Path) {
        let found: BTreeMap<String, Vec<u8>> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        let before = &self.files;
        let Some(operation) = self.under_way.take() else {
            assert!(found == *before, "{}", difference(before, &found));
            return;
        };
        let mut after = before.clone();
        operation.in_memory(&mut after);
        let is_either = found == *before || found == after;
        let partly = match &operation {
            Operation::Write { name, .. } => is_partly_written(name, before, &after, &found),
            _ => false,
        };
        assert!(is_either || partly, "{operation:?} under way: {}", difference(before, &found));
        self.files = found;
    }
}

/// Whether a write of several pages was done for some of them.
fn is_partly_written(
    name: &str,
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
    found: &BTreeMap<String, Vec<u8>>,
) -> bool {
    let others_same =
        before.iter().all(|(other, content)| other == name || found.get(other) == Some(content));
    let (old, new) = (&before[name], &after[name]);
    let Some(content) = found.get(name).filter(|_| found.len() == before.len()) else { return false };
    let in_between = (old.len()..=new.len()).contains(&content.len());
    let byte = |bytes: &Vec<u8>, at: usize| bytes.get(at).copied().unwrap_or(0);
    others_same
        && in_between
        && (0..content.len()).all(|at| [byte(old, at), byte(new, at)].contains(&content[at]))
}

fn difference(expected: &BTreeMap<String, Vec<u8>>, found: &BTreeMap<String, Vec<u8>>) -> String {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let describe = |content: Option<&Vec<u8>>| {
        content.map_or("missing".into(), |bytes| format!("{} bytes", bytes.len()))
    };
    let lines = names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).map(|name| {
        let (old, new) = (expected.get(name), found.get(name));
        let first = old.zip(new).and_then(|(old, new)| old.iter().zip(new).position(|(a, b)| a != b));
        format!("{name}: expected {}, found {}, first difference at {first:?}", describe(old), describe(new))
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// The errors of a mount whose server is gone.
mod libc_errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ECONNABORTED: i32 = 103;
    pub(super) const ENOTCONN: i32 = 107;
}

fn writer_directory(mounted: &Mounted, writer: u64) -> PathBuf {
    mounted.path(&format!("w{writer}"))
}

/// Kills the server of a volume in `place` again and again, under load.
fn kill_again_and_again(place: &TempDir, domain: Option<&str>) {
    let rounds: u64 =
        std::env::var("LODEFS_KILL_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"));
    let (volume, directory) = (place.path().join("volume"), place.path().join("mnt"));
    let mut expected = vec![Expected::default(); WRITERS as usize];
    let mut random = Random(0x10de + rounds);
    let mut operations = 0;
    for round in 0..=rounds {
        let mut command = lodefs(["mount", "--create", "64M"]);
        if let Some(domain) = domain {
            command.env("LODEFS_FORCE_DOMAIN", domain);
        }
        succeed(command.arg(&volume).arg(&directory));
        let mounted = Mounted { directory: directory.clone() };
        for (writer, expected) in (0..).zip(&mut expected) {
            if round == 0 {
                fs::create_dir(writer_directory(&mounted, writer)).unwrap();
            }
            expected.verify(&writer_directory(&mounted, writer));
        }
        if round == rounds {
            mounted.unmount();
            break;
        }
        let server = mounted.server();
        let seeds: Vec<u64> = (0..WRITERS).map(|_| random.below(u64::MAX >> 1)).collect();
        let pause = Duration::from_millis(20 + random.below(300));
        expected = std::thread::scope(|scope| {
            let start = |(writer, (expected, seed)): (u64, (Expected, u64))| {
                let directory = writer_directory(&mounted, writer);
                scope.spawn(move || expected.work(&directory, seed))
            };
            let writers: Vec<_> = (0..).zip(expected.into_iter().zip(seeds)).map(start).collect();
            std::thread::sleep(pause);
            kill_process(server, Signal::KILL).expect("the server lives");
            wait_for_end(server);
            let ends = writers.into_iter().map(|writer| writer.join().expect("a writer"));
            ends.map(|(expected, count)| {
                operations += count;
                expected
            })
            .collect()
        });
        drop(mounted);
        succeed(lodefs(["fsck"]).arg(&volume));
    }
    let name = volume.display();
    eprintln!("{name} ({domain:?}): {rounds} kills, {operations} operations that had returned, nothing lost");
}

#[test]
fn on_a_file() {
    if can_mount() {
        kill_again_and_again(&tempfile::tempdir().unwrap(), None);
    }
}

#[test]
fn on_memory() {
    if can_mount() {
        kill_again_and_again(&tempfile::tempdir_in("/dev/shm").unwrap(), None);
    }
}

#[test]
fn on_persistent_memory() {
    if can_mount() {
        kill_again_and_again(&tempfile::tempdir_in("/dev/shm").unwrap(), Some("memory-controller"));
    }
}
