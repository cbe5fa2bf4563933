//! What `lodefs run` tells the library that it preloads, and is told by it.

/// The environment variable with the directories on which volumes are mounted, one on each line.
pub const MOUNTS_VARIABLE: &str = "LODEFS_RUN_MOUNTS";

/// The environment variable with the name of the file that the library counts in, if somebody wants to know: a number of 8 bytes, in the
/// byte order of the machine, for each [`Counter`], to which all processes add.
pub const STATS_VARIABLE: &str = "LODEFS_RUN_STATS";

/// The environment variable with the name of the durability domain that media are to be treated as, if that was asked for.
pub const DOMAIN_VARIABLE: &str = "LODEFS_RUN_DOMAIN";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Processes that began with the library.
    Processes,
    /// Descriptors of files on volumes that were opened in a way that the library sees.
    Files,
    /// Reads without the kernel.
    Reads,
    /// Writes without the kernel.
    Writes,
    /// Calls of fsync(2) and fdatasync(2) that had nothing to do.
    Syncs,
    /// Reads and writes by the kernel: the first ones of a descriptor, for which it is not worth while to attach.
    LeftAtFirst,
    /// The same, because other processes may share the offset.
    LeftShared,
    /// The same, because the file is not direct, or the process may not attach.
    LeftForGood,
    /// The same, because there is more to do than to copy bytes, or somebody else uses the file.
    LeftForNow,
    /// Calls by a signal handler that has interrupted the library.
    Interrupting,
    /// Shared mappings of files on volumes by the library.
    Mapped,
    /// Shared mappings of files on volumes by the kernel, which are of its cache.
    MappedByKernel,
    /// Shared mappings of files on volumes that were refused.
    MappedByNobody,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = Self::MappedByNobody as usize + 1;

    /// Where it is in the file.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
