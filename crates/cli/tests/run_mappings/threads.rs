//! Other threads, and forks, while mappings change.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{MAP_FIXED, MAP_SHARED, PROT_READ};

use crate::common::programs::{open, play_on_stage};
use crate::{BOTH, PAGE, in_child, load, map, map_at, store};

/// Pages are replaced, protected and moved back while another thread reads them.
pub(crate) fn meanwhile(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&vec![3; 8 * PAGE], 0).unwrap();
    let shown = map(&file, 8, BOTH).expose_provenance();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, shown) = (0_u64, ptr::with_exposed_provenance_mut(shown));
            while !is_over.load(Ordering::Relaxed) {
                assert!((0..8).all(|page| load(shown, page * PAGE + 7) == 3));
                reads += 1;
            }
            reads
        });
        let start: *mut u8 = ptr::with_exposed_provenance_mut(shown);
        for round in 0..300 {
            let (page, pages) = (round % 5, 1 + round % 3);
            let part = start.wrapping_add(page * PAGE);
            // SAFETY: whatever it is replaced with shows the same.
            unsafe {
                match round % 3 {
                    0 => {
                        map_at(part, &file, (page, pages), BOTH, MAP_SHARED | MAP_FIXED).unwrap();
                    }
                    1 => assert_eq!(libc::mprotect(part.cast(), pages * PAGE, PROT_READ), 0),
                    _ => assert_eq!(libc::mprotect(start.cast(), 8 * PAGE, BOTH), 0),
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn nobody_notices_that_pages_are_replaced() {
    play_on_stage("meanwhile");
}

/// A lock that a handler for forks takes, as allocators have one.
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is used by the functions that are made for that only.
unsafe impl Sync for Lock {}

static LOCK: Lock = Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

extern "C" fn take_lock() {
    // SAFETY: it is one.
    unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
}

extern "C" fn leave_lock() {
    // SAFETY: it is one, and this thread, or that of which it is the copy, has it.
    unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
}

/// Forks while another thread changes what is mapped; the child uses its addresses for something else.
pub(crate) fn beside(place: &Path) {
    // SAFETY: changes no memory.
    unsafe { libc::alarm(100) };
    let file = open(&place.join("f"));
    file.write_all_at(b"hello", 0).unwrap();
    file.set_len(8 * PAGE as u64).unwrap();
    let address = map(&file, 8, BOTH).expose_provenance();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = ptr::with_exposed_provenance_mut::<c_void>(address);
            while !is_over.load(Ordering::Relaxed) {
                for protection in [PROT_READ, BOTH] {
                    // SAFETY: the page is mapped, and shows the same.
                    assert_eq!(unsafe { libc::mprotect(start, PAGE, protection) }, 0);
                }
            }
        });
        for round in 0..60 {
            let start: *mut u8 = ptr::with_exposed_provenance_mut(address);
            let ended = in_child(|| {
                let other = open(&place.join("f"));
                let is_right = load(start, 0) == b'h';
                // SAFETY: nobody uses what was there any more.
                unsafe {
                    libc::munmap(start.cast(), 8 * PAGE);
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                    let own = libc::mmap(start.cast(), 8 * PAGE, BOTH, flags, -1, 0);
                    ptr::write_bytes(own.cast::<u8>(), 0x77, 8 * PAGE);
                }
                other.set_len(0).unwrap();
                other.write_all_at(b"hello", 0).unwrap();
                other.set_len(8 * PAGE as u64).unwrap();
                if !is_right || (0..8 * PAGE).any(|at| load(start, at) != 0x77) {
                    std::process::abort();
                }
            });
            assert!(ended.success(), "round {round}: {ended}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // SAFETY: changes no memory.
    unsafe { libc::alarm(0) };
}

#[test]
fn a_fork_waits_for_whoever_changes_what_is_mapped() {
    play_on_stage("beside");
}

/// A program whose handler for forks takes a lock under which other threads map and unmap memory of their own.
pub(crate) fn taken(place: &Path) {
    // SAFETY: changes no memory; the handlers stay.
    unsafe {
        libc::alarm(100);
        assert_eq!(libc::pthread_atfork(Some(take_lock), Some(leave_lock), Some(leave_lock)), 0);
    }
    let file = open(&place.join("f"));
    file.set_len(8 * PAGE as u64).unwrap();
    // Other memory lies between these.
    let shown: Vec<*mut u8> = (0..8).map(|_| map(&file, 8, BOTH)).collect();
    store(shown[0], 0, 1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                take_lock();
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: nothing that is there is replaced, and what is new is not used.
                unsafe {
                    let own = libc::mmap(ptr::null_mut(), PAGE, BOTH, flags, -1, 0);
                    assert_eq!(libc::munmap(own, PAGE), 0);
                }
                leave_lock();
            }
        });
        for _ in 0..300 {
            assert!(in_child(|| {}).success());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // SAFETY: changes no memory.
    unsafe { libc::alarm(0) };
}

#[test]
fn whoever_unmaps_memory_of_his_own_waits_for_no_fork() {
    play_on_stage("taken");
}
