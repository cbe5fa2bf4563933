//! A process of the load: changes its part of the tree until the server is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::model::{COMMON, Model};
use crate::operation::Operation;
use lodefs_testkit::rng::Rng;

pub(crate) const WORKERS: u64 = 4;

/// Tells a process what to do.
const TASK: &str = "LODEFS_KILL_TASK";

/// What a process is to do.
pub(crate) struct Task {
    pub(crate) worker: u64,
    pub(crate) seed: u64,
    /// The mounted directory.
    pub(crate) directory: PathBuf,
    /// A file that gets one byte for each operation that has returned.
    pub(crate) log: PathBuf,
}

impl Task {
    /// Starts a process with this task.
    pub(crate) fn start(&self) -> Child {
        File::create(&self.log).unwrap();
        let paths = [self.directory.to_str(), self.log.to_str()].map(|path| path.expect("text"));
        Command::new(std::env::current_exe().expect("this test is a file"))
            .args(["work", "--exact", "--ignored", "--nocapture"])
            .env(TASK, format!("{} {} {}", self.worker, self.seed, paths.join(" ")))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test can be started")
    }

    fn of_this_process() -> Self {
        let text = std::env::var(TASK).expect("started by the test");
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse().expect("a number");
        Self {
            worker: number(words[0]),
            seed: number(words[1]),
            directory: words[2].into(),
            log: words[3].into(),
        }
    }

    /// A file that is there once the server may be gone: before that, nothing may fail.
    pub(crate) fn end_of_peace(&self) -> PathBuf {
        self.log.with_file_name("killed")
    }

    /// What chance has in store for it.
    pub(crate) fn random(&self) -> Rng {
        Rng::new(self.seed ^ (self.worker + 1) << 56)
    }

    /// `None` if the server is gone. Nothing else may fail.
    fn unless_gone<T>(&self, outcome: io::Result<T>, what: impl std::fmt::Debug) -> Option<T> {
        match outcome.map_err(|error| (Errno::from_io_error(&error), error)) {
            Ok(value) => Some(value),
            Err((Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::IO), _))
                if self.end_of_peace().exists() =>
            {
                None
            }
            Err((_, error)) => panic!("{what:?}: {error}"),
        }
    }

    /// How many operations had returned.
    pub(crate) fn returned(&self) -> usize {
        fs::metadata(&self.log).unwrap().len() as usize
    }
}

/// Makes the directories that the processes work in.
pub(crate) fn prepare(directory: &Path) {
    fs::create_dir(directory.join(COMMON)).unwrap();
    for worker in 0..WORKERS {
        fs::create_dir(directory.join(format!("w{worker}"))).unwrap();
    }
}

/// Works until the server is gone.
pub(crate) fn run() {
    let task = Task::of_this_process();
    // Modes are as asked for.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut log = OpenOptions::new().append(true).open(&task.log).unwrap();
    let mut random = task.random();
    let model = Model::read(&task.directory, task.worker);
    let Some(mut model) = task.unless_gone(model, "reading") else { return };
    loop {
        let operation = Operation::choose(&model, task.worker, &mut random);
        let done = operation.perform(&task.directory);
        if task.unless_gone(done, &operation).is_none() {
            return;
        }
        log.write_all(b".").unwrap();
        operation.apply(&mut model);
    }
}

/// Waits for the end of a process, which must have had no complaint.
pub(crate) fn end(worker: &mut Child) {
    let mut complaint = String::new();
    worker.stderr.take().expect("it is piped").read_to_string(&mut complaint).unwrap();
    let status = worker.wait().unwrap();
    // A mapped page cannot be had from a server that is gone.
    let is_fine = status.success() || status.signal() == Some(Signal::BUS.as_raw());
    assert!(is_fine && complaint.is_empty(), "{status}: {complaint}");
}
