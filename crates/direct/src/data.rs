//! What of a file's content may this process read and write by itself?
//!
//! What the server has granted stays until it is recalled. Whoever copies bytes holds the lock meanwhile, for reading or for writing,
//! and a recall takes it for writing: so it is answered when no copy is under way, and there is none after it. Nothing under
//! the lock waits for anybody: buffers that are mappings are copied before, or afterwards.
//!
//! Several descriptors may use what was granted by one of them. Each that others may close unseen says since when it is known to be the file
//! ([`Generation`]).
//!
//! A read of one part goes past the lock ([`Glimpsed`]): what it has copied is thrown away if there was a write or a recall meanwhile.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};

use lodefs_mapping::{Inside, enter};
use lodefs_proto::server::{Part, REVOKED, Right};
use lodefs_sync::{Glimpsed, GlimpsedWriteGuard};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::attachment::Attachment;
use crate::link::Link;
use crate::view::{Span, View};

/// Parts of a file that are remembered at most: 96 KiB.
const PARTS_MAX: usize = 4096;

/// For so long after a recall, or a refusal, the server is not asked: others use the file, or it cannot be had.
const REST_NS: u64 = 10_000_000;

/// A write within the file that has taken so long is not relied on: after twice this time the server goes on without a process that does
/// not answer a recall (one that was stopped, say), and changes the file.
const LATE_NS: u64 = 500_000_000;

/// All data of this process. Used inside the gate only, so that no child finds it locked.
static ALL: Mutex<Vec<Weak<Data>>> = Mutex::new(Vec::new());

/// Why bytes were not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The server has to be asked for what is at this byte.
    Ungranted(u64),
    /// The server has to be told first that it is changed, in this tick of the clock.
    Untold(u64),
    /// The server has to be asked for blocks first.
    Unreserved {
        /// Where bytes are to be written.
        at: u64,
        /// How many bytes the file is to have then.
        end: u64,
    },
    /// Somebody has to look first whether the descriptor is still the file.
    Unconfirmed,
    /// There is more to be done than to copy bytes.
    More,
}

/// When something was granted that has not been taken back since. No two are the same, nor those of a child and of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// That of nothing that was ever granted.
    pub(crate) const NONE: Self = Self(0);
}

/// The next one.
impl Default for Generation {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl From<Generation> for u64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl From<u64> for Generation {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// Since when a descriptor is known to be the file; `None` if it always is.
pub(crate) type Confirmed = Option<Generation>;

/// What the server has granted of one open file.
#[derive(Default)]
struct Content {
    right: Option<Right>,
    /// Recalls so far.
    epoch: u64,
    /// Bytes of the file. With the right to append, what its word says: nobody else replaces that.
    size: u64,
    /// Bytes that it can have by what is appended.
    size_max: u64,
    generation: Generation,
    /// Nobody stores to it by a mapping.
    is_settled: bool,
    /// Ascending by where they begin.
    parts: Vec<Part>,
    view: Option<Arc<View>>,
}

/// A write that can be done.
struct Planned {
    offset: u64,
    end: u64,
    /// The word that has the file's size, if the file becomes longer.
    word: Option<u64>,
    /// When it was begun: the tick of the clock, in nanoseconds.
    tick: u64,
}

/// What the server says of a file, beside where its parts are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) right: Right,
    pub(crate) size: u64,
    pub(crate) is_settled: bool,
}

/// How the server knows it.
#[derive(Clone)]
pub(crate) struct Leased {
    pub(crate) link: Arc<Link>,
    pub(crate) lease: u64,
    /// As long as it is there, so is the link.
    pub(crate) _attachment: Arc<Attachment>,
}

/// One that waits nowhere else: see [`forget_parents`].
type ContentLock = RwLock<Content>;

struct State {
    /// The glimpse is a part: where it begins, where it or the file ends, and where on the medium it is; and when it was granted.
    content: Glimpsed<Content, 4, ContentLock>,
    /// Where the medium is, for whoever has a glimpse. It stays as long as he may be there.
    span: OnceLock<Arc<Span>>,
    leased: Mutex<Option<Leased>>,
}

impl Default for State {
    fn default() -> Self {
        let content = Glimpsed::new(Content::default());
        Self { content, span: OnceLock::new(), leased: Mutex::default() }
    }
}

/// The data of one open file, or of some that share it.
#[derive(Default)]
pub(crate) struct Data {
    state: UnsafeCell<State>,
    /// The tick of the clock in which the server was last told of a change, in nanoseconds.
    told: AtomicU64,
    /// The size that a file of this process may have (`RLIMIT_FSIZE`), in that tick.
    size_limit: AtomicU64,
    /// When the server may be asked again.
    rests_until: AtomicU64,
}

// SAFETY: what is in the cell can be shared; it is replaced in a child only, while no other thread is there.
unsafe impl Sync for Data {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Data {}

impl Data {
    /// Nothing is granted yet.
    pub(crate) fn new() -> Arc<Self> {
        let new = Arc::new(Self::default());
        let inside = enter();
        let mut all = all(&inside);
        if all.len() == all.capacity() {
            all.retain(|data| data.strong_count() > 0);
        }
        all.push(Arc::downgrade(&new));
        drop(all);
        new
    }

