//! Storing fresh bytes: which part is streamed past the caches, and the log of it.
//!
//! Each primitive here does one thing to the shared mapping and logs exactly that, so a recording shows what the
//! code did and not what it should have done.

use std::panic::Location;
use std::sync::atomic::{Ordering, compiler_fence};

use lodefs_sync::point;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::domain::{Domain, MediumKind};
use crate::error::MediumError;
use crate::evidence::Flushed;
use crate::flush::{self, STREAM_SIZE_MIN, WriteBack};
use crate::mapping::Refused;
use crate::medium::{Medium, Protocol};
use crate::recording::{Held, What};
use crate::span::SpanMut;
use crate::word::Word;

/// From this size on, a file behind a page cache is zeroed by its file system.
pub(crate) const HOST_ZEROES_FROM: u64 = 1 << 20;

/// What is to be stored.
#[derive(Clone, Copy)]
pub(crate) enum Content<'c> {
    Bytes(&'c [u8]),
    /// This many zeroes.
    Zeroes(usize),
}

impl Content<'_> {
    #[inline]
    fn size(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeroes(size) => size,
        }
    }

    fn to_vec(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Zeroes(size) => vec![0; size],
        }
    }
}

/// Content and the place in the shared mapping where it goes, of the same size.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'p> {
    pub(crate) at: u64,
    pub(crate) span: SpanMut<'p>,
    pub(crate) content: Content<'p>,
}

impl Medium {
    /// Stores fresh bytes and starts their way to the medium.
    #[inline]
    #[track_caller]
    pub(crate) fn store(&self, at: u64, content: Content<'_>) -> Result<Flushed, MediumError> {
        point();
        let size = content.size();
        let piece = match self.shared.span_mut(at, size) {
            Ok(span) => Piece { at, span, content },
            Err(refused) => return Err(self.refused(refused, at, size as u64)),
        };
        match self.protocol {
            Protocol::WriteBack(way) => {
                // Streaming wins even for eight bytes: it need not fetch the line.
                if size >= STREAM_SIZE_MIN {
                    self.store_streamed(piece);
                } else {
                    self.store_cached(piece);
                    self.flush(at, piece.span, way);
                }
            }
            Protocol::Fence => self.store_cached(piece),
            Protocol::None => {
                self.check_not_hidden(at, size as u64)?;
                self.store_cached(piece);
            }
        }
        Ok(Flushed::new())
    }

    /// Refuses to write where changed metadata would hide the bytes.
    #[inline]
    fn check_not_hidden(&self, at: u64, size: u64) -> Result<(), MediumError> {
        match &self.overlay {
            Some(overlay) if overlay.hides(at, size) => {
                Err(MediumError::UnderMetadata { name: self.name(), at, size })
            }
            _ => Ok(()),
        }
    }

    /// Stores through the caches.
    #[inline]
    pub(crate) fn store_cached(&self, piece: Piece<'_>) {
        let _held = self.log(|| store_event(piece, false));
        match piece.content {
            Content::Bytes(bytes) => piece.span.copy_in(bytes),
            Content::Zeroes(_) => piece.span.zero(),
        }
    }

    /// Stores past the caches.
    #[inline]
    fn store_streamed(&self, piece: Piece<'_>) {
        let _held = self.log(|| store_event(piece, true));
        match piece.content {
            Content::Bytes(bytes) => piece.span.stream_in(bytes),
            Content::Zeroes(_) => piece.span.stream_zeroes(),
        }
    }

    /// Starts the write-back of the lines of a span.
    #[inline]
    #[track_caller]
    pub(crate) fn flush(&self, at: u64, span: SpanMut<'_>, way: WriteBack) {
        let location = Location::caller();
        let _held = self.log(|| What::Flush { at, size: span.size() as u64, location });
        span.write_back(way);
    }

    /// Starts the write-back of lines that others have stored to, in mappings of their own.
    #[inline]
    #[track_caller]
    pub fn write_back(&self, at: u64, size: u64) -> Result<Flushed, MediumError> {
        let span =
            self.shared.span_mut(at, size as usize).map_err(|refused| self.refused(refused, at, size))?;
        if let Protocol::WriteBack(way) = self.protocol {
            self.flush(at, span, way);
        }
        Ok(Flushed::new())
    }

