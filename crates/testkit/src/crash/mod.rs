//! What a volume can look like after a crash.
//!
//! [`for_each_crash_image`] goes through the log of everything that was done to a medium and makes the images that a
//! crash could leave: the durable bytes, plus any part of what was stored and not yet durable. What is durable when
//! depends on the domain:
//!
//! - `memory-controller`: a cached store after a flush of its line and then a fence of the thread that flushed; a
//!   non-temporal store after a fence of its thread. Of the others, a line holds any prefix.
//! - `cpu-cache`: a store after a fence of its thread; a cached one also after a fence of another thread that a mark
//!   separates from it. Of the others, a line holds any prefix: some processors keep the order of a thread's stores, but
//!   neither all do nor a compiler.
//! - `page`: what was stored before a sync. Of the rest, each sector of 512 bytes holds any prefix.
//! - `volatile`: stands for a crash of the process alone, on any medium: every store, in order; the last may be torn.
//!
//! A mark stands for a moment at which everybody learns of all that was done before, as by a lock: a cached store is then
//! in the caches for certain.
//!
//! Stores are torn at multiples of eight bytes, never within. Nothing becomes durable but at a fence or sync, so the
//! images just before one include all those since the one before it. A log may have more images than can be looked
//! at: when few, all are made, else a choice of them ([`Options`]).

mod choose;
mod image;
mod pending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::Location;

use lodefs_pmem::{Domain, Event, What};

use self::choose::Choices;
use self::image::Image;
use self::pending::Pending;

pub use self::image::Snapshot;
pub(crate) use self::image::word_hash;
pub(crate) use self::pending::{PAGE, WORD};
use crate::rng::Rng;

/// Which crash images are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What is durable when.
    pub domain: Domain,
    /// All images of a moment are made if they are not more than this.
    pub exhaustive_max: usize,
    /// Otherwise: at most so many images with the stores to one place alone, and as many with all but these,
    pub singles_max: usize,
    /// and so many images with any part of the stores.
    pub random: usize,
    /// How many stores there are, on average, between two moments that are looked at besides all fences, syncs and
    /// marks. Zero: there are none.
    pub stores_between: u64,
    /// What the choice of images follows from.
    pub seed: u64,
    /// Nothing is looked at before this event of the log.
    pub from_event: usize,
    /// What this call does is left out, as if the program had forgotten it.
    pub drop_at: Option<Call>,
}

impl Options {
    /// A choice that is quick and finds most things.
    pub fn new(domain: Domain) -> Self {
        Self {
            domain,
            exhaustive_max: 32,
            singles_max: 8,
            random: 8,
            stores_between: 10,
            seed: 0,
            from_event: 0,
            drop_at: None,
        }
    }
}

/// One image that a crash could leave.
#[derive(Clone, Copy)]
pub struct CrashImage<'a> {
    /// The whole medium.
    image: &'a Image,
    /// Number of events of the log that came before the crash.
    pub position: usize,
    /// The last mark before the crash.
    pub last_mark: Option<u64>,
    /// What had been stored and was not durable, and how much of it is there.
    pub undecided: &'a [Undecided],
}

impl<'a> CrashImage<'a> {
    /// The whole medium.
    pub fn bytes(&self) -> &'a [u8] {
        self.image.shown()
    }

    /// Hash of the bytes.
    pub fn hash(&self) -> u64 {
        self.image.hash()
    }

    /// Hash of those in the tail of the [`Snapshot`] that came first.
    pub fn tail_hash(&self) -> u64 {
        self.image.tail_hash()
    }

    /// A number for each page of 4096 bytes. Where it is the same in two images, the page is.
    pub fn page_versions(&self) -> &'a [u64] {
        self.image.versions()
    }

    /// The image, to start from.
    pub fn snapshot(&self) -> Snapshot {
        self.image.snapshot()
    }
}

/// Stores to one place, of which a part is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// First byte of the first store.
    pub at: u64,
    /// Stores of up to eight bytes that are in the image: the first ones.
    pub kept: usize,
    /// Stores there were.
    pub stores: usize,
}

impl fmt::Debug for CrashImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashImage")
            .field("position", &self.position)
            .field("last_mark", &self.last_mark)
            .field("undecided", &self.undecided)
            .finish_non_exhaustive()
    }
}

/// What has been looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Moments.
    pub moments: usize,
    /// Images, no two of them the same after the same mark.
    pub images: usize,
    /// Moments whose images were all made.
    pub exhaustive: usize,
}