    fn state(&self) -> &State {
        // SAFETY: see `Sync`.
        unsafe { &*self.state.get() }
    }

    fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.state().content.read()
    }

    fn content_mut(&self) -> GlimpsedWriteGuard<'_, Content, 4, ContentLock> {
        self.state().content.write()
    }

    /// The lease by which the server is asked.
    pub(crate) fn leased(&self) -> MutexGuard<'_, Option<Leased>> {
        self.state().leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By this view the bytes are reached from now on.
    pub(crate) fn use_view(&self, view: Arc<View>) {
        self.state().span.get_or_init(|| Arc::clone(view.span()));
        *self.content_mut() = Content { view: Some(view), ..Content::default() };
    }

    /// The server has granted this. It is void if it knew of less recalls.
    pub(crate) fn install(&self, epoch: u64, granted: Granted, parts: &[Part]) {
        let Granted { right, size, is_settled } = granted;
        let mut content = self.content_mut();
        if epoch < content.epoch {
            return;
        }
        if content.right.is_none() || content.parts.len() + parts.len() > PARTS_MAX {
            content.parts.clear();
        }
        let end = content.end(right, size);
        (content.right, content.epoch, content.size, content.size_max) = (Some(right), epoch, end, size);
        content.is_settled = is_settled;
        for part in parts {
            match content.parts.binary_search_by_key(&part.offset, |known| known.offset) {
                // It may have become longer.
                Ok(index) => content.parts[index] = *part,
                Err(index) => content.parts.insert(index, *part),
            }
        }
    }

    /// Whether all that is in the file is durable, as far as the medium can: this process would know of anything else.
    pub(crate) fn is_durable(&self, confirmed: Confirmed) -> bool {
        let content = self.content();
        content.right.is_some() && content.is_for(confirmed) && content.is_settled
    }

    /// Whether the file ends there, as far as is granted.
    pub(crate) fn ends_at(&self, confirmed: Confirmed, end: u64) -> bool {
        let content = self.content();
        content.right.is_some() && content.is_for(confirmed) && content.size == end
    }

    /// When what is granted was, if anything is. Whoever then finds a descriptor to be the file may rely on that: before it is closed, what is
    /// granted is taken back.
    pub(crate) fn granted(&self) -> Option<Generation> {
        let content = self.content();
        content.right.map(|_| content.generation)
    }

    /// Gives everything back: no copy is under way any more.
    pub(crate) fn recall(&self, epoch: u64) {
        let mut content = self.content_mut();
        (content.right, content.generation) = (None, Generation::default());
        content.parts.clear();
        content.epoch = content.epoch.max(epoch);
        drop(content);
        // Others may set the times as they like now.
        self.told.store(0, Ordering::Relaxed);
        self.rest();
    }

    /// The server is gone.
    pub(crate) fn lose(&self) {
        *self.content_mut() = Content::default();
        self.rest();
    }

    /// The server is not asked for a while.
    pub(crate) fn rest(&self) {
        self.rests_until.store(now(ClockId::MonotonicCoarse) + REST_NS, Ordering::Relaxed);
    }

    /// Whether the server is not to be asked now.
    pub(crate) fn rests(&self) -> bool {
        now(ClockId::MonotonicCoarse) < self.rests_until.load(Ordering::Relaxed)
    }

