//! Is a program gone, or has it at least nothing mapped any more?
//!
//! That it has closed its connection says little: it may be executing another program (then all mappings are gone), or lie.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How often one that has closed its connection is looked after: at first, and in the end.
const PERIOD_MIN: Duration = Duration::from_millis(1);
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// One process.
pub(crate) struct Presence {
    pid: Pid,
    handle: OwnedFd,
    /// The inode number of the medium, as `/proc/PID/maps` shows it.
    medium: u64,
}

impl Presence {
    pub(crate) fn of(pid: Pid, medium: u64) -> io::Result<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, handle, medium })
    }

    /// Becomes readable when it has ended.
    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Returns when it has ended, or has nothing of the medium mapped.
    pub(crate) fn wait_until_gone(&self) {
        let mut period = PERIOD_MIN;
        while !self.has_ended(&timespec(period)) && self.has_mapped() {
            period = (period * 2).min(PERIOD_MAX);
        }
    }

    fn has_ended(&self, patience: &Timespec) -> bool {
        let mut polled = [PollFd::new(&self.handle, PollFlags::IN)];
        // A process that cannot be waited for counts as one that is there.
        poll(&mut polled, Some(patience)).is_ok_and(|ready| ready > 0)
    }

    /// Whether it is about to end, or to execute another program: of its threads there is one left at most, which closes descriptors.
    /// (The library has threads of its own. What this asks the kernel never waits, as what is mapped would: for a program that is
    /// just executing another one.)
    pub(crate) fn is_ending(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()));
        status.is_ok_and(|status| has_one_at_most(&status))
    }

    /// Whether it has something of the medium mapped, as far as can be seen: one that cannot be looked into does.
    fn has_mapped(&self) -> bool {
        // A thread that has ended shows none, and the first one may have ended before the others.
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero()));
        let Ok(threads) = threads else { return true };
        // What was read is about this process only if it is still there; otherwise it does not matter.
        threads.into_iter().any(|thread| thread.map_or(true, |thread| self.names_medium(&thread.path())))
    }

    /// Whether a thread has something of the medium mapped, as far as can be seen.
    fn names_medium(&self, thread: &Path) -> bool {
        match fs::read_to_string(thread.join("maps")) {
            Ok(maps) => names_inode(&maps, self.medium),
            // One that has just ended has nothing, or what another one shows that was there when the list was read.
            Err(error) => !is_gone(&error),
        }
    }
}

/// Whether there is one thread at most, as `/proc/PID/status` shows it. A first one that has ended is counted there until all have.
fn has_one_at_most(status: &str) -> bool {
    let value = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let ended = value("State:").is_some_and(|state| state.starts_with('Z'));
    let threads = value("Threads:").and_then(|threads| threads.parse::<u32>().ok());
    threads.is_some_and(|threads| threads <= 1 + u32::from(ended))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// How long a moment is, to those who are waited for.
pub(crate) const fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos() as _ }
}

/// Whether a list like `/proc/PID/maps` has a mapping of a file with this inode number. (Of other file systems, too: they are not told
/// apart reliably, and waiting too long does no harm.)
fn names_inode(maps: &str, inode: u64) -> bool {
    maps.lines()
        .any(|line| line.split_ascii_whitespace().nth(4).and_then(|field| field.parse().ok()) == Some(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_found_by_inode() {
        let maps = "7f0000000000-7f0000200000 rw-s 00100000 00:01 4711    /dev/shm/lode vol\n\
                    7f0000200000-7f0000201000 rw-p 00000000 00:00 0 \n";
        assert!(names_inode(maps, 4711));
        assert!(!names_inode(maps, 471) && !names_inode(maps, 47111) && !names_inode("", 0));
    }

    #[test]
    fn threads_are_counted() {
        let status = |state, threads| format!("Name:\tx\nState:\t{state}\nThreads:\t{threads}\nSigQ:\t1/2\n");
        assert!(has_one_at_most(&status("R (running)", 1)) && has_one_at_most(&status("Z (zombie)", 2)));
        assert!(!has_one_at_most(&status("S (sleeping)", 2)) && !has_one_at_most(&status("Z (zombie)", 3)));
        assert!(!has_one_at_most(&status("R (running)", 11)) && !has_one_at_most(""));
        // That of this test, and that which waits for it.
        assert!(!Presence::of(rustix::process::getpid(), 1).unwrap().is_ending());
    }

    #[test]
    fn a_process_is_there_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let presence = Presence::of(Pid::from_child(&child), 1).unwrap();
        assert!(!presence.has_ended(&Timespec::default()));
        child.kill().unwrap();
        assert!(presence.has_ended(&timespec(Duration::from_secs(10))));
        child.wait().unwrap();
        presence.wait_until_gone();
    }
}
