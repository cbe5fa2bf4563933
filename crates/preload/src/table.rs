//! Which descriptors are files of a volume?
//!
//! Nobody waits here: whoever uses an entry is counted, and an entry that is replaced meanwhile is dropped later.

use std::ffi::c_int;
use std::ops::Deref;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lodefs_direct::descriptor_table;

use crate::opened::Opened;

/// Descriptors from here on are left to the kernel.
const SLOTS_MAX: usize = 1 << 16;

struct Slot {
    /// From an `Arc`, or null.
    file: AtomicPtr<Opened>,
    users: AtomicU32,
}

static SLOTS: [Slot; SLOTS_MAX] =
    [const { Slot { file: AtomicPtr::new(null_mut()), users: AtomicU32::new(0) } }; SLOTS_MAX];

/// Slots from here on have never been used.
static END: AtomicUsize = AtomicUsize::new(0);

/// Entries that were in use when they were replaced, with their slots.
static REPLACED: Mutex<Vec<(usize, Arc<Opened>)>> = Mutex::new(Vec::new());

/// An entry that is in use.
pub(crate) struct Using {
    slot: &'static Slot,
    file: *mut Opened,
}

impl Deref for Using {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        // SAFETY: it is counted, so whoever replaces it keeps it.
        unsafe { &*self.file }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.slot.users.fetch_sub(1, Ordering::Release);
    }
}

/// Whether a descriptor may be a file of a volume.
pub(crate) fn is_known(file: c_int) -> bool {
    let slot = usize::try_from(file).ok().and_then(|number| SLOTS.get(number));
    slot.is_some_and(|slot| !slot.file.load(Ordering::Relaxed).is_null())
}

/// The file that a descriptor of this thread is. None, if this thread does not use the descriptor table of the process.
pub(crate) fn get(file: c_int) -> Option<Using> {
    if is_known(file) && descriptor_table::is_used_here() { get_of_process(file) } else { None }
}

/// The file that a descriptor of the process is.
pub(crate) fn get_of_process(file: c_int) -> Option<Using> {
    let slot = SLOTS.get(usize::try_from(file).ok()?)?;
    // Before the entry is read: see `put`.
    slot.users.fetch_add(1, Ordering::SeqCst);
    let using = Using { slot, file: slot.file.load(Ordering::SeqCst) };
    (!using.file.is_null()).then_some(using)
}

/// A descriptor is this file from now on, or none of a volume.
pub(crate) fn put(file: c_int, opened: Option<Arc<Opened>>) {
    let Ok(number) = usize::try_from(file) else { return };
    let Some(slot) = SLOTS.get(number) else { return };
    if opened.is_none() && slot.file.load(Ordering::Relaxed).is_null() {
        return;
    }
    END.fetch_max(number + 1, Ordering::Relaxed);
    let new = opened.map_or(null_mut(), |opened| Arc::into_raw(opened).cast_mut());
    let old = slot.file.swap(new, Ordering::SeqCst);
    // SAFETY: it came from an `Arc` that the slot had.
    let old = (!old.is_null()).then(|| unsafe { Arc::from_raw(old) });
    // Who is counted from now on finds the new one.
    match old {
        Some(old) if slot.users.load(Ordering::SeqCst) > 0 => keep(number, old),
        unused => drop(unused),
    }
    drop(unused());
}

/// Keeps what somebody may use: for ever, if somebody else is just about to keep something.
fn keep(number: usize, old: Arc<Opened>) {
    match REPLACED.try_lock() {
        Ok(mut replaced) => replaced.push((number, old)),
        Err(_) => std::mem::forget(old),
    }
}

/// What nobody uses any more of what was replaced.
fn unused() -> Vec<(usize, Arc<Opened>)> {
    let Ok(mut replaced) = REPLACED.try_lock() else { return Vec::new() };
    replaced.extract_if(.., |(number, _)| SLOTS[*number].users.load(Ordering::SeqCst) == 0).collect()
}

/// The numbers of the descriptors that may be files of a volume.
pub(crate) fn known() -> impl Iterator<Item = c_int> {
    let end = END.load(Ordering::Relaxed);
    (0..end)
        .filter(|&number| !SLOTS[number].file.load(Ordering::Relaxed).is_null())
        .filter_map(|number| c_int::try_from(number).ok())
}

/// Whether any descriptor may be a file of a volume.
pub(crate) fn has_any() -> bool {
    known().next().is_some()
}

/// In a child of a thread that did not use the descriptor table of the process: of its own table, nothing is known.
pub(crate) fn forget_all() {
    known().for_each(|file| put(file, None));
}

/// In a child: nobody but this thread uses anything.
pub(crate) fn forget_users() {
    for slot in &SLOTS[..END.load(Ordering::Relaxed)] {
        slot.users.store(0, Ordering::Relaxed);
    }
}
