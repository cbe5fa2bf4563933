//! Who holds a volume or a mount, as far as /proc tells.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use crate::text::shown;

/// A process with its name, as messages name it: `bash (pid 12)`.
fn process(pid: &str) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", shown(name.trim_end_matches('\n'))),
        Err(_) => format!("process {pid}"),
    }
}

/// The process that has locked the volume at `path`.
pub(crate) fn of_volume(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let device = metadata.dev();
    let id = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| lock_holder(line, &id)).map(process)
}

/// `NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`
fn lock_holder<'a>(line: &'a str, id: &str) -> Option<&'a str> {
    let mut fields = line.split_whitespace().skip(1).filter(|field| *field != "->");
    let kind = fields.next()?;
    let pid = fields.nth(2)?;
    (kind == "FLOCK" && fields.next() == Some(id)).then_some(pid)
}

/// Processes that have their working directory, root, program or an open file below `target`.
///
/// Only links are read, so a server that does not answer is not waited for.
pub(crate) fn of_mount(target: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    // Whoever asks will have ended.
    let own = std::process::id().to_string();
    processes
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| uses(&entry.path(), target))
        .map(|entry| process(&entry.file_name().to_string_lossy()))
        .collect()
}

fn uses(process: &Path, target: &Path) -> bool {
    let points_there = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(target));
    ["cwd", "root", "exe"].iter().any(|link| points_there(&process.join(link)))
        || fs::read_dir(process.join("fd"))
            .is_ok_and(|links| links.flatten().any(|link| points_there(&link.path())))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn lines_of_the_lock_table_are_read() {
        let id = "08:01:131";
        assert_eq!(lock_holder("1: FLOCK  ADVISORY  WRITE 77 08:01:131 0 EOF", id), Some("77"));
        assert_eq!(lock_holder("1: FLOCK  ADVISORY  WRITE 77 08:01:132 0 EOF", id), None);
        assert_eq!(lock_holder("1: POSIX  ADVISORY  WRITE 77 08:01:131 0 EOF", id), None);
        assert_eq!(lock_holder("", id), None);
    }

    #[test]
    fn this_process_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(of_volume(&path), None);
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let me = format!("(pid {})", std::process::id());
        // Some file systems show the lock table another device than stat(2) does: then nobody is named.
        if let Some(holder) = of_volume(&path) {
            assert!(holder.ends_with(&me), "{holder}");
        }
        // Who asks is not among them.
        let directory = scratch.path().canonicalize().unwrap();
        let mut other = Command::new("sleep").arg("60").current_dir(&directory).spawn().unwrap();
        assert_eq!(of_mount(&directory), [format!("sleep (pid {})", other.id())]);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
