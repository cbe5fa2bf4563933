//! What names cost: the same operations in one directory of a volume on tmpfs, durable on return as on persistent memory,
//! and on tmpfs itself, where nothing is durable.
//!
//! `cargo bench -p lodefs --bench metadata [-- DIRECTORY_ON_TMPFS [COUNT]]`. Medians of several interleaved rounds.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use lodefs::{Domain, File, Volume};

const ROUNDS: usize = 7;

/// One of the ways to do the same.
trait Way {
    fn create(&self, name: &str);
    fn open(&self, name: &str);
    fn stat(&self, name: &str);
    fn rename(&self, from: &str, to: &str);
    fn unlink(&self, name: &str);
    fn mkdir(&self, name: &str);
    fn rmdir(&self, name: &str);
}

struct Embedded(Volume);

impl Way for Embedded {
    fn create(&self, name: &str) {
        black_box(File::create(&self.0, name).unwrap());
    }
    fn open(&self, name: &str) {
        black_box(File::open(&self.0, name).unwrap());
    }
    fn stat(&self, name: &str) {
        black_box(self.0.metadata(name).unwrap());
    }
    fn rename(&self, from: &str, to: &str) {
        self.0.rename(from, to).unwrap();
    }
    fn unlink(&self, name: &str) {
        self.0.remove_file(name).unwrap();
    }
    fn mkdir(&self, name: &str) {
        self.0.create_dir(name).unwrap();
    }
    fn rmdir(&self, name: &str) {
        self.0.remove_dir(name).unwrap();
    }
}

/// Relative to the working directory, so that the host walks a path of one name as well.
struct Host;

impl Way for Host {
    fn create(&self, name: &str) {
        black_box(fs::File::create(name).unwrap());
    }
    fn open(&self, name: &str) {
        black_box(fs::File::open(name).unwrap());
    }
    fn stat(&self, name: &str) {
        black_box(fs::metadata(name).unwrap());
    }
    fn rename(&self, from: &str, to: &str) {
        fs::rename(from, to).unwrap();
    }
    fn unlink(&self, name: &str) {
        fs::remove_file(name).unwrap();
    }
    fn mkdir(&self, name: &str) {
        fs::create_dir(name).unwrap();
    }
    fn rmdir(&self, name: &str) {
        fs::remove_dir(name).unwrap();
    }
}

const ROWS: [&str; 7] = ["create", "open", "stat", "rename", "unlink", "mkdir", "rmdir"];

/// Nanoseconds for one operation of each row.
fn round(way: &dyn Way, names: &[String], renamed: &[String]) -> [f64; ROWS.len()] {
    let time = |operation: &dyn Fn(usize)| {
        let start = Instant::now();
        (0..names.len()).for_each(operation);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(names.len() as u32)
    };
    [
        time(&|i| way.create(&names[i])),
        time(&|i| way.open(&names[i])),
        time(&|i| way.stat(&names[i])),
        time(&|i| way.rename(&names[i], &renamed[i])),
        time(&|i| way.unlink(&renamed[i])),
        time(&|i| way.mkdir(&names[i])),
        time(&|i| way.rmdir(&names[i])),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let tmpfs = arguments.first().map_or("/dev/shm", String::as_str);
    let count: usize = arguments.get(1).map_or(20_000, |count| count.parse().expect("a number of files"));
    let scratch = tempfile::tempdir_in(tmpfs).expect("a directory on tmpfs");
    let volume = open_volume(&scratch.path().join("vol"));
    println!("{} operations each on {}", count, volume.domain());
    let in_tmpfs = scratch.path().join("files");
    fs::create_dir(&in_tmpfs).unwrap();
    std::env::set_current_dir(&in_tmpfs).unwrap();

    let names: Vec<String> = (0..count).map(|i| format!("file-{i:07}")).collect();
    let renamed: Vec<String> = (0..count).map(|i| format!("renamed-{i:07}")).collect();
    let embedded = Embedded(volume);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(round(&embedded, &names, &renamed));
        theirs.push(round(&Host, &names, &renamed));
    }
    println!("{:8} {:>10} {:>10} {:>7}", "", "embedded", "tmpfs", "ratio");
    for (row, name) in ROWS.iter().enumerate() {
        let of = |rounds: &[[f64; ROWS.len()]]| median(rounds.iter().map(|round| round[row]).collect());
        let (ours, theirs) = (of(&ours), of(&theirs));
        println!("{name:8} {ours:7.0} ns {theirs:7.0} ns {:7.2}", ours / theirs);
    }
    std::env::set_current_dir("/").unwrap();
}

fn open_volume(path: &Path) -> Volume {
    Volume::options()
        .size(512 << 20)
        .force_domain(Domain::MemoryController)
        .create(path)
        .expect("a volume on tmpfs")
}