    /// The server knows that it is written in this tick.
    pub(crate) fn note_told(&self, tick: u64) {
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        self.size_limit.store(limit, Ordering::Relaxed);
        self.told.store(tick, Ordering::Relaxed);
    }

    /// Copies bytes out without the lock, if all are in the part that was read last.
    pub(crate) fn read_by_glimpse(
        &self,
        confirmed: Confirmed,
        offset: u64,
        into: &mut [u8],
    ) -> Option<usize> {
        let state = self.state();
        let span = state.span.get()?;
        let asked_to = offset.checked_add(into.len() as u64)?;
        state.content.with_glimpse(|[start, end, at, generation]| {
            let is_for = confirmed.is_none_or(|confirmed| confirmed == Generation(generation));
            if !is_for || offset < start || offset >= end || asked_to > end {
                return None;
            }
            // What was glimpsed while it changed may be anything; it is found out afterwards.
            span.read(at.wrapping_add(offset - start), into)?;
            Some(into.len())
        })
    }

    /// Copies bytes out; fewer only at the end of the file.
    pub(crate) fn read(&self, confirmed: Confirmed, offset: u64, into: &mut [u8]) -> Result<usize, Miss> {
        let content = self.content();
        if content.right.is_none() {
            return Err(Miss::Ungranted(offset));
        }
        if !content.is_for(confirmed) {
            return Err(Miss::Unconfirmed);
        }
        let wanted = content.size.saturating_sub(offset).min(into.len() as u64) as usize;
        let into = &mut into[..wanted];
        content.each_part(offset, wanted, |view, range, at| {
            let into = &mut into[range];
            if let Some(at) = at {
                return view.span().read(at, into);
            }
            into.fill(0);
            Some(())
        })?;
        if let Some(glimpse) = content.glimpse(offset, self.state().span.get()) {
            self.state().content.offer(&content, glimpse);
        }
        Ok(wanted)
    }

    /// Whether [`Self::write`] would copy so many bytes in now.
    pub(crate) fn can_write(&self, confirmed: Confirmed, offset: u64, size: usize) -> Result<(), Miss> {
        self.planned(&self.content(), confirmed, Some(offset), size).map(drop)
    }

    /// What is to be done to write so many bytes; nothing is changed.
    fn planned(
        &self,
        content: &Content,
        confirmed: Confirmed,
        offset: Option<u64>,
        size: usize,
    ) -> Result<Planned, Miss> {
        if !matches!(content.right, Some(Right::Write | Right::Append { .. })) {
            return Err(Miss::Ungranted(offset.unwrap_or(0)));
        }
        if !content.is_for(confirmed) {
            return Err(Miss::Unconfirmed);
        }
        let offset = offset.unwrap_or(content.size);
        let end = offset.checked_add(size as u64).ok_or(Miss::More)?;
        let word = content.word_to_replace(offset, end, content.size)?;
        let tick = now(ClockId::RealtimeCoarse);
        if self.told.load(Ordering::Relaxed) != tick {
            return Err(Miss::Untold(tick));
        }
        if word.is_some() && end > self.size_limit.load(Ordering::Relaxed) {
            // The kernel writes less, or sends the signal.
            return Err(Miss::More);
        }
        // All or nothing: whoever does it instead does it whole.
        content.each_part(offset, size, |_, _, at| at.map(drop))?;
        Ok(Planned { offset, end, word, tick })
    }

    /// Copies all bytes in, at this offset or (`None`) at the end of the file, and makes them durable. Returns where they end.
    pub(crate) fn write(&self, confirmed: Confirmed, offset: Option<u64>, bytes: &[u8]) -> Result<u64, Miss> {
        let mut content = self.content_mut();
        // Bytes are changed, and perhaps a word; the file becomes no shorter.
        content.keep_glimpse();
        let Planned { offset, end, word, tick } = self.planned(&content, confirmed, offset, bytes.len())?;
        content.each_part(offset, bytes.len(), |view, range, at| view.write(at?, &bytes[range]))?;
        let view = content.view.as_ref().ok_or(Miss::More)?;
        view.drain();
        let Some(word) = word else {
            // The server may have gone on without this process, and the blocks may have left the file: the kernel writes once more.
            return if now(ClockId::RealtimeCoarse).abs_diff(tick) < LATE_NS {
                Ok(end)
            } else {
                Err(Miss::More)
            };
        };
        if !view.replace_word(word, content.size, end) {
            // Somebody has given up waiting for this one: the bytes are behind the end.
            return Err(Miss::More);
        }
        content.size = end;
        Ok(end)
    }
}

