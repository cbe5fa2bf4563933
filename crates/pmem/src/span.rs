//! Checked ranges of a mapping, and the ways to move bytes through them.
//!
//! A span is made by [`Mapping`](crate::mapping::Mapping) only, after the check of its bounds and of what may be
//! done to it; so everything here is safe to call. Other processes may change the bytes at any time: they are
//! copied from and to raw pointers, and no reference to them is made. A copy that races with a change holds some
//! mixture of old and new bytes, as with read(2); whoever needs more holds a lock.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::flush::{self, STREAM_SIZE_MIN, WriteBack};
use crate::word::Word;

/// Bytes of a mapping that may be read.
#[derive(Clone, Copy)]
pub(crate) struct Span<'m> {
    start: *const u8,
    size: usize,
    _mapping: PhantomData<&'m ()>,
}

impl Span<'_> {
    /// # Safety
    /// `start..start + size` stays mapped and readable for `'m`.
    #[inline]
    pub(crate) unsafe fn new(start: *const u8, size: usize) -> Self {
        Self { start, size, _mapping: PhantomData }
    }

    /// The number in the span, which has eight bytes, at a multiple of eight.
    #[inline]
    pub(crate) fn word(self) -> u64 {
        assert!(self.size == Word::SIZE && self.start.addr().is_multiple_of(Word::SIZE), "no word");
        // SAFETY: `new` was promised that the bytes are mapped. It is only read.
        unsafe { Word::at(NonNull::new_unchecked(self.start.cast_mut())).get() }
    }

    /// Copies the whole span out; `into` has its size.
    #[inline]
    pub(crate) fn copy_out(self, into: &mut [u8]) {
        assert_eq!(self.size, into.len(), "a span is copied as a whole");
        // SAFETY: `new` was promised `size` readable bytes; `into` has as many and, being a unique reference to memory
        // that Rust manages, does not overlap a mapping.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(self.start, self.size) }
    }
}

/// Bytes of a mapping that may be read and written.
#[derive(Clone, Copy)]
pub(crate) struct SpanMut<'m> {
    start: *mut u8,
    size: usize,
    _mapping: PhantomData<&'m ()>,
}

impl<'m> SpanMut<'m> {
    /// # Safety
    /// `start..start + size` stays mapped, readable and writable for `'m`, and is memory that Rust does not manage.
    #[inline]
    pub(crate) unsafe fn new(start: *mut u8, size: usize) -> Self {
        Self { start, size, _mapping: PhantomData }
    }

    /// Bytes in the span.
    pub(crate) fn size(self) -> usize {
        self.size
    }

    /// The span as a word: it has eight bytes, at a multiple of eight.
    #[inline]
    pub(crate) fn word(self) -> Word<'m> {
        assert!(self.size == Word::SIZE && self.start.addr().is_multiple_of(Word::SIZE), "no word");
        // SAFETY: `new` was promised that the bytes are mapped writable, and none of Rust's.
        unsafe { Word::at(NonNull::new_unchecked(self.start)) }
    }

    /// Stores `bytes`, which have the span's size, through the caches.
    #[inline]
    pub(crate) fn copy_in(self, bytes: &[u8]) {
        assert_eq!(self.size, bytes.len(), "a span is stored as a whole");
        // SAFETY: `new` was promised `size` writable bytes outside of Rust's memory; `bytes` has as many in it, so they
        // do not overlap.
        unsafe { self.start.copy_from_nonoverlapping(bytes.as_ptr(), self.size) }
    }

    /// Stores zeroes through the caches.
    #[inline]
    pub(crate) fn zero(self) {
        // SAFETY: `new` was promised `size` writable bytes.
        unsafe { self.start.write_bytes(0, self.size) }
    }

    /// Stores `bytes`, which have the span's size, past the caches: at least [`STREAM_SIZE_MIN`].
    #[inline]
    pub(crate) fn stream_in(self, bytes: &[u8]) {
        assert_eq!(self.size, bytes.len(), "a span is stored as a whole");
        assert!(self.size >= STREAM_SIZE_MIN, "too little to stream");
        // SAFETY: as in `copy_in`; the size was just checked. On processors whose streaming stores need a write-
        // back instruction it is there: without one no domain that streams is ever chosen.
        unsafe { flush::stream(self.start, bytes.as_ptr(), self.size) }
    }

    /// Stores zeroes past the caches: at least [`STREAM_SIZE_MIN`].
    #[inline]
    pub(crate) fn stream_zeroes(self) {
        assert!(self.size >= STREAM_SIZE_MIN, "too little to stream");
        // SAFETY: as in `stream_in`.
        unsafe { flush::stream_zeroes(self.start, self.size) }
    }

    /// Starts the write-back of every cache line that the span touches.
    #[inline]
    pub(crate) fn write_back(self, way: WriteBack) {
        // SAFETY: a `WriteBack` comes from `WriteBack::best`, so the processor has it; `new` was promised that the
        // bytes are mapped.
        unsafe { way.lines(self.start, self.size) }
    }
}
