//! What ends a server: that it is unmounted, or a signal.
//!
//! SIGTERM, SIGINT and SIGHUP unmount. If files are open, the mount leaves the tree of names at once and its users have
//! [`GRACE`] to finish; then the volume is closed and they are cut off. A second signal cuts them off at once. In every
//! case the volume is left clean.

use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use lodefs_core::Fs;
use lodefs_fuse::{MountError, Unmounter};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long whoever has files open may go on after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Ends a server.
pub(crate) struct Ending {
    unmounter: Unmounter,
    fs: Arc<Fs>,
}

impl Ending {
    /// From now on signals end the server.
    pub(crate) fn on_signals(unmounter: Unmounter, fs: Arc<Fs>) -> anyhow::Result<()> {
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be received")?;
        let ending = Arc::new(Self { unmounter, fs });
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || ending.watch(signals))
            .context("no thread for signals")?;
        Ok(())
    }

    fn watch(self: &Arc<Self>, mut signals: Signals) {
        let mut is_ending = false;
        for signal in signals.forever() {
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
                tracing::warn!(target = %self.unmounter.target().display(), "in use; users have {GRACE:?} to finish");
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
