//! Durability domains: what it takes before a store survives a power failure.

use std::fmt;
use std::str::FromStr;

/// What it takes before a store survives a power failure.
///
/// The first three correspond to libpmem2's granularities byte, cache line and page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The processor's caches are saved at power failure (eADR): a fence is enough.
    CpuCache,
    /// What has left the caches is saved (ADR): write back the cache line, then fence.
    MemoryController,
    /// A mapped file or block device with a page cache: msync, in units of pages.
    Page,
    /// Nothing helps: the bytes outlive the process, not the power.
    Volatile,
}

impl Domain {
    /// All domains, strongest first.
    pub const ALL: [Self; 4] = [Self::CpuCache, Self::MemoryController, Self::Page, Self::Volatile];

    /// Whether stores become durable at a fence, with no system call.
    pub fn is_durable_on_fence(self) -> bool {
        matches!(self, Self::CpuCache | Self::MemoryController)
    }

    /// The name used on the command line, in the environment and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuCache => "cpu-cache",
            Self::MemoryController => "memory-controller",
            Self::Page => "page",
            Self::Volatile => "volatile",
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Domain {
    type Err = UnknownDomain;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|domain| domain.name() == name)
            .ok_or_else(|| UnknownDomain(name.to_owned()))
    }
}

/// A name that is no [`Domain`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a durability domain; the domains are cpu-cache, memory-controller, page and volatile")]
pub struct UnknownDomain(
    /// The name as it was given.
    pub String,
);

/// What a volume lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediumKind {
    /// A character device that is nothing but memory (`/dev/dax0.0`).
    DeviceDax,
    /// A file on a file system that maps persistent memory directly (ext4 or XFS with `-o dax`).
    FsDax,
    /// A file behind a page cache.
    File,
    /// A block device behind a page cache.
    BlockDevice,
    /// A file on tmpfs or ramfs.
    Tmpfs,
    /// A file on hugetlbfs.
    Hugetlbfs,
    /// A memory file that another program made and handed over.
    Memfd,
    /// Memory of this process alone, for tests.
    Anonymous,
}

impl MediumKind {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceDax => "device-dax",
            Self::FsDax => "fs-dax",
            Self::File => "file",
            Self::BlockDevice => "block-device",
            Self::Tmpfs => "tmpfs",
            Self::Hugetlbfs => "hugetlbfs",
            Self::Memfd => "memfd",
            Self::Anonymous => "anonymous",
        }
    }

    /// Whether the kernel can keep private copies of single pages of it, as the overlay needs.
    pub(crate) fn can_be_overlaid(self) -> bool {
        !matches!(self, Self::DeviceDax | Self::Hugetlbfs)
    }
}

impl fmt::Display for MediumKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a medium is, what that means for durability, and how this is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainReport {
    /// The domain that the medium is treated as.
    pub domain: Domain,
    /// The domain that probing found.
    pub detected: Domain,
    /// Whether `domain` was demanded rather than detected.
    pub forced: bool,
    /// What the volume lies on.
    pub kind: MediumKind,
    /// Why `detected` is what it is: one sentence for a person.
    pub reason: String,
}

impl fmt::Display for DomainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forced {
            write!(f, "{} (forced; detected {}: {})", self.domain, self.detected, self.reason)
        } else {
            write!(f, "{} ({})", self.domain, self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for domain in Domain::ALL {
            assert_eq!(domain.to_string().parse(), Ok(domain));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_valid_ones() {
        let message = "adr".parse::<Domain>().unwrap_err().to_string();
        for domain in Domain::ALL {
            assert!(message.contains(domain.name()), "{message}");
        }
    }

    #[test]
    fn only_the_first_two_need_no_system_call() {
        let durable = Domain::ALL.map(Domain::is_durable_on_fence);
        assert_eq!(durable, [true, true, false, false]);
    }

    #[test]
    fn a_forced_report_says_so() {
        let mut report = DomainReport {
            domain: Domain::Page,
            detected: Domain::Volatile,
            forced: true,
            kind: MediumKind::Tmpfs,
            reason: "lost".into(),
        };
        assert_eq!(report.to_string(), "page (forced; detected volatile: lost)");
        report.forced = false;
        assert_eq!(report.to_string(), "page (lost)");
    }
}
