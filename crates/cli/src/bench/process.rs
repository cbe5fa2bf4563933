//! Other programs: what do they print, how long do they take, and who ends them?

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// The programs that run, each with all that it has started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<Vec<Pid>>>);

impl Running {
    /// Kills them. As long as what is returned is there, no others are started.
    pub(crate) fn kill_all(&self) -> MutexGuard<'_, Vec<Pid>> {
        let groups = self.groups();
        groups.iter().for_each(|group| kill(*group));
        groups
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(group: Pid) {
    // It may have come to its end by itself.
    let _ = kill_process_group(group, Signal::KILL);
}

/// A program that runs. Dropped, it is killed, with all that it has started.
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Of the child, and of all that it starts.
    group: Pid,
    /// Readable once the child has ended.
    end: OwnedFd,
    since: Instant,
    stdout: File,
    stderr: File,
    running: Running,
}

impl Process {
    /// Starts it; `name` is what it is called in messages.
    pub(crate) fn start(name: &str, command: &mut Command, running: &Running) -> anyhow::Result<Self> {
        // Files, because a pipe that nobody reads stops a program once it is full.
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let mut groups = running.groups();
        let since = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{name}: cannot be run"))?;
        let group = Pid::from_child(&child);
        match pidfd_open(group, PidfdFlags::empty()) {
            Ok(end) => {
                groups.push(group);
                let (name, running) = (name.to_owned(), running.clone());
                Ok(Self { name, child, group, end, since, stdout, stderr, running })
            }
            Err(errno) => {
                kill(group);
                // It is gone in any case.
                let _ = child.wait();
                Err(errno).with_context(|| format!("{name}: nobody would see its end"))
            }
        }
    }

    /// Whether it has ended within `limit` from now.
    pub(crate) fn has_ended_within(&self, limit: Duration) -> anyhow::Result<bool> {
        let timeout = Timespec::try_from(limit)?;
        let mut watched = [PollFd::new(&self.end, PollFlags::IN)];
        Ok(rustix::io::retry_on_intr(|| poll(&mut watched, Some(&timeout)))? > 0)
    }

    /// Waits until it ends, for at most `limit`; returns what it has printed, and the time from its start.
    pub(crate) fn finish(mut self, limit: Duration) -> anyhow::Result<(String, Duration)> {
        if !self.has_ended_within(limit)? {
            bail!("{}: has not come to its end within {} s, and was killed", self.name, limit.as_secs());
        }
        let took = self.since.elapsed();
        let status = self.end()?;
        if !status.success() {
            bail!(self.failure(&status.to_string())?);
        }
        Ok((read_all(&mut self.stdout)?, took))
    }

    /// That it has failed, with the last that it has said.
    pub(crate) fn failure(&mut self, what: &str) -> anyhow::Result<String> {
        let said = read_all(&mut self.stdout)? + &read_all(&mut self.stderr)?;
        let last = said.trim_end().lines().next_back().unwrap_or("it says nothing");
        Ok(format!("{}: {what}: {last}", self.name))
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        // As long as nobody has waited for it, its number is not another's.
        self.running.groups().retain(|group| *group != self.group);
        kill(self.group);
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running.groups().contains(&self.group) {
            // What cannot be waited for goes with this process.
            let _ = self.end();
        }
    }
}

/// What a program has printed, whatever its bytes are.
fn read_all(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell(script: &str, running: &Running) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script]), running).unwrap()
    }

    #[test]
    fn what_a_program_prints_is_returned_and_its_failure_is_told() {
        let running = Running::default();
        assert_eq!(shell("echo one; echo two", &running).finish(LIMIT).unwrap().0, "one\ntwo\n");
        let error = shell("echo first; echo last >&2; exit 3", &running).finish(LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: last");
        let error = shell("sleep 1000", &running).finish(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("has not come to its end within 0 s"), "{error}");
        assert!(running.groups().is_empty());
    }

    #[test]
    fn what_a_program_has_started_ends_with_it() {
        let running = Running::default();
        let (held, holder) = io::pipe().unwrap();
        let script = "while :; do sleep 1; done <&0 & wait";
        let mut command = Command::new("sh");
        let process = Process::start("sh", command.args(["-c", script]).stdin(holder), &running).unwrap();
        drop(command);
        drop(running.kill_all());
        assert!(process.has_ended_within(LIMIT).unwrap());
        // Nobody holds the other end any more.
        let mut watched = [PollFd::new(&held, PollFlags::IN)];
        assert_eq!(poll(&mut watched, Some(&LIMIT.try_into().unwrap())).unwrap(), 1);
        assert!(watched[0].revents().contains(PollFlags::HUP));
    }
}
