//! How does this process reach the bytes of the medium, to read and write files by itself?

use std::os::fd::AsFd;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use lodefs_pmem::{Domain, Persist, Word, open_unlocked};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mremap_fixed, munmap,
};

/// Addresses of the whole medium. They can be read as long as this is there: without a [`View`], as zeroes. Children have nothing
/// of it.
pub(crate) struct Span {
    base: NonNull<u8>,
    size: usize,
    pid: u32,
}

// SAFETY: the memory is the process's, not a thread's, and is accessed through raw pointers only, as memory that others may
// change at any time anyway.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

/// The whole medium in memory. Children have nothing of it.
pub(crate) struct View {
    span: Arc<Span>,
    writable: bool,
    persist: Persist,
}

impl Span {
    /// Where these bytes of the medium are; `None` if it does not have them.
    fn at(&self, at: u64, size: usize) -> Option<NonNull<u8>> {
        let at = usize::try_from(at).ok()?;
        at.checked_add(size).filter(|end| *end <= self.size)?;
        // SAFETY: it lies within the mapping, or at its end.
        Some(unsafe { self.base.add(at) })
    }

    /// Copies bytes out; `None` if the medium does not have them.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        let from = self.at(at, into.len())?;
        // SAFETY: so many bytes are mapped there, and `into`, which is no mapping of a medium, does not overlap them. Others may change
        // them meanwhile: what is copied then is a mixture of bytes, any of which are valid.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from.as_ptr(), into.len()) };
        Some(())
    }

    /// Puts zeroes in place of the medium.
    fn leave(&self) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), self.size, ProtFlags::empty(), flags)? };
        let zeroes = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        // SAFETY: they are new; these addresses are this span's own, and stay readable; what is read there from now on is thrown away.
        let moved = unsafe {
            open_unlocked(zeroes, self.size, ProtFlags::READ).and_then(|()| {
                mremap_fixed(base, self.size, self.size, MremapFlags::MAYMOVE, self.base.as_ptr().cast())
            })
        };
        if let Err(errno) = moved {
            // SAFETY: they have not been moved, and nobody knows of them.
            unsafe { munmap(base, self.size)? };
            return Err(errno);
        }
        self.keep_from_children()
    }

    fn keep_from_children(&self) -> Result<(), Errno> {
        // SAFETY: it changes no contents, and these addresses are this span's own.
        unsafe { madvise(self.base.as_ptr().cast(), self.size, Advice::LinuxDontFork) }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.pid == process::id() {
            // SAFETY: nobody can reach it by this value any more.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

impl View {
    /// Maps a medium of this domain. `host_sync`: so that the host keeps its own metadata durable.
    pub(crate) fn new(
        medium: impl AsFd,
        writable: bool,
        host_sync: bool,
        domain: Domain,
    ) -> Result<Self, Errno> {
        let persist = Persist::of(domain).map_err(|_| Errno::OPNOTSUPP)?;
        let size = usize::try_from(seek(&medium, SeekFrom::End(0))?).map_err(|_| Errno::NOMEM)?;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = if host_sync { MapFlags::SHARED_VALIDATE | MapFlags::SYNC } else { MapFlags::SHARED };
        let flags = flags | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let base = unsafe { mmap(ptr::null_mut(), size, ProtFlags::empty(), flags, medium, 0)? };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let span = Span { base, size, pid: process::id() };
        // SAFETY: it is new, and nobody accesses it yet.
        unsafe { open_unlocked(base, size, protection)? };
        span.keep_from_children()?;
        Ok(Self { span: Arc::new(span), writable, persist })
    }

    /// Its addresses, which stay when it is gone.
    pub(crate) fn span(&self) -> &Arc<Span> {
        &self.span
    }

    /// Copies bytes in, durable after the next [`Self::drain`]; `None` if the medium does not have them, or cannot be written.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Option<()> {
        let to = self.span.at(at, bytes.len()).filter(|_| self.writable)?;
        // SAFETY: so many bytes are mapped writable there, for as long as this is borrowed, and are no Rust value's.
        unsafe { self.persist.store(to.as_ptr(), bytes) };
        Some(())
    }

    /// What a word of the medium says; `None` if it does not have it.
    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        Some(u64::from_le(self.word_at(at)?.get()))
    }

    /// Makes a word `new`, durably, if it is `old`; whether it was.
    pub(crate) fn replace_word(&self, at: u64, old: u64, new: u64) -> bool {
        let Some(word) = self.word_at(at).filter(|_| self.writable) else { return false };
        let is_replaced = word.replace(old.to_le(), new.to_le());
        if let Some(start) = self.span.at(at, Word::SIZE) {
            // SAFETY: so many bytes are mapped there, for as long as this is borrowed.
            unsafe { self.persist.flush(start.as_ptr(), Word::SIZE) };
        }
        self.drain();
        is_replaced
    }

    fn word_at(&self, at: u64) -> Option<Word<'_>> {
        let start = self.span.at(at, Word::SIZE).filter(|_| at.is_multiple_of(Word::SIZE as u64))?;
        // SAFETY: it is mapped for as long as this is borrowed, writable if it is to be changed, at a multiple of eight because the
        // mapping begins with a page, and no Rust value's. The server changes it as a whole too.
        Some(unsafe { Word::at(start) })
    }

    /// Waits until what was written is durable, as far as the medium can.
    pub(crate) fn drain(&self) {
        self.persist.drain();
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Whoever reads past a lock may be at it. If the kernel has no memory for that, the medium stays until he is gone too.
        if self.span.pid == process::id() && Arc::strong_count(&self.span) > 1 {
            let _ = self.span.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::write;

    use super::*;

    #[test]
    fn who_reads_past_a_lock_finds_zeroes_when_the_medium_is_gone() {
        let medium = memfd_create("medium", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&medium, 2 << 20).unwrap();
        write(&medium, b"content").unwrap();
        let view = View::new(&medium, false, false, Domain::MemoryController).unwrap();
        let span = Arc::clone(view.span());
        let mut read = [1; 7];
        span.read(0, &mut read).unwrap();
        assert_eq!(&read, b"content");
        drop(view);
        span.read(0, &mut read).unwrap();
        assert_eq!(read, [0; 7]);
        assert_eq!(span.read((2 << 20) - 6, &mut read), None);
        assert_eq!(span.read(u64::MAX, &mut read), None);
    }
}
