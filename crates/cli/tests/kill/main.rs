//! kill -9 of the server under the mixed load of four processes: nothing that had returned is lost, and nothing is
//! damaged.
//!
//! Each process changes a part of the tree of its own, by operations that follow from a seed and from what is there. It
//! notes each one that has returned in a file elsewhere; so the test knows what must be found after the next mount.
//!
//! `LODEFS_KILL_ROUNDS` sets how often, for each kind of volume (default 3).

#[path = "../common/mod.rs"]
mod common;
mod mapped;
mod model;
mod operation;
mod worker;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use common::{Mounted, can_mount, lodefs, succeed, wait_for_end};
use lodefs_testkit::rng::Rng;
use model::Model;
use operation::Operation;
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use worker::{Task, WORKERS};

#[test]
#[ignore = "a process of its own"]
fn work() {
    worker::run();
}

/// A volume whose server is killed again and again.
struct Killing<'p> {
    place: &'p Path,
    domain: Option<&'p str>,
    random: Rng,
    /// What the parts of the processes hold.
    models: Vec<Model>,
    operations: usize,
}

impl Killing<'_> {
    fn mount(&self) -> Mounted {
        let directory = self.place.join("mnt");
        let mut command = lodefs(["mount", "--create", "64M"]);
        if let Some(domain) = self.domain {
            command.env("LODEFS_FORCE_DOMAIN", domain);
        }
        succeed(command.arg("--log").arg(self.server_log()).arg(self.place.join("volume")).arg(&directory));
        Mounted { directory }
    }

    /// Kills the server of `mounted` at some moment, and looks at what the next one finds.
    fn round(&mut self, mounted: Mounted) -> Mounted {
        let seed = self.random.next_u64();
        let server = mounted.server();
        let tasks: Vec<Task> = (0..WORKERS)
            .map(|worker| Task { worker, seed, directory: mounted.directory.clone(), log: self.log(worker) })
            .collect();
        let end_of_peace = tasks[0].end_of_peace();
        if end_of_peace.exists() {
            fs::remove_file(&end_of_peace).unwrap();
        }
        let mut workers: Vec<Child> = tasks.iter().map(Task::start).collect();
        std::thread::sleep(Duration::from_micros(self.random.below(200_000)));
        File::create(&end_of_peace).unwrap();
        kill_process(server, Signal::KILL).expect("the server lives");
        wait_for_end(server);
        for worker in &mut workers {
            worker::end(worker);
        }
        drop(mounted);
        succeed(lodefs(["fsck"]).arg(self.place.join("volume")));
        let mounted = self.mount();
        for task in &tasks {
            self.verify(task);
        }
        let told = fs::read_to_string(self.server_log()).unwrap();
        assert!(!told.contains("ERROR"), "the server complains: {told}");
        mounted
    }

    fn server_log(&self) -> PathBuf {
        self.place.join("server.log")
    }

    fn log(&self, worker: u64) -> PathBuf {
        self.place.join(format!("log{worker}"))
    }

    /// The part of a process is as after the last operation that had returned, or after the one that had not.
    fn verify(&mut self, task: &Task) {
        let model = &mut self.models[task.worker as usize];
        let mut random = task.random();
        let returned = task.returned();
        for _ in 0..returned {
            Operation::choose(model, task.worker, &mut random).apply(model);
        }
        let under_way = Operation::choose(model, task.worker, &mut random);
        let found = Model::read(&task.directory, task.worker).unwrap();
        if let Err(fault) = found.judge(model, &under_way) {
            panic!("{} after {returned} operations of {}: {fault}", task.seed, task.worker);
        }
        *model = found;
        self.operations += returned;
    }
}

/// Kills the server of a volume in `place` again and again, under load.
fn kill_again_and_again(place: &TempDir, domain: Option<&str>) {
    let rounds = std::env::var("LODEFS_KILL_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"));
    let mut killing = Killing {
        place: place.path(),
        domain,
        random: Rng::new(0x10de + rounds),
        models: vec![Model::default(); WORKERS as usize],
        operations: 0,
    };
    let mut mounted = killing.mount();
    worker::prepare(&mounted.directory);
    for _ in 0..rounds {
        mounted = killing.round(mounted);
    }
    mounted.unmount();
    assert!(killing.operations > 0, "nothing was done");
    let (name, operations) = (place.path().display(), killing.operations);
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