impl Content {
    /// Whether a descriptor may use it that is known to be the file since then.
    fn is_for(&self, confirmed: Confirmed) -> bool {
        confirmed.is_none_or(|confirmed| confirmed == self.generation)
    }

    /// The end of a file with which the server says this.
    fn end(&self, right: Right, size: u64) -> u64 {
        let Right::Append { word } = right else { return size };
        let said = self.view.as_ref().and_then(|view| view.word(word));
        // The server's, to be believed as all that it says. Where there is no word, nothing is replaced either.
        said.map_or(size, |said| (said & !REVOKED).min(size))
    }

    /// The part at a byte, for those who read past the lock at these addresses; `None` if they cannot.
    fn glimpse(&self, offset: u64, span: Option<&Arc<Span>>) -> Option<[u64; 4]> {
        let view = self.view.as_ref()?;
        let is_there = span.is_some_and(|span| Arc::ptr_eq(span, view.span()));
        let part = self.part_at(self.index_of(offset), offset).filter(|_| is_there)?;
        let end = part.offset.saturating_add(part.size).min(self.size);
        Some([part.offset, end, part.at?, self.generation.0])
    }

    /// Which part is at a byte, if there is one.
    fn index_of(&self, offset: u64) -> usize {
        self.parts.partition_point(|part| part.offset <= offset).saturating_sub(1)
    }

    fn part_at(&self, index: usize, offset: u64) -> Option<&Part> {
        self.parts.get(index).filter(|part| part.offset <= offset && offset - part.offset < part.size)
    }

    /// The word that is to be replaced after bytes `[offset, end)` of the file were stored, which ends at `size`; `None` if it stays as
    /// long.
    fn word_to_replace(&self, offset: u64, end: u64, size: u64) -> Result<Option<u64>, Miss> {
        match self.right {
            _ if end <= size => Ok(None),
            // There would be a hole.
            _ if offset > size => Err(Miss::More),
            // The last bit of a word is no part of a size.
            Some(Right::Append { word }) if end <= self.size_max && end < REVOKED => Ok(Some(word)),
            _ => Err(Miss::Unreserved { at: offset, end }),
        }
    }

    /// Calls `copy` for each part of a range, with the bytes of it and where they are on the medium (`None`: nowhere, it is a hole),
    /// until it gives `None`.
    fn each_part(
        &self,
        offset: u64,
        size: usize,
        mut copy: impl FnMut(&View, std::ops::Range<usize>, Option<u64>) -> Option<()>,
    ) -> Result<(), Miss> {
        let view = self.view.as_ref().ok_or(Miss::More)?;
        let mut index = self.index_of(offset);
        let mut done = 0;
        while done < size {
            let at = offset + done as u64;
            let part = self.part_at(index, at).ok_or(Miss::Ungranted(at))?;
            let within = at - part.offset;
            let count = (part.size - within).min((size - done) as u64) as usize;
            let on_medium = part.at.and_then(|start| start.checked_add(within));
            copy(view, done..done + count, on_medium).ok_or(Miss::More)?;
            done += count;
            index += 1;
        }
        Ok(())
    }
}

/// In a child that has just been forked: what was granted was granted to the parent, and other threads may have held the locks.
///
/// # Safety
/// This process has no other thread, and this one is not within any call of this module.
pub(crate) unsafe fn forget_parents() {
    for data in all(&enter()).iter().filter_map(Weak::upgrade) {
        // SAFETY: nobody else is there who could use it. What was there is not dropped: it is the parent's, or half changed.
        unsafe { ptr::write(data.state.get(), State::default()) };
        data.rests_until.store(0, Ordering::Relaxed);
        data.told.store(0, Ordering::Relaxed);
    }
}

fn all(_: &Inside) -> MutexGuard<'static, Vec<Weak<Data>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds of a clock that costs no system call.
fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}
