//! Which threads of this process are the library's own?
//!
//! For whoever acts for a program that ends with its last thread: the C library counts these too.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::Builder;

use rustix::process::getpid;

/// With which their names begin, which the kernel cuts after 15 bytes.
const PREFIX: &str = "lodefs:";

/// A thread of the library's own that is to be started.
pub fn own_thread(name: &str) -> Builder {
    Builder::new().name(format!("{PREFIX}{name}"))
}

/// Whether this process's first thread has ended, and all others that are not the library's own.
///
/// # Errors
/// As for reading `/proc`.
pub fn has_only_own_threads() -> io::Result<bool> {
    let first = getpid().to_string();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if *task.file_name() == *first {
            if !has_ended(&task.path())? {
                return Ok(false);
            }
            continue;
        }
        match fs::read(task.path().join("comm")) {
            Ok(name) if !name.starts_with(PREFIX.as_bytes()) => return Ok(false),
            // It may just have ended.
            _ => {}
        }
    }
    Ok(true)
}

/// The first thread of a process stays as a zombie until the last one has ended.
fn has_ended(task: &Path) -> io::Result<bool> {
    let stat = fs::read(task.join("stat"))?;
    // Behind the name, which may have any bytes in it.
    let behind = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    Ok(stat[behind..].get(2) == Some(&b'Z'))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_process_whose_first_thread_lives_has_others_than_ours() {
        let (end, ends) = mpsc::channel::<()>();
        let own = own_thread("test").spawn(move || ends.recv()).unwrap();
        assert!(!has_only_own_threads().unwrap());
        assert!(!has_ended(Path::new("/proc/thread-self")).unwrap());
        drop(end);
        assert!(own.join().unwrap().is_err());
    }
}
