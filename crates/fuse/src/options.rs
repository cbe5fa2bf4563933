//! How a volume is to be mounted.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lodefs_broker::Broker;
use rustix::mount::MountFlags;

/// Threads that serve requests: enough that one that waits for the medium does not hold up the others.
const THREADS_MIN: usize = 4;
/// More threads than this only take each other's place in the processor's caches.
const THREADS_MAX: usize = 16;

/// Who may use a mount, beside the permissions of its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allow {
    /// The user who mounted it.
    #[default]
    Owner,
    /// That user and root.
    OwnerAndRoot,
    /// Everybody (`allow_other`).
    Everybody,
}

/// What the server tells about itself: called at each read of [`REPORT_ATTRIBUTE`](crate::REPORT_ATTRIBUTE).
#[derive(Clone)]
pub struct Report(pub Arc<dyn Fn() -> Vec<u8> + Send + Sync>);

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// How a volume is to be mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What `/proc/mounts` shows as the source.
    pub source: OsString,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Who may use it.
    pub allow: Allow,
    /// Let the kernel keep written data to itself for a while. Faster; what it keeps is lost with the process.
    pub writeback: bool,
    /// Threads that serve requests.
    pub threads: NonZeroUsize,
    /// What the server tells about itself.
    pub report: Option<Report>,
    /// Who lets programs attach; `None`: nobody may.
    pub broker: Option<Arc<Broker>>,
}

impl MountOptions {
    /// A mount for its owner, with the number of threads that suits the machine.
    pub fn new(source: impl Into<OsString>) -> Self {
        let processors = std::thread::available_parallelism().map_or(THREADS_MIN, NonZeroUsize::get);
        Self {
            source: source.into(),
            flags: MountFlags::empty(),
            allow: Allow::default(),
            writeback: false,
            threads: NonZeroUsize::new(processors.clamp(THREADS_MIN, THREADS_MAX))
                .unwrap_or(NonZeroUsize::MIN),
            report: None,
            broker: None,
        }
    }
}
