//! The program that is killed: some threads, each with a part of the volume.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lodefs::{Domain, Volume};

use crate::model::{COMMON, Model};
use crate::operation::Operation;
use lodefs_testkit::rng::Rng;

pub(crate) const THREADS: u64 = 3;

/// What the program is to do.
pub(crate) struct Task {
    pub(crate) path: PathBuf,
    pub(crate) domain: Domain,
    pub(crate) seed: u64,
}

impl FromStr for Task {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().expect("three words");
        let (seed, domain) = (word().parse().expect("a number"), word().parse().expect("a domain"));
        Ok(Self { path: word().into(), domain, seed })
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.seed, self.domain, self.path.display())
    }
}

/// What chance has in store for a thread.
pub(crate) fn random_of(seed: u64, thread: u64) -> Rng {
    Rng::new(seed ^ (thread + 1) << 56)
}

/// Makes the directories that the threads work in.
pub(crate) fn prepare(volume: &Volume) {
    volume.create_dir(COMMON).unwrap();
    for thread in 0..THREADS {
        volume.create_dir(format!("t{thread}")).unwrap();
    }
}

/// Works until it is killed.
pub(crate) fn run(task: &Task) {
    let options = Volume::options().force_domain(task.domain).commit_interval(Some(Duration::from_millis(3)));
    let volume = options.open(&task.path).unwrap();
    let models: Vec<Model> = (0..THREADS).map(|thread| Model::read(&volume, thread).unwrap()).collect();
    std::thread::scope(|scope| {
        for (thread, model) in models.into_iter().enumerate() {
            let volume = &volume;
            scope.spawn(move || work(volume, task.seed, thread as u64, model));
        }
    });
}

fn work(volume: &Volume, seed: u64, thread: u64, mut model: Model) {
    let mut random = random_of(seed, thread);
    let mut held = Vec::new();
    loop {
        let operation = Operation::choose(&model, thread, &mut random);
        if let Err(error) = operation.perform(volume, &mut held) {
            panic!("thread {thread}: {operation:?}: {error}");
        }
        acknowledge(thread);
        operation.apply(&mut model);
    }
}

/// Tells that one more operation of this thread has returned. A write of one line to a pipe is not torn.
fn acknowledge(thread: u64) {
    let line = format!("{thread}\n");
    if rustix::io::write(rustix::stdio::stderr(), line.as_bytes()) != Ok(line.len()) {
        // The test is gone.
        std::process::exit(1);
    }
}
