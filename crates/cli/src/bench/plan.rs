//! What can be measured, and what is to be reached.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Row {
    /// Overwrite 4 KiB somewhere in a file
    #[value(name = "overwrite-4k")]
    Overwrite,
    /// Append 4 KiB to a file
    #[value(name = "append-4k")]
    Append,
    /// Read a file from its start, 4 KiB at a time
    #[value(name = "read-4k-seq")]
    ReadSequential,
    /// Read 4 KiB somewhere in a file
    #[value(name = "read-4k-rand")]
    ReadRandom,
    /// Make a file, and close it
    Create,
    /// Open a file, and close it
    Open,
    /// Rename a file
    Rename,
    /// Delete a file
    Unlink,
    /// Make a directory
    Mkdir,
    /// Open a volume with many files that was closed
    ReopenClean,
    /// Open a volume with many files that was not closed, for each file
    ReopenCrash,
    /// Store 8 bytes somewhere in a file that has all its blocks, and is mapped
    #[value(name = "store-mapped")]
    StoreMapped,
    /// Store to the pages of a hole that is mapped, one after the other
    #[value(name = "touch-hole-4k")]
    TouchHole,
    /// Store to a file that has all its blocks, and has just been mapped, once in each 2 MiB
    #[value(name = "touch-2m")]
    TouchHuge,
    /// Punch a page that a program has mapped and stored to
    #[value(name = "recall-4k")]
    Recall,
    /// Overwrite 4 KiB, in two threads on separate files
    #[value(name = "threads-2")]
    TwoThreads,
}

/// How the file system is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Way {
    /// The engine in this process
    Embedded,
    /// The library in a program that is attached to a mount
    Attached,
    /// System calls on a mount
    Mount,
}

/// What counts as reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// The ratio is at most this.
    AtMost(f64),
    /// The same for the median and for the 99th percentile.
    AtMostInTail(f64),
    /// The yardstick is slower.
    Faster,
    /// The ratio is at most 1.0, rounded to this digit.
    AsFast,
    /// The ratio is at least this.
    AtLeast(f64),
}

impl Row {
    /// Whether it is about files in memory.
    pub(crate) fn is_mapped(self) -> bool {
        matches!(self, Self::StoreMapped | Self::TouchHole | Self::TouchHuge | Self::Recall)
    }

    /// Whether it is measured this way. Those that are not about requests are measured embedded only, those of files in memory attached
    /// only, and whatever an attached program asks the kernel for, on the mount.
    pub(crate) fn has(self, way: Way) -> bool {
        match way {
            Way::Embedded => !self.is_mapped(),
            Way::Attached => {
                let is_data = matches!(self, Self::Append | Self::ReadSequential | Self::ReadRandom);
                self.is_mapped() || is_data || self == Self::Overwrite
            }
            Way::Mount => {
                !self.is_mapped() && !matches!(self, Self::ReopenClean | Self::ReopenCrash | Self::TwoThreads)
            }
        }
    }

    /// What is to be reached this way, if anything is.
    pub(crate) fn bar(self, way: Way) -> Option<Bar> {
        Some(match (way, self) {
            (_, Self::TouchHuge | Self::Recall) => return None,
            (_, Self::StoreMapped) => Bar::AsFast,
            (_, Self::TouchHole) => Bar::Faster,
            (Way::Embedded | Way::Attached, Self::Overwrite) => Bar::AtMost(1.3),
            (Way::Embedded | Way::Attached, Self::Append) => Bar::AtMostInTail(1.2),
            (Way::Embedded, Self::ReadSequential | Self::ReadRandom) | (Way::Attached, _) => Bar::AtMost(1.2),
            (Way::Embedded, Self::Create | Self::Open | Self::Rename | Self::Unlink | Self::Mkdir) => {
                Bar::Faster
            }
            // Reopening: a hundred times the files; what grows with them would show as a ratio of up to 100.
            (Way::Mount, _) | (Way::Embedded, Self::ReopenClean) => Bar::AtMost(1.25),
            (Way::Embedded, Self::ReopenCrash) => Bar::AtMost(1.0),
            (Way::Embedded, Self::TwoThreads) => Bar::AtLeast(0.9),
        })
    }
}

impl Bar {
    /// Whether a ratio reaches it; `tail` is the ratio of the 99th percentiles.
    pub(crate) fn is_met(self, ratio: f64, tail: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtMostInTail(most) => ratio <= most && tail <= most,
            Self::Faster => ratio < 1.0,
            Self::AsFast => ratio < 1.05,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtMostInTail(most) => write!(f, "<= {most}, p99 too"),
            Self::Faster => f.write_str("< 1"),
            Self::AsFast => f.write_str("1.0, rounded"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// The name on the command line and in reports.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&name_of(self))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&name_of(self))
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// Rounds before those: caches, page tables and processor clocks get into their steady state.
    pub(crate) rounds_ahead: usize,
    /// Bytes in the file that is overwritten and read; a power of two, more than processors cache.
    pub(crate) file_size: u64,
    /// Bytes in each volume.
    pub(crate) volume_size: u64,
    /// Files on the smaller volume that is opened.
    pub(crate) files_few: usize,
    /// Files on the larger one.
    pub(crate) files_many: usize,
}

impl Effort {
    /// For figures to be relied on.
    pub(crate) const FULL: Self = Self {
        rounds: 601,
        rounds_ahead: 20,
        file_size: 64 << 20,
        volume_size: 512 << 20,
        files_few: 1000,
        files_many: 100_000,
    };
    /// For a first look.
    pub(crate) const QUICK: Self = Self {
        rounds: 41,
        rounds_ahead: 4,
        file_size: 16 << 20,
        volume_size: 128 << 20,
        files_few: 200,
        files_many: 20_000,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_report() {
        let names: Vec<String> = Row::value_variants().iter().map(ToString::to_string).collect();
        let expected = [
            "overwrite-4k",
            "append-4k",
            "read-4k-seq",
            "read-4k-rand",
            "create",
            "open",
            "rename",
            "unlink",
            "mkdir",
            "reopen-clean",
            "reopen-crash",
            "store-mapped",
            "touch-hole-4k",
            "touch-2m",
            "recall-4k",
            "threads-2",
        ];
        assert_eq!(names, expected);
        assert_eq!(serde_json::to_string(&Row::Append).unwrap(), r#""append-4k""#);
    }

    #[test]
    fn bars_are_judged_by_what_they_say() {
        assert!(Bar::AtMost(1.2).is_met(1.2, 9.0) && !Bar::AtMost(1.2).is_met(1.21, 0.0));
        assert!(Bar::AtMostInTail(1.2).is_met(1.2, 1.2) && !Bar::AtMostInTail(1.2).is_met(1.0, 1.3));
        assert!(Bar::Faster.is_met(0.99, 2.0) && !Bar::Faster.is_met(1.0, 0.0));
        assert!(Bar::AsFast.is_met(1.049, 9.0) && !Bar::AsFast.is_met(1.05, 0.0));
        assert!(Bar::AtLeast(0.9).is_met(0.9, 0.0) && !Bar::AtLeast(0.9).is_met(0.89, 0.0));
    }
}