/// Makes images that a crash could leave of a medium that was as in `start` before the events of `logs`, one log after the
/// other, until `visit` says that it has seen enough.
///
/// An image is given once for each mark: after a later mark, more may be expected of the same bytes.
pub fn for_each_crash_image<B>(
    start: &Snapshot,
    logs: &[&[Event]],
    options: &Options,
    visit: impl FnMut(&CrashImage<'_>) -> ControlFlow<B>,
) -> ControlFlow<B, Statistics> {
    let mut explorer = Explorer {
        image: Image::new(start),
        pending: Pending::new(options.domain),
        options,
        rng: Rng::new(options.seed),
        seen: HashSet::new(),
        last_mark: None,
        statistics: Statistics::default(),
        visit,
    };
    for (position, event) in logs.iter().copied().flatten().enumerate() {
        explorer.event(position, event)?;
    }
    explorer.moment(logs.iter().map(|log| log.len()).sum())?;
    ControlFlow::Continue(explorer.statistics)
}

/// A step towards durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Write-back of cache lines.
    Flush,
    /// Waiting for it.
    Fence,
    /// Having the host write pages back.
    Sync,
}

/// A step towards durability in the program, as seen from outside of the crate that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Where it is called.
    pub location: &'static Location<'static>,
    /// Of what the call does.
    pub step: Step,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Flush => "flush",
            Step::Fence => "fence",
            Step::Sync => "sync",
        };
        write!(f, "{step} at {}", self.location)
    }
}

impl Call {
    /// The call that an event is a part of, if it is a step towards durability.
    pub fn of(event: &Event) -> Option<Self> {
        let (location, step) = match &event.what {
            What::Flush { location, .. } => (location, Step::Flush),
            What::Fence { location } => (location, Step::Fence),
            What::Sync { location } => (location, Step::Sync),
            What::Store { .. } | What::Read { .. } | What::Mark(_) => return None,
        };
        Some(Self { location, step })
    }
}

/// The calls that made something durable, of all that a log contains, for [`Options::drop_at`].
pub fn durability_calls(log: &[Event]) -> BTreeSet<Call> {
    log.iter().filter_map(Call::of).collect()
}

struct Explorer<'a, V> {
    image: Image,
    pending: Pending,
    options: &'a Options,
    rng: Rng,
    /// Images that were given since the last mark.
    seen: HashSet<u64>,
    last_mark: Option<u64>,
    statistics: Statistics,
    visit: V,
}

impl<B, V: FnMut(&CrashImage<'_>) -> ControlFlow<B>> Explorer<'_, V> {
    fn event(&mut self, position: usize, event: &Event) -> ControlFlow<B> {
        if self.options.drop_at.is_some() && Call::of(event) == self.options.drop_at {
            return ControlFlow::Continue(());
        }
        match &event.what {
            What::Store { at, bytes, non_temporal } => {
                self.pending.store(event.thread, *at, bytes, *non_temporal);
                // A process that dies leaves every store but the one it was at.
                let dies = self.options.domain == Domain::Volatile;
                let between = self.options.stores_between;
                if dies || (between > 0 && self.rng.one_in(between)) {
                    self.moment(position + 1)?;
                }
                if dies {
                    self.pending.sync(&mut self.image);
                }
            }
            What::Flush { at, size, .. } => self.pending.flush(event.thread, *at, *size),
            What::Fence { .. } if self.options.domain.is_durable_on_fence() => {
                self.moment(position)?;
                self.pending.fence(event.thread, &mut self.image);
            }
            What::Fence { .. } | What::Read { .. } => {}
            What::Sync { .. } => {
                self.moment(position)?;
                self.pending.sync(&mut self.image);
            }
            What::Mark(number) => {
                self.last_mark = Some(*number);
                self.seen.clear();
                self.moment(position + 1)?;
                self.pending.hand_over();
            }
        }
        ControlFlow::Continue(())
    }

    /// Makes the images of a crash after the first `position` events.
    fn moment(&mut self, position: usize) -> ControlFlow<B> {
        if position < self.options.from_event {
            return ControlFlow::Continue(());
        }
        let groups = self.pending.groups();
        let choices = Choices::new(&groups, self.options, &mut self.rng);
        self.statistics.moments += 1;
        self.statistics.exhaustive += usize::from(choices.is_exhaustive());
        for choice in choices {
            self.image.show(&groups, &choice);
            if self.seen.insert(self.image.hash()) {
                self.statistics.images += 1;
                let undecided: Vec<_> = groups
                    .iter()
                    .zip(&choice)
                    .map(|(group, kept)| Undecided {
                        at: group.start(),
                        kept: *kept,
                        stores: group.pieces.len(),
                    })
                    .collect();
                let Self { image, last_mark, visit, .. } = self;
                visit(&CrashImage { image, position, last_mark: *last_mark, undecided: &undecided })?;
            }
            self.image.hide();
        }
        ControlFlow::Continue(())
    }
}
