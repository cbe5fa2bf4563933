//! Limits of resources: what a server needs is taken, or the mount is refused before there is one.

use std::fs;

use anyhow::{Context, bail};
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::size::format_size;

/// Bytes that a server needs beside its volume: threads with their stacks, buffers and arenas, and what files in use take. A server that
/// cannot allocate ends at once, and leaves a mount that does not answer.
const NEED: u64 = 512 << 20;

/// Takes as much as may be taken without asking: each attached program needs three descriptors, and the usual soft limits are for
/// programs that wait with select(2).
pub(crate) fn raise() {
    for resource in [Resource::Nofile, Resource::As, Resource::Data] {
        let limit = getrlimit(resource);
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(resource, Rlimit { current: limit.maximum, ..limit })
        {
            tracing::debug!(?resource, %error, "a limit stays as it is");
        }
    }
}

/// Refuses to go on where memory would end soon. The volume must be mapped already.
pub(crate) fn check() -> anyhow::Result<()> {
    let sizes = fs::read_to_string("/proc/self/statm").context("/proc/self/statm")?;
    let pages = |field| sizes.split_whitespace().nth(field).and_then(|pages| pages.parse::<u64>().ok());
    // All that is mapped, and of that what is private and writable.
    for (resource, field, option) in [(Resource::As, 0, 'v'), (Resource::Data, 5, 'd')] {
        let Some(limit) = getrlimit(resource).current else { continue };
        let used = pages(field).context("/proc/self/statm: not understood")? * page_size() as u64;
        if limit.saturating_sub(used) < NEED {
            bail!(
                "the limit of memory (ulimit -{option}) is too low for a server: {}, of which {} are used; raise it to at least {}",
                format_size(limit),
                format_size(used),
                format_size(used + NEED)
            );
        }
    }
    Ok(())
}
