//! What is refused, by an error or a signal?

use std::ffi::c_void;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use libc::{MAP_FIXED, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_SYNC, PROT_NONE, PROT_READ};

use crate::common::programs::{open, play, play_on_stage, playing, stage_with};
use crate::common::{Mounted, Workbench, can_mount, is_on_dax, lodefs, succeed};
use crate::{BOTH, PAGE, byte, load, map, map_at, outcome, signal_of, store};

pub(crate) fn signals(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&[1; PAGE + 10], 0).unwrap();
    let (both, only_read) = (map(&file, 4, BOTH), map(&file, 4, PROT_READ));
    assert_eq!(signal_of(|| store(both, 2 * PAGE - 1, 1)), 0, "its last page");
    assert_eq!(signal_of(|| store(both, 2 * PAGE, 1)), libc::SIGBUS);
    assert_eq!(signal_of(|| _ = load(only_read, 3 * PAGE)), libc::SIGBUS);
    assert_eq!(signal_of(|| store(only_read, 0, 1)), libc::SIGSEGV);
    // SAFETY: the page is mapped, and nobody uses it until it can be accessed again.
    unsafe {
        assert_eq!(libc::mprotect(both.cast(), PAGE, PROT_NONE), 0);
        assert_eq!(signal_of(|| _ = load(both, 0)), libc::SIGSEGV);
        assert_eq!(signal_of(|| store(both, PAGE, 2)), 0);
        assert_eq!(libc::mprotect(both.cast(), PAGE, BOTH), 0);
        assert_eq!(libc::mprotect(only_read.cast(), PAGE, BOTH), 0, "the file is open for both");
    }
    store(both, 0, 5);
    assert_eq!(load(only_read, 0), 5);
    let reader = File::open(place.join("f")).unwrap();
    let kept = map(&reader, 1, PROT_READ);
    // SAFETY: as above; and nothing that is there is replaced.
    unsafe {
        assert_eq!(outcome(libc::mprotect(kept.cast(), PAGE, BOTH), -1), Err(libc::EACCES));
        let refused = map_at(ptr::null_mut(), &reader, (0, 1), BOTH, MAP_SHARED);
        assert_eq!(refused, Err(libc::EACCES));
    }
    assert_eq!(load(kept, 0), 5);
    file.set_len(0).unwrap();
    assert_eq!(signal_of(|| _ = load(kept, 0)), libc::SIGBUS);
}

#[test]
fn what_must_not_be_accessed_raises_the_signals_of_the_kernels_mappings() {
    play_on_stage("signals");
}

pub(crate) fn sync(place: &Path) {
    let (direct, buffered) = (open(&place.join("direct")), open(&place.join("buffered")));
    direct.set_len(PAGE as u64).unwrap();
    buffered.set_len(PAGE as u64).unwrap();
    // SAFETY: nothing that is there is replaced.
    let mapped = |file: &File, flags| unsafe { map_at(ptr::null_mut(), file, (0, 1), BOTH, flags) };
    for flags in [MAP_SHARED_VALIDATE | MAP_SYNC, MAP_SHARED | MAP_SYNC] {
        store(mapped(&direct, flags).unwrap(), 0, 1);
        assert_eq!(mapped(&buffered, flags), Err(libc::EOPNOTSUPP));
    }
    store(mapped(&direct, MAP_SHARED_VALIDATE).unwrap(), 1, 2);
    store(mapped(&buffered, MAP_SHARED).unwrap(), 1, 2);
    assert_eq!((byte(&direct, 0), byte(&direct, 1), byte(&buffered, 1)), (1, 2, 2));
}

#[test]
fn map_sync_is_never_ignored() {
    let Some((_bench, mounted)) = stage_with("dax=inode") else { return };
    for (name, kind) in [("direct", "on"), ("buffered", "off")] {
        fs::write(mounted.path(name), []).unwrap();
        succeed(lodefs(["dax", kind]).arg(mounted.path(name)));
    }
    play("sync", &mounted.directory);
    mounted.unmount();
}

pub(crate) fn forced(place: &Path) {
    let file = open(&place.join("f"));
    file.set_len(PAGE as u64).unwrap();
    // SAFETY: nothing that is there is replaced.
    let mapped = unsafe { map_at(ptr::null_mut(), &file, (0, 1), BOTH, MAP_SHARED_VALIDATE | MAP_SYNC) };
    println!("mapped: {}", mapped.is_ok());
    store(mapped.unwrap(), 0, 1);
    // SAFETY: it is mapped.
    assert_eq!(unsafe { libc::msync(mapped.unwrap().cast(), PAGE, libc::MS_SYNC) }, 0);
}

#[test]
fn a_program_can_be_tried_on_a_medium_of_another_domain() {
    if !can_mount() || is_on_dax() {
        return;
    }
    let bench = Workbench::new();
    // What it is: on tmpfs, which is gone when the power is.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut mount = lodefs(["mount", "--create", "64M", "-o", "dax=always"]);
    mount.arg(memory.path().join("volume")).arg(bench.directory());
    succeed(mount.env_remove("LODEFS_FORCE_DOMAIN"));
    let mounted = Mounted { directory: bench.directory() };
    for (options, maps) in
        [(&[][..], "mapped: false"), (&["--force-domain", "memory-controller"], "mapped: true")]
    {
        let output = playing(options, "forced", &mounted.directory).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains(maps), "{options:?}");
        assert_eq!(output.status.success(), maps.ends_with("true"));
    }
    mounted.unmount();
}

