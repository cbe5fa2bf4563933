//! Where messages go that have no reader at a terminal.

use std::fs::OpenOptions;
use std::io;
use std::panic;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use syslog_tracing::{Facility, Options, Syslog};
use tracing_subscriber::EnvFilter;

/// Environment variable with a filter in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER_VARIABLE: &str = "LODEFS_LOG";

/// What is said if nothing else is asked for. The FUSE library complains whenever it answers the interruption of a
/// request that has been answered already, which is as it must be.
const LEVELS: &str = "info,fuser::reply=off";

/// Sends messages to standard error.
pub(crate) fn to_terminal() {
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr).with_ansi(ansi).init();
}

/// Sends messages, panics among them, to `file`, or to the system's log.
pub(crate) fn to_background(file: Option<&Path>) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false);
    match file {
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("{}: cannot write messages there", path.display()))?;
            builder.with_writer(Mutex::new(file)).init();
        }
        None => {
            // There is one such writer in a process, and this is it.
            if let Some(syslog) = Syslog::new(c"lodefs", Options::LOG_PID, Facility::Daemon) {
                // The system's log adds time and level itself.
                builder.without_time().with_level(false).with_writer(syslog).init();
            }
        }
    }
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

fn filter() -> EnvFilter {
    let levels = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| LEVELS.to_owned());
    EnvFilter::builder().parse_lossy(levels)
}
