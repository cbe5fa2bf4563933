//! The processor's part: streaming stores, cache-line write-back, fences.
//!
//! Each architecture has a module with the same few functions. A processor that cannot write cache lines back
//! towards the medium offers no [`WriteBack`], and then no domain that needs one is ever claimed.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use portable as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub(crate) use arch::{WriteBack, fence, stream, stream_zeroes};

/// Fewest bytes that can be streamed; fewer go through the caches.
pub(crate) const STREAM_SIZE_MIN: usize = 8;

impl WriteBack {
    /// The fastest way that this processor has, if it has one.
    pub(crate) fn best() -> Option<Self> {
        Self::best_unless(|_| false)
    }

    /// The fastest way that this processor has and that no environment variable rules out which `is_set`.
    pub(crate) fn best_unless(is_set: impl Fn(&'static str) -> bool) -> Option<Self> {
        let may_be = |way: &Self| way.is_supported() && !way.ruled_out_by().is_some_and(&is_set);
        Self::ALL.iter().copied().find(may_be)
    }
}

#[cfg(test)]
mod tests;
