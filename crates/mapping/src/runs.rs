//! What was a range said to be?
//!
//! Runs of pages that are the same thing, without what is armed, which is most of a region. Pages that continue each other on the
//! medium are one run, as they are one mapping for the kernel. Positions are bytes from the beginning of the region.

use std::collections::BTreeMap;
use std::ops::Range;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A touch asks the pager.
    Armed,
    /// A write-protected page of zeroes.
    Zeroes,
    /// This place of the medium.
    Medium(u64),
    /// The host's own mapping of the file.
    File,
    /// A touch raises SIGBUS.
    Failing,
    /// No longer the region's.
    Gone,
}

impl State {
    /// The state of what lies `distance` bytes behind.
    fn ahead(self, distance: usize) -> Self {
        match self {
            Self::Medium(at) => Self::Medium(at + distance as u64),
            other => other,
        }
    }

    /// Whether it takes a mapping of its own.
    pub(crate) fn is_mapping(self) -> bool {
        matches!(self, Self::Medium(_) | Self::File | Self::Failing)
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: usize,
    state: State,
}

/// How much there is of what is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Runs that take a mapping of their own.
    pub(crate) mappings: usize,
    /// Bytes of zeroes.
    pub(crate) zeroes: usize,
    /// Runs that are the host's own mapping of the file.
    pub(crate) file: usize,
}

/// What all pages of a region are.
#[derive(Debug)]
pub(crate) struct Runs {
    size: usize,
    by_start: BTreeMap<usize, Run>,
    count: Count,
}

impl Runs {
    /// Everything is armed.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, by_start: BTreeMap::new(), count: Count::default() }
    }

    pub(crate) fn count(&self) -> Count {
        self.count
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// What the page at `position` is.
    pub(crate) fn at(&self, position: usize) -> State {
        match self.by_start.range(..=position).next_back() {
            Some((&start, run)) if position < run.end => run.state.ahead(position - start),
            _ => State::Armed,
        }
    }

    /// What is in `range`, in order and without gaps.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<(Range<usize>, State)> {
        let mut pieces = Vec::new();
        if range.is_empty() {
            return pieces;
        }
        let before = self.by_start.range(..range.start).next_back();
        let mut position = range.start;
        for (&start, run) in before.into_iter().chain(self.by_start.range(range.clone())) {
            let (first, last) = (start.max(range.start), run.end.min(range.end));
            if first >= last {
                continue;
            }
            if position < first {
                pieces.push((position..first, State::Armed));
            }
            pieces.push((first..last, run.state.ahead(first - start)));
            position = last;
        }
        if position < range.end {
            pieces.push((position..range.end, State::Armed));
        }
        pieces
    }

    /// The first position from `from` on that is in a state that is meant.
    pub(crate) fn find(&self, from: usize, is_meant: impl Fn(State) -> bool) -> Option<usize> {
        let mut position = from;
        let before = self.by_start.range(..from).next_back();
        for (&start, run) in before.into_iter().chain(self.by_start.range(from..)) {
            if position < start && is_meant(State::Armed) {
                return Some(position);
            }
            position = position.max(start);
            if position < run.end && is_meant(run.state) {
                return Some(position);
            }
            position = position.max(run.end);
        }
        (position < self.size && is_meant(State::Armed)).then_some(position)
    }

    /// Makes everything in `range` this, from its beginning on.
    pub(crate) fn set(&mut self, range: Range<usize>, state: State) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        let covered: Vec<usize> = self.by_start.range(range.clone()).map(|(&start, _)| start).collect();
        for start in covered {
            self.take(start);
        }
        if state != State::Armed {
            self.put_joined(range, state);
        }
    }

    /// Lets no run reach over `position`.
    fn cut(&mut self, position: usize) {
        let Some((&start, &run)) = self.by_start.range(..position).next_back() else { return };
        if position < run.end {
            self.take(start);
            self.put(start..position, run.state);
            self.put(position..run.end, run.state.ahead(position - start));
        }
    }

    /// Puts a run where none is, as one with those that it continues or that continue it.
    fn put_joined(&mut self, range: Range<usize>, state: State) {
        let (mut joined, mut first) = (range.clone(), state);
        if let Some((&start, &run)) = self.by_start.range(..range.start).next_back()
            && run.end == range.start
            && run.state.ahead(range.start - start) == state
        {
            self.take(start);
            (joined.start, first) = (start, run.state);
        }
        if let Some(&run) = self.by_start.get(&range.end)
            && state.ahead(range.len()) == run.state
        {
            self.take(range.end);
            joined.end = run.end;
        }
        self.put(joined, first);
    }

    fn put(&mut self, range: Range<usize>, state: State) {
        self.count.mappings += usize::from(state.is_mapping());
        self.count.file += usize::from(state == State::File);
        if state == State::Zeroes {
            self.count.zeroes += range.len();
        }
        self.by_start.insert(range.start, Run { end: range.end, state });
    }

    fn take(&mut self, start: usize) {
        let run = self.by_start.remove(&start).expect("the caller has seen it");
        self.count.mappings -= usize::from(run.state.is_mapping());
        self.count.file -= usize::from(run.state == State::File);
        if run.state == State::Zeroes {
            self.count.zeroes -= run.end - start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40;

    /// The same, page by page.
    fn expected(pages: &[State]) -> Count {
        let is_new = |i: usize| i == 0 || pages[i - 1].ahead(1) != pages[i];
        Count {
            mappings: (0..SIZE).filter(|&i| pages[i].is_mapping() && is_new(i)).count(),
            zeroes: pages.iter().filter(|&&state| state == State::Zeroes).count(),
            file: (0..SIZE).filter(|&i| pages[i] == State::File && is_new(i)).count(),
        }
    }

    #[test]
    fn runs_are_what_pages_would_be() {
        let mut random = 1u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut runs = Runs::new(SIZE);
        let mut pages = [State::Armed; SIZE];
        for _ in 0..20_000 {
            let start = next(SIZE as u64) as usize;
            let end = start + next((SIZE - start) as u64 + 1) as usize;
            let state = match next(8) {
                0 | 1 => State::Armed,
                2 => State::Zeroes,
                // Often what continues its neighbours.
                3 | 4 => State::Medium(start as u64 + 100 * next(2)),
                5 => State::Failing,
                6 => State::File,
                _ => State::Gone,
            };
            runs.set(start..end, state);
            for (distance, page) in pages[start..end].iter_mut().enumerate() {
                *page = state.ahead(distance);
            }
            assert_eq!(runs.count(), expected(&pages));
            let asked = next(SIZE as u64) as usize..SIZE;
            for meant in [State::Armed, State::Zeroes, State::Gone] {
                let first = asked.clone().find(|&i| pages[i] == meant);
                assert_eq!(runs.find(asked.start, |state| state == meant), first);
            }
            let pieces = runs.within(&asked);
            assert!(pieces.first().is_some_and(|(piece, _)| piece.start == asked.start));
            assert!(pieces.windows(2).all(|two| two[0].0.end == two[1].0.start));
            for (piece, state) in pieces {
                for i in piece.clone() {
                    assert_eq!((pages[i], runs.at(i)), (state.ahead(i - piece.start), pages[i]));
                }
            }
        }
    }

    #[test]
    fn an_empty_range_is_nothing() {
        let mut runs = Runs::new(SIZE);
        runs.set(3..3, State::Failing);
        assert!(runs.within(&(3..3)).is_empty() && runs.count() == Count::default());
    }
}