    /// The word at `at`, which other processes change, as a whole.
    #[inline]
    pub fn word(&self, at: u64) -> Result<u64, MediumError> {
        let span = match self.shared.span(at, Word::SIZE) {
            Ok(span) if at.is_multiple_of(Word::SIZE as u64) => span,
            Ok(_) => return Err(self.refused(Refused::OutOfRange, at, Word::SIZE as u64)),
            Err(refused) => return Err(self.refused(refused, at, Word::SIZE as u64)),
        };
        self.log_read(at, Word::SIZE);
        point();
        let word = span.word();
        self.check_kept(at, Word::SIZE as u64).map(|()| word)
    }

    /// Sets bits of the word at `at`, which other processes change as well, and gives what was there. Not flushed: whoever reads it after
    /// a crash must do with or without these bits.
    #[inline]
    pub fn mark_word(&self, at: u64, bits: u64) -> Result<u64, MediumError> {
        point();
        let span = match self.shared.span_mut(at, Word::SIZE) {
            Ok(span) if at.is_multiple_of(Word::SIZE as u64) => span,
            Ok(_) => return Err(self.refused(Refused::OutOfRange, at, Word::SIZE as u64)),
            Err(refused) => return Err(self.refused(refused, at, Word::SIZE as u64)),
        };
        let word = span.word();
        self.log_read(at, Word::SIZE);
        let _held = self.log(|| What::Store {
            at,
            bytes: (word.get() | bits).to_ne_bytes().to_vec(),
            non_temporal: false,
        });
        let before = word.set_bits(bits);
        self.check_kept(at, Word::SIZE as u64).map(|()| before)
    }

    /// Orders this thread's stores and write-backs before what follows.
    #[inline]
    #[track_caller]
    pub(crate) fn fence_stores(&self) {
        match self.protocol {
            Protocol::WriteBack(_) | Protocol::Fence => {
                let location = Location::caller();
                let _held = self.log(|| What::Fence { location });
                flush::fence();
            }
            Protocol::None => compiler_fence(Ordering::SeqCst),
        }
    }

    /// Lets the host's file system zero a range; false if it cannot, and nothing was changed.
    #[cold]
    pub(crate) fn zero_by_host(&self, at: u64, size: u64) -> Result<bool, MediumError> {
        let is_cached_file = self.report.kind == MediumKind::File && self.report.domain == Domain::Page;
        if !is_cached_file {
            return Ok(false);
        }
        if self.read_only {
            return Err(self.refused(Refused::ReadOnly, at, size));
        }
        if at.checked_add(size).is_none_or(|end| end > self.size()) {
            return Err(self.refused(Refused::OutOfRange, at, size));
        }
        self.check_not_hidden(at, size)?;
        match fallocate(&*self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, size) {
            // It works behind the end of a file that was cut, too.
            Ok(()) => self.check_still_whole().map(|()| true),
            // Storing zeroes would meet the same lack of room as a SIGBUS.
            Err(Errno::NOSPC | Errno::DQUOT) => {
                Err(self.io_error("find room for it on the host", Errno::NOSPC.into()))
            }
            Err(_) => Ok(false),
        }
    }

    /// Logs what is done while the result lives, if this medium is recorded.
    #[inline]
    pub(crate) fn log(&self, what: impl FnOnce() -> What) -> Option<Held<'_>> {
        self.recording.as_ref().map(|recording| recording.log(what()))
    }

    /// Logs that bytes are read, if this medium is recorded with its reads.
    #[inline]
    pub(crate) fn log_read(&self, at: u64, size: usize) {
        if let Some(recording) = &self.recording {
            recording.log_read(at, size as u64);
        }
    }
}

fn store_event(piece: Piece<'_>, non_temporal: bool) -> What {
    What::Store { at: piece.at, bytes: piece.content.to_vec(), non_temporal }
}