/// What is refused changes nothing.
pub(crate) fn refusals(place: &Path) {
    let file = open(&place.join("f"));
    file.write_all_at(&vec![7; 8 * PAGE], 0).unwrap();
    let shown = map(&file, 8, BOTH);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: nothing that is there is replaced; what is refused replaces nothing.
    unsafe {
        let own = libc::mmap(ptr::null_mut(), 2 * PAGE, BOTH, flags, -1, 0);
        own.cast::<u8>().write(3);
        let fixed = libc::MAP_PRIVATE | MAP_FIXED;
        let mapped = |size, descriptor| {
            outcome(libc::mmap(shown.cast(), size, BOTH, fixed, descriptor, 0), libc::MAP_FAILED)
        };
        assert_eq!(mapped(PAGE, 7777), Err(libc::EBADF));
        assert_eq!(mapped(0, file.as_raw_fd()), Err(libc::EINVAL));
        let moved = |old: *mut c_void, from, to: *mut c_void| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            outcome(libc::mremap(old, from, from, flags, to), libc::MAP_FAILED)
        };
        assert_eq!(moved(own, 2 * PAGE, shown.add(1).cast()), Err(libc::EINVAL));
        assert_eq!(moved(shown.cast(), PAGE, own.cast::<u8>().add(1).cast()), Err(libc::EINVAL));
        assert_eq!(outcome(libc::munmap(shown.cast(), 0), -1), Err(libc::EINVAL));
        assert_eq!(outcome(libc::madvise(shown.cast(), PAGE, 9999), -1), Err(libc::EINVAL));
        assert_eq!(outcome(libc::mprotect(shown.cast(), PAGE, 0x1000), -1), Err(libc::EINVAL));
        assert_eq!(load(own.cast(), 0), 3);
    }
    assert!((0..8).all(|page| load(shown, page * PAGE) == 7));
    // Locks of the process are lost when any descriptor of the file is closed.
    let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    let is_locked = || {
        signal_of(|| {
            let other = open(&place.join("f"));
            // SAFETY: the lock is there.
            if unsafe { libc::fcntl(other.as_raw_fd(), libc::F_SETLK, &raw const lock) } != 0 {
                std::process::abort();
            }
        }) == libc::SIGABRT
    };
    // SAFETY: the lock is there; the pages are mapped, and nobody uses them meanwhile.
    unsafe {
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock), 0);
        assert_eq!(libc::mprotect(shown.cast(), PAGE, PROT_READ), 0);
        assert!(is_locked());
        let longer = libc::mremap(shown.cast(), 8 * PAGE, 16 * PAGE, libc::MREMAP_MAYMOVE);
        assert!(is_locked() && longer == libc::MAP_FAILED, "it is two mappings by now");
        assert_eq!(libc::madvise(shown.add(4 * PAGE).cast(), PAGE, libc::MADV_REMOVE), 0);
        assert!(is_locked());
        // Another descriptor is as good.
        let other = open(&place.join("f"));
        drop(file);
        assert_eq!(libc::fcntl(other.as_raw_fd(), libc::F_SETLK, &raw const lock), 0);
        assert_eq!(libc::mprotect(shown.cast(), 2 * PAGE, BOTH), 0);
        assert_eq!(libc::madvise(shown.add(5 * PAGE).cast(), PAGE, libc::MADV_REMOVE), 0);
        assert!(is_locked());
    }
}

#[test]
fn what_is_refused_changes_nothing_and_locks_stay() {
    play_on_stage("refusals");
}

/// What a child is not to have.
pub(crate) fn not_inherited(place: &Path) {
    for file in [open(&place.join("f")), tempfile::tempfile_in("/dev/shm").unwrap()] {
        file.write_all_at(&[7; 4 * PAGE], 0).unwrap();
        let shown = map(&file, 4, BOTH);
        let advise = |page: usize, pages: usize, advice| {
            // SAFETY: it is mapped, and its contents stay.
            assert_eq!(unsafe { libc::madvise(shown.add(page * PAGE).cast(), pages * PAGE, advice) }, 0);
        };
        let signals = || [0, 1, 2, 3].map(|page| signal_of(|| assert!(load(shown, page * PAGE) == 7)));
        advise(1, 2, libc::MADV_DONTFORK);
        assert_eq!(signals(), [0, libc::SIGSEGV, libc::SIGSEGV, 0]);
        // SAFETY: if it were moved, that would be seen.
        let moved = unsafe { libc::mremap(shown.cast(), 4 * PAGE, 8 * PAGE, libc::MREMAP_MAYMOVE) };
        assert_eq!(outcome(moved, libc::MAP_FAILED), Err(libc::EFAULT), "it is three mappings by now");
        advise(2, 1, libc::MADV_DOFORK);
        assert_eq!(signals(), [0, libc::SIGSEGV, 0, 0]);
        assert!((0..4).all(|page| load(shown, page * PAGE) == 7));
    }
}

#[test]
fn a_child_has_nothing_that_is_not_to_be_inherited() {
    play_on_stage("not-inherited");
}
