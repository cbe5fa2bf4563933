//! Making a program's own stores durable, in a mapping of the medium that it has.

use std::env;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::domain::Domain;
use crate::flush::{self, STREAM_SIZE_MIN, WriteBack};

/// The environment variable of libpmem2 that says what makes a program's stores durable, whatever the medium is.
const GRANULARITY: &str = "PMEM2_FORCE_GRANULARITY";
/// That of libpmem that says that caches are flushed on a power failure, if it is `1`.
const NO_FLUSH: &str = "PMEM_NO_FLUSH";

/// The cheapest instructions that make stores durable in a domain.
///
/// In libpmem2's terms: `flush` is its flush, `drain` its drain, `persist` both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persist {
    way: Option<WriteBack>,
    fences: bool,
}

/// Why there are no such instructions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersistError {
    /// Only a system call makes stores durable.
    #[error("what is stored to a medium behind a page cache is made durable by msync or fsync only")]
    OnlyBySystemCall,
    /// The processor has no instruction, or all are ruled out.
    #[error(
        "this processor has no instruction that writes a cache line back to the medium, or PMEM_NO_CLWB and its relatives rule it out"
    )]
    NoInstruction,
    /// `PMEM2_FORCE_GRANULARITY` asks for what is not there.
    #[error(
        "PMEM2_FORCE_GRANULARITY: '{0}' is not possible here; it may be BYTE (fences only) or CACHE_LINE (write-back and fence)"
    )]
    Granularity(String),
}

impl Persist {
    /// For a domain.
    ///
    /// Where a fence makes stores durable, the environment variables of libpmem and libpmem2 are honoured: `PMEM2_FORCE_GRANULARITY` (`BYTE`
    /// or `CACHE_LINE`; `PAGE` is an error), `PMEM_NO_FLUSH=1` (as `BYTE`), `PMEM_NO_CLWB=1` and `PMEM_NO_CLFLUSHOPT=1`. Those that are about
    /// libpmem's own copying (`PMEM_NO_MOVNT` and others) mean nothing here.
    pub fn new(domain: Domain) -> Result<Self, PersistError> {
        Self::with_variables(domain, |name| env::var(name).ok())
    }

    /// For a domain, whatever the environment says: for stores whose order others rely on.
    pub fn of(domain: Domain) -> Result<Self, PersistError> {
        Self::with_variables(domain, |_| None)
    }

    fn with_variables(
        domain: Domain,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PersistError> {
        let is_set = |name: &str| variable(name).is_some_and(|value| value == "1");
        let flushes = match domain {
            Domain::Page => return Err(PersistError::OnlyBySystemCall),
            Domain::Volatile => return Ok(Self { way: None, fences: false }),
            Domain::CpuCache => false,
            Domain::MemoryController => !is_set(NO_FLUSH),
        };
        let flushes = match variable(GRANULARITY).filter(|value| !value.is_empty()) {
            None => flushes,
            Some(value) => match value.to_ascii_uppercase().as_str() {
                "BYTE" => false,
                "CACHE_LINE" | "CACHELINE" => true,
                _ => return Err(PersistError::Granularity(value)),
            },
        };
        if !flushes {
            return Ok(Self { way: None, fences: true });
        }
        let way = WriteBack::best_unless(is_set).ok_or(PersistError::NoInstruction)?;
        Ok(Self { way: Some(way), fences: true })
    }

    /// Starts the way of stored bytes to the medium. They have arrived after the next [`Self::drain`].
    ///
    /// # Safety
    /// The bytes are mapped, and stay mapped until this returns.
    pub unsafe fn flush(&self, start: *const u8, size: usize) {
        if let Some(way) = self.way {
            // SAFETY: the caller's promise; a `WriteBack` comes from `WriteBack::best_unless`, so the processor has it.
            unsafe { way.lines(start, size) }
        }
    }

    /// Waits until what was flushed is durable.
    pub fn drain(&self) {
        if self.fences {
            flush::fence();
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Stores bytes that are durable after the next [`Self::drain`], past the caches where that is the quickest.
    ///
    /// # Safety
    /// As many bytes as `bytes` has are mapped writable from `to` on, stay so until this returns, and are memory that Rust does not
    /// manage.
    pub unsafe fn store(&self, to: *mut u8, bytes: &[u8]) {
        if self.way.is_some() && bytes.len() >= STREAM_SIZE_MIN {
            // SAFETY: the caller's promise; the size was just checked, and the processor has a write-back instruction.
            return unsafe { flush::stream(to, bytes.as_ptr(), bytes.len()) };
        }
        // SAFETY: the caller's promise: `bytes` are Rust's, so they do not overlap.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // SAFETY: as above.
        unsafe { self.flush(to, bytes.len()) };
    }

    /// Makes stored bytes durable.
    ///
    /// # Safety
    /// As for [`Self::flush`].
    pub unsafe fn persist(&self, start: *const u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.flush(start, size) };
        self.drain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(domain: Domain, variables: &[(&str, &str)]) -> Result<Persist, PersistError> {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Persist::with_variables(domain, find)
    }

    #[test]
    fn each_domain_has_what_it_needs_and_no_more() {
        let fence = Persist { way: None, fences: true };
        assert_eq!(with(Domain::CpuCache, &[]), Ok(fence));
        assert_eq!(with(Domain::Volatile, &[]), Ok(Persist { way: None, fences: false }));
        assert_eq!(with(Domain::Page, &[]), Err(PersistError::OnlyBySystemCall));
        let flushing = WriteBack::best().map(|way| Persist { way: Some(way), fences: true });
        assert_eq!(with(Domain::MemoryController, &[]), flushing.ok_or(PersistError::NoInstruction));
    }

    #[test]
    fn what_libpmem_users_ask_for_is_honoured_or_refused() {
        let fence = Ok(Persist { way: None, fences: true });
        let flushing = with(Domain::MemoryController, &[]);
        assert_eq!(with(Domain::MemoryController, &[("PMEM_NO_FLUSH", "1")]), fence);
        assert_eq!(with(Domain::MemoryController, &[("PMEM_NO_FLUSH", "0")]), flushing);
        for byte in ["BYTE", "byte"] {
            assert_eq!(with(Domain::MemoryController, &[(GRANULARITY, byte)]), fence);
        }
        assert_eq!(with(Domain::CpuCache, &[(GRANULARITY, "CACHE_LINE")]), flushing);
        assert_eq!(with(Domain::MemoryController, &[(GRANULARITY, "")]), flushing);
        let refused = Err(PersistError::Granularity("PAGE".to_owned()));
        assert_eq!(with(Domain::MemoryController, &[(GRANULARITY, "PAGE")]), refused);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn instructions_can_be_ruled_out() {
        let ruled_out = |variables: &[(&str, &str)]| with(Domain::MemoryController, variables).unwrap().way;
        assert_ne!(ruled_out(&[("PMEM_NO_CLWB", "1")]), Some(WriteBack::Clwb));
        let both = [("PMEM_NO_CLWB", "1"), ("PMEM_NO_CLFLUSHOPT", "1")];
        assert_eq!(ruled_out(&both), Some(WriteBack::Clflush));
    }
}
