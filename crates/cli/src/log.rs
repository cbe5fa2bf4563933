//! Where messages go that have no reader at a terminal.
//!
//! No message reaches a terminal, a file or the system's log with control characters: names are chosen by others.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context;
use syslog_tracing::{Facility, Options, Syslog};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::text::{Plain, shown};

/// Environment variable with a filter in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER_VARIABLE: &str = "LODEFS_LOG";

/// What is said if nothing else is asked for. The FUSE library complains whenever it answers the interruption of a
/// request that has been answered already, which is as it must be.
const LEVELS: &str = "info,fuser::reply=off";

/// Where the C library finds the system's log.
const SYSTEM_LOG: &str = "/dev/log";

/// The file that messages go to, if there is one.
static FILE: OnceLock<LogFile> = OnceLock::new();

/// A file for messages, which can be opened again after somebody has moved it away.
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        // The server leaves the directory in which it was started.
        let path = std::path::absolute(path).with_context(|| shown(path).to_string())?;
        let file = Mutex::new(opened(&path)?);
        Ok(Self { path, file })
    }

    /// Opens the file of this name, which is another one if the old one has been moved away. If that fails, messages go on
    /// into the old one.
    fn reopen(&self) -> anyhow::Result<()> {
        let file = opened(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn opened(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("{}: cannot write messages there", shown(path)))
}

impl Write for &LogFile {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes writers that let no control characters through.
struct Plainly<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Plainly<M> {
    type Writer = Plain<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Plain(self.0.make_writer())
    }

    fn make_writer_for(&'a self, about: &tracing::Metadata<'_>) -> Self::Writer {
        Plain(self.0.make_writer_for(about))
    }
}

/// Sends messages to standard error.
pub(crate) fn to_terminal() {
    let writer = Plainly(io::stderr);
    tracing_subscriber::fmt().with_env_filter(filter()).with_writer(writer).with_ansi(false).init();
}

/// Says on standard error if there is neither a file nor a system's log for messages.
pub(crate) fn warn_if_lost() {
    if FILE.get().is_none() && !takes_messages(Path::new(SYSTEM_LOG)) {
        crate::complain(&anyhow::anyhow!(
            "{SYSTEM_LOG}: no system log takes messages there, and the server's messages are lost; name a file with --log"
        ));
    }
}

/// Sends messages, panics among them, to `file`, or to the system's log.
pub(crate) fn to_background(file: Option<&Path>) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false);
    if let Some(path) = file {
        let file = LogFile::open(path)?;
        let file = FILE.get_or_init(|| file);
        builder.with_writer(Plainly(move || file)).init();
    } else {
        // There is one such writer in a process, and this is it.
        if let Some(syslog) = Syslog::new(c"lodefs", Options::LOG_PID, Facility::Daemon) {
            // The system's log adds time and level itself.
            builder.without_time().with_level(false).with_writer(Plainly(syslog)).init();
        }
    }
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

/// Opens the file for messages again, if there is one.
pub(crate) fn reopen() -> anyhow::Result<()> {
    FILE.get().map_or(Ok(()), LogFile::reopen)
}

/// Whether a system log waits at this socket. (Its messages are packets, or with some logs a stream.)
fn takes_messages(socket: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|probe| probe.connect(socket).is_ok())
        || UnixStream::connect(socket).is_ok()
}

fn filter() -> EnvFilter {
    let levels = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| LEVELS.to_owned());
    EnvFilter::builder().parse_lossy(levels)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let (path, old) = (scratch.path().join("log"), scratch.path().join("log.1"));
        let log = LogFile::open(&path).unwrap();
        (&log).write_all(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        (&log).write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        (&log).write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        // Where no file can be opened, the old one stays.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        (&log).write_all(b"four\n").unwrap();
    }

    #[test]
    fn a_log_is_there_if_somebody_listens() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        let packets = UnixDatagram::bind(path("packets")).unwrap();
        let stream = UnixListener::bind(path("stream")).unwrap();
        assert!(takes_messages(&path("packets")) && takes_messages(&path("stream")));
        assert!(!takes_messages(&path("none")));
        // What is left of a log that has ended.
        drop((packets, stream));
        assert!(!takes_messages(&path("packets")) && !takes_messages(&path("stream")));
    }
}
