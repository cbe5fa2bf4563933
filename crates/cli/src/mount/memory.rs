//! Lack of memory: whom the kernel ends first.

use std::fs;

/// The last before the only value that excludes a process altogether (-1000). With that, a container whose memory is used
/// up by the server alone would have nobody to end, and stand still.
const LAST: &str = "-999";

/// Asks the kernel to end others before this process: who has files in the mount cannot work without it, and what it
/// takes is little. An ordinary user may not ask for that; nothing is lost if the server is ended.
pub(crate) fn ask_to_be_spared() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", LAST) {
        tracing::debug!(%error, "where memory is short, this process may be ended like any other");
    }
}
