//! One round: start the program, kill it, open the volume again, and compare.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lodefs::{Domain, Volume};
use lodefs_core::fsck;
use lodefs_pmem::Medium;

use crate::CHILD;
use crate::model::{Model, Thing};
use crate::operation::Operation;
use crate::worker::{THREADS, Task, random_of};
use lodefs_testkit::rng::Rng;

/// Most operations that are acknowledged before the program is killed.
const OPERATIONS_MAX: u64 = 600;

type Result<T, E = String> = std::result::Result<T, E>;

/// A volume whose users are killed again and again.
pub(crate) struct Killing {
    path: PathBuf,
    domain: Domain,
    random: Rng,
    /// What the parts of the threads hold.
    models: Vec<Model>,
    /// Operations acknowledged so far.
    pub(crate) operations: u64,
    /// Opens that found something to recover.
    pub(crate) recoveries: u64,
}

impl Killing {
    pub(crate) fn new(path: PathBuf, domain: Domain, random: Rng) -> Self {
        let models = (0..THREADS).map(|_| Model::default()).collect();
        Self { path, domain, random, models, operations: 0, recoveries: 0 }
    }

    pub(crate) fn round(&mut self) -> Result<()> {
        let seed = self.random.next_u64();
        let acknowledged = self.run_and_kill(seed)?;
        self.operations += acknowledged.iter().sum::<u64>();
        self.check()?;
        if self.random.below(2) == 0 {
            // Recovered in memory only; the next open finds everything as it was.
            let volume = self.open(true)?;
            self.compare(&volume, seed, &acknowledged)?;
        }
        let volume = self.open(false)?;
        self.recoveries += u64::from(!volume.recovery().was_clean);
        self.models = self.compare(&volume, seed, &acknowledged)?;
        let space = volume.space();
        volume.close().map_err(|error| format!("closing: {error}"))?;
        let volume = self.open(false)?;
        if !volume.recovery().was_clean || volume.space() != space {
            return Err(format!("not clean after closing: {:?}, {space:?}", volume.recovery()));
        }
        drop(volume);
        self.check()
    }

    /// Everything on the volume must agree with everything else: as the program left it, or as closing did.
    fn check(&self) -> Result<()> {
        let options = lodefs_pmem::OpenOptions { force_domain: Some(self.domain), ..Default::default() };
        let medium = Medium::open(&self.path, &options).map_err(|error| error.to_string())?;
        let report = fsck::check(medium, &fsck::Options::default(), &mut |_| ());
        let report = report.map_err(|error| format!("checking: {error}"))?;
        if report.is_clean() { Ok(()) } else { Err(format!("fsck: {:?}", report.findings)) }
    }

    fn open(&self, read_only: bool) -> Result<Volume> {
        let options = Volume::options().force_domain(self.domain).read_only(read_only);
        options.open(&self.path).map_err(|error| format!("opening (read-only: {read_only}): {error}"))
    }

    /// How many operations of each thread were acknowledged before it was killed.
    fn run_and_kill(&mut self, seed: u64) -> Result<[u64; THREADS as usize]> {
        let task = Task { path: self.path.clone(), domain: self.domain, seed };
        let mut child = Command::new(std::env::current_exe().expect("this test is a file"))
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, task.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test can be started");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        // Sometimes while it opens the volume.
        let operations_max = [0, 1, 20, OPERATIONS_MAX][self.random.below(4) as usize];
        let kill_after = self.random.below(operations_max + 1);
        let delay = Duration::from_micros(self.random.below(if kill_after == 0 { 20_000 } else { 300 }));
        let mut acknowledged = [0; THREADS as usize];
        let mut total = 0;
        if kill_after == 0 {
            kill(&mut child, delay);
        }
        let mut complaint = Vec::new();
        for line in lines.map_while(std::io::Result::ok) {
            match line.parse::<usize>() {
                Ok(thread) => acknowledged[thread] += 1,
                Err(_) => complaint.push(line),
            }
            total += 1;
            if total == kill_after {
                kill(&mut child, delay);
            }
        }
        child.wait().expect("it was started");
        if complaint.is_empty() {
            Ok(acknowledged)
        } else {
            Err(format!("the program said: {}", complaint.join("\n")))
        }
    }

    /// Checks each thread's part, and returns what is there.
    fn compare(&self, volume: &Volume, seed: u64, acknowledged: &[u64]) -> Result<Vec<Model>> {
        let mut found = Vec::new();
        for (thread, (model, count)) in self.models.iter().zip(acknowledged).enumerate() {
            let thread = thread as u64;
            let mut random = random_of(seed, thread);
            let mut expected = model.clone();
            for _ in 0..*count {
                Operation::choose(&expected, thread, &mut random).apply(&mut expected);
            }
            let last = Operation::choose(&expected, thread, &mut random);
            let actual = Model::read(volume, thread).map_err(|error| format!("thread {thread}: {error}"))?;
            judge(&actual, &expected, &last)
                .map_err(|fault| format!("thread {thread} after {count} operations: {fault}"))?;
            found.push(actual);
        }
        Ok(found)
    }
}

fn kill(child: &mut Child, delay: Duration) {
    thread::sleep(delay);
    child.kill().expect("it can be killed");
}

/// The part must be as before the operation that was in progress, or as after it.
fn judge(actual: &Model, before: &Model, last: &Operation) -> Result<()> {
    let Some(difference) = actual.difference(before) else { return Ok(()) };
    let mut after = before.clone();
    last.apply(&mut after);
    if let Some(torn) = last.may_tear() {
        accept_torn(actual, before, &mut after, torn);
    }
    match actual.difference(&after) {
        None => Ok(()),
        Some(other) => Err(format!("{difference}; and if {last:?} was done: {other}")),
    }
}

/// Lets `after` have the content of file `name` that there is, if each byte of it is either the old or the new one.
fn accept_torn(actual: &Model, before: &Model, after: &mut Model, name: &str) {
    let content = |model: &Model| match model.thing(name) {
        Some(Thing::File { content, .. }) => content.clone(),
        _ => Vec::new(),
    };
    let (found, old, new) = (content(actual), content(before), content(after));
    let is_mixture = found.len() == new.len()
        && old.len() == new.len()
        && found.iter().enumerate().all(|(i, byte)| *byte == old[i] || *byte == new[i]);
    if is_mixture {
        *after.content(name) = found;
    }
}
