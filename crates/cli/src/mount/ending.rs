//! What ends a server: that it is unmounted, or a signal.
//!
//! SIGTERM and SIGINT unmount. If files are open, the mount leaves the tree of names at once and its users have
//! [`GRACE`] to finish; then the volume is closed and they are cut off. A second signal cuts them off at once. In every
//! case the volume is left clean.
//!
//! SIGHUP opens the file for messages again, as daemons do after a rotation. Only a server in the foreground of a terminal ends by
//! SIGHUP: that terminal is gone. Signals of other purposes, whose default is to end a process, do nothing ([`outlive_signals`]).

use std::io::{self, IsTerminal as _};
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use lodefs_core::Fs;
use lodefs_fuse::{MountError, Unmounter};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPIPE, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::log;
use crate::text::shown;

/// How long whoever has files open may go on after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Catches the signals that a server does something about.
pub(crate) fn signals() -> anyhow::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be received")
}

/// Has signals do nothing that are sent by mistake (SIGUSR1 to a daemon that knows it), by timers that nobody has set here, or for
/// a write beyond the limit of files' sizes, which fails with EFBIG then. A server that ends leaves a mount that does not answer.
pub(crate) fn outlive_signals() -> anyhow::Result<()> {
    let noticed = Arc::new(AtomicBool::new(false));
    for signal in [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGXFSZ] {
        flag::register(signal, Arc::clone(&noticed)).context("signals cannot be received")?;
    }
    Ok(())
}

/// Ends a server.
pub(crate) struct Ending {
    unmounter: Unmounter,
    fs: Arc<Fs>,
}

impl Ending {
    /// From now on signals end the server, and those that have come since they were caught.
    pub(crate) fn on(signals: Signals, unmounter: Unmounter, fs: Arc<Fs>) -> anyhow::Result<()> {
        // A terminal that is gone is none any more.
        let on_terminal = io::stdin().is_terminal();
        let ending = Arc::new(Self { unmounter, fs });
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || ending.watch(signals, on_terminal))
            .context("no thread for signals")?;
        Ok(())
    }

    fn watch(self: &Arc<Self>, mut signals: Signals, on_terminal: bool) {
        let mut is_ending = false;
        for signal in signals.forever() {
            if signal == SIGHUP && !on_terminal {
                match log::reopen() {
                    Ok(()) => {
                        tracing::info!("asked to reload: the log was opened again, nothing else changes");
                    }
                    Err(error) => tracing::error!("{error:#}"),
                }
                continue;
            }
            tracing::info!(signal, "asked to end");
            if is_ending || !self.unmount() {
                self.cut_off();
            }
            is_ending = true;
            let ending = Arc::clone(self);
            // If everybody leaves in time, the process has ended before this thread wakes up.
            let grace = thread::Builder::new().name("grace".into()).spawn(move || {
                thread::sleep(GRACE);
                ending.cut_off();
            });
            if grace.is_err() {
                self.cut_off();
            }
        }
    }

    /// Takes the mount out of the tree of names; whether that succeeded.
    fn unmount(&self) -> bool {
        let unmounted = match self.unmounter.unmount(false) {
            Err(MountError::Busy(_)) => {
                tracing::warn!(target = %shown(&self.unmounter.target()), "in use; users have {GRACE:?} to finish");
                self.unmounter.unmount(true)
            }
            unmounted => unmounted,
        };
        unmounted.inspect_err(|error| tracing::error!("{error}")).is_ok()
    }

    /// Closes the volume under whoever still uses it, and ends the process, which ends the connection.
    fn cut_off(&self) -> ! {
        self.unmounter.abandon();
        match self.fs.close() {
            Ok(()) => {
                tracing::warn!("closed, although still in use");
                process::exit(0)
            }
            Err(error) => {
                tracing::error!("not closed cleanly: {error}");
                process::exit(1)
            }
        }
    }
}
