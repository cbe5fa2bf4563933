//! How does a range of a region become something else?
//!
//! Each change is made to the addresses and to what they are said to be, while the region is locked. Ranges are positions in the
//! region, in whole pages.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use crate::memory;
use crate::request::What;
use crate::runs::{Runs, State};
use crate::service::Service;

/// A locked region that is being changed.
pub(crate) struct Change<'a> {
    pub(crate) service: &'a Service,
    /// Its first address. The addresses that are not gone are the region's alone.
    pub(crate) base: usize,
    pub(crate) writable: bool,
    pub(crate) runs: &'a mut Runs,
}

/// Ranges that are armed anew are not worth a step of their own if so many bytes or fewer are between them.
const NEAR: usize = 64 << 20;

type Pieces = Vec<(Range<usize>, State)>;

impl Change<'_> {
    fn addresses(&self, range: &Range<usize>) -> Range<usize> {
        self.base + range.start..self.base + range.end
    }

    /// Maps what is asked for where it is not there yet, and wakes whoever waits for it.
    pub(crate) fn install(&mut self, range: &Range<usize>, what: What) -> io::Result<()> {
        match what {
            What::Medium(at) => self.install_medium(range, at)?,
            What::Zeroes => self.install_zeroes(range)?,
        }
        self.service.uffd.wake(&self.addresses(range));
        Ok(())
    }

    fn install_medium(&mut self, range: &Range<usize>, at: u64) -> io::Result<()> {
        let place = |position: usize| at + (position - range.start) as u64;
        let differs =
            |piece: &Range<usize>, state| state != State::Medium(place(piece.start)) && state != State::Gone;
        for piece in joined(self.runs.within(range), differs) {
            let at = place(piece.start);
            // SAFETY: the range is the region's; whoever touches it is to get the medium.
            let result = unsafe {
                memory::map_medium(&self.addresses(&piece), &self.service.medium, at, self.writable)
            };
            self.settle(piece, State::Medium(at), result)?;
        }
        Ok(())
    }

    /// What is mapped, or failing, stays: zeroes that were answered say less than that.
    fn install_zeroes(&mut self, range: &Range<usize>) -> io::Result<()> {
        for piece in joined(self.runs.within(range), |_, state| state == State::Armed) {
            // SAFETY: the range is the region's, and registered, because it is armed.
            let result = unsafe { self.service.uffd.fill(&self.addresses(&piece)) };
            self.settle(piece, State::Zeroes, result)?;
        }
        Ok(())
    }

    /// Maps the file as the host does, which is `offset` bytes behind its own beginning, and wakes whoever waits.
    pub(crate) fn install_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let whole = 0..self.runs.size();
        for piece in joined(self.runs.within(&whole), |_, state| !matches!(state, State::File | State::Gone))
        {
            let at = offset + piece.start as u64;
            // SAFETY: the range is the region's; whoever touches it is to get the file.
            let result = unsafe { memory::map_as_host(&self.addresses(&piece), file, at, self.writable) };
            self.settle(piece, State::File, result)?;
        }
        self.service.uffd.wake(&self.addresses(&whole));
        Ok(())
    }

    /// Notes what was mapped; after an error, which may have left anything, arms it anew.
    fn settle(&mut self, piece: Range<usize>, state: State, result: io::Result<()>) -> io::Result<()> {
        if result.is_ok() {
            self.runs.set(piece, state);
        } else {
            self.arm_anew(piece);
        }
        result
    }

    /// Lets the next touch ask. When it returns, nothing that was mapped is reached any more.
    pub(crate) fn arm(&mut self, range: &Range<usize>) {
        // One step for what is near to each other: what is armed already may as well be armed anew.
        let is_near = |piece: &Range<usize>, state| match state {
            State::Gone => false,
            State::Armed => piece.len() <= NEAR,
            _ => true,
        };
        for group in joined(self.runs.within(range), is_near) {
            let meant = joined(self.runs.within(&group), |_, state| state != State::Armed);
            if let (Some(first), Some(last)) = (meant.first(), meant.last()) {
                self.arm_piece(first.start..last.end);
            }
        }
    }

    /// The same for what is in one state.
    pub(crate) fn arm_only(&mut self, range: &Range<usize>, meant: State) {
        for piece in joined(self.runs.within(range), |_, state| state == meant) {
            self.arm_piece(piece);
        }
    }

    fn arm_piece(&mut self, piece: Range<usize>) {
        let is_armed_memory = self.runs.within(&piece).iter().all(|(_, state)| !state.is_mapping());
        // SAFETY: the range is the region's. Where no file is mapped it is armed memory, of which only zeroes are lost.
        if is_armed_memory && unsafe { memory::empty(&self.addresses(&piece)) }.is_ok() {
            self.runs.set(piece, State::Armed);
        } else {
            self.arm_anew(piece);
        }
    }

    fn arm_anew(&mut self, piece: Range<usize>) {
        // SAFETY: the range is the region's, and its contents are on the medium or are zeroes.
        let armed = unsafe { memory::arm_over(&self.service.uffd, &self.addresses(&piece), self.writable) };
        if let Err(error) = armed {
            // Somebody is about to be told that nobody reaches these pages.
            eprintln!("lodefs: a part of a direct mapping cannot be taken back: {error}");
            std::process::abort();
        }
        self.runs.set(piece, State::Armed);
    }

    /// Lets an access end with a signal, except where the medium is mapped.
    pub(crate) fn fail(&mut self, range: &Range<usize>) -> io::Result<()> {
        let fails = |state| matches!(state, State::Armed | State::Zeroes);
        for piece in joined(self.runs.within(range), |_, state| fails(state)) {
            self.fail_piece(&piece)?;
        }
        Ok(())
    }

    /// The same for everything, the medium included.
    pub(crate) fn fail_all(&mut self) -> io::Result<()> {
        let whole = 0..self.runs.size();
        for piece in joined(self.runs.within(&whole), |_, state| state != State::Gone) {
            self.fail_piece(&piece)?;
        }
        Ok(())
    }

    fn fail_piece(&mut self, piece: &Range<usize>) -> io::Result<()> {
        let addresses = self.addresses(piece);
        // SAFETY: the range is the region's, and nobody is to reach what was there.
        let result = unsafe { memory::map_failing(&addresses, self.service.empty.as_fd(), self.writable) };
        self.settle(piece.clone(), State::Failing, result)
    }
}

/// Gives addresses back; nobody may need them any more.
pub(crate) fn unmap(base: usize, runs: &mut Runs, range: &Range<usize>) -> io::Result<()> {
    for piece in joined(runs.within(range), |_, state| state != State::Gone) {
        // SAFETY: the range is the region's, and whoever calls gives it up.
        unsafe { memory::unmap(&(base + piece.start..base + piece.end))? };
        runs.set(piece, State::Gone);
    }
    Ok(())
}

/// The pieces that are meant; neighbours as one.
pub(crate) fn joined(pieces: Pieces, is_meant: impl Fn(&Range<usize>, State) -> bool) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (piece, state) in pieces {
        if !is_meant(&piece, state) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == piece.start => last.end = piece.end,
            _ => ranges.push(piece),
        }
    }
    ranges
}
