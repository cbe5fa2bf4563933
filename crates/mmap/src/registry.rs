//! Which addresses of this process are mappings, and of what?

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use lodefs_mapping::{Inside, Region, enter};
use lodefs_proto::maps::{DurableBy, FileId};

use crate::outline;
use crate::teller::Teller;

/// All mappings, by where they begin. None overlaps another: who maps over one takes that from it. Used inside the gate only, so that no
/// child finds it locked.
static MAPPED: RwLock<BTreeMap<usize, Known>> = RwLock::new(BTreeMap::new());
/// Their number. Whoever has a mapping knows that it has been counted.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Who tells others of them, as long as there are any. Used inside the gate only, after `MAPPED` if both are.
static TELLER: Mutex<Option<Teller>> = Mutex::new(None);

/// Who knows what a file is called.
pub trait Named: Send + Sync {
    /// Its name now, if it has one. It is asked while nobody in this process can change a mapping, so it must not wait for anybody.
    fn name(&self) -> Option<PathBuf>;
}

/// Which file a mapping is of.
#[derive(Clone)]
pub struct Subject {
    /// The file.
    pub file: FileId,
    /// Who knows its name.
    pub named: Option<Arc<dyn Named>>,
}

/// A mapping.
#[derive(Clone)]
pub(crate) struct Known {
    /// That of its mapping; of several parts, if some were taken away.
    pub(crate) number: u64,
    pub(crate) size: usize,
    pub(crate) offset: u64,
    /// `None`: it is the kernel's own.
    pub(crate) region: Option<Weak<Region>>,
    pub(crate) subject: Subject,
    pub(crate) writable: bool,
    pub(crate) sync: bool,
    /// What makes stores to the medium durable.
    pub(crate) durable_by: DurableBy,
}

/// These addresses are a mapping's, until they are taken away, or this is dropped.
pub(crate) struct Noted {
    addresses: Range<usize>,
    number: u64,
}

/// Each mapping has another number.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Noted {
    pub(crate) fn new(start: usize, mut known: Known) -> Self {
        let inside = enter();
        let addresses = start..start + known.size;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        known.number = number;
        let mut mapped = write(&inside);
        take(&mut mapped, &addresses, |_| true);
        mapped.insert(start, known);
        note(&mapped);
        drop(mapped);
        tell(&inside);
        Self { addresses, number }
    }

    /// These addresses are not the mapping's any more.
    pub(crate) fn take_away(&self, addresses: &Range<usize>) {
        let inside = enter();
        let mut mapped = write(&inside);
        take(&mut mapped, addresses, |known| known.number == self.number);
        note(&mapped);
        if mapped.is_empty() {
            // Before anybody can map something, and want to be told of.
            drop(teller(&inside).take());
        }
    }
}

/// Has readers without the lock know which mappings there are.
fn note(mapped: &BTreeMap<usize, Known>) {
    outline::replace(mapped.iter().map(|(start, known)| *start..*start + known.size));
    COUNT.store(mapped.len(), Ordering::Release);
}

/// Takes these addresses from the entries that are meant.
fn take(mapped: &mut BTreeMap<usize, Known>, addresses: &Range<usize>, is_meant: impl Fn(&Known) -> bool) {
    let before_end = mapped.range(..addresses.end).rev();
    let there = before_end.take_while(|(start, known)| *start + known.size > addresses.start);
    let meant: Vec<usize> = there.filter(|(_, known)| is_meant(known)).map(|(start, _)| *start).collect();
    for start in meant {
        let Some(known) = mapped.remove(&start) else { continue };
        let end = start + known.size;
        for left in [start..addresses.start, addresses.end..end] {
            if !left.is_empty() {
                let offset = known.offset + (left.start - start) as u64;
                mapped.insert(left.start, Known { offset, size: left.len(), ..known.clone() });
            }
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.take_away(&self.addresses);
    }
}

/// From now on others can ask what is mapped. If that cannot be, for want of descriptors or threads, nobody will be told: the mappings
/// are as good.
fn tell(inside: &Inside) {
    let mut teller = teller(inside);
    if teller.as_ref().is_none_or(|teller| !teller.is_of(process::id())) {
        *teller = Teller::start().ok();
    }
}

/// In a child that has mapped again what its parent had: it tells by itself.
pub fn tell_in_child() {
    let inside = enter();
    if !read(&inside).is_empty() {
        tell(&inside);
    }
}

/// Whether some of these addresses are a mapping's. Most programs that ask have none.
#[inline]
pub(crate) fn has_some_of(addresses: &Range<usize>) -> bool {
    COUNT.load(Ordering::Acquire) != 0 && have_some_of(addresses)
}

/// The same if there are mappings.
fn have_some_of(addresses: &Range<usize>) -> bool {
    if let Some(has_some) = outline::has_some_of(addresses) {
        return has_some;
    }
    let inside = enter();
    let mapped = read(&inside);
    let before_end = mapped.range(..addresses.end).next_back();
    before_end.is_some_and(|(start, known)| start + known.size > addresses.start)
}

/// All mappings.
pub(crate) fn all(inside: &Inside) -> Vec<(usize, Known)> {
    read(inside).iter().map(|(start, known)| (*start, known.clone())).collect()
}

fn read(_: &Inside) -> RwLockReadGuard<'static, BTreeMap<usize, Known>> {
    MAPPED.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(_: &Inside) -> RwLockWriteGuard<'static, BTreeMap<usize, Known>> {
    MAPPED.write().unwrap_or_else(PoisonError::into_inner)
}

fn teller(_: &Inside) -> MutexGuard<'static, Option<Teller>> {
    TELLER.lock().unwrap_or_else(PoisonError::into_inner)
}
