//! What may be done with pages that a program has locked in memory?

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use libc::{MAP_SHARED, PROT_READ};

use crate::common::programs::{open, play_on_stage};
use crate::{BOTH, PAGE, in_child, map, map_at, outcome, unmap};

const PAGES: usize = 16;
/// More than programs use.
const ADVICE: std::ops::Range<i32> = 0..30;

/// What the kernel makes of locked and unlocked pages of a file: of all advice, and of msync(2).
fn answers(file: &File) -> Vec<(String, Result<i32, i32>)> {
    let mut answers = Vec::new();
    for protection in [PROT_READ, BOTH] {
        for way in ["not locked", "mlock", "MAP_LOCKED", "mremap", "unlocked"] {
            let flags = MAP_SHARED | if way == "MAP_LOCKED" { libc::MAP_LOCKED } else { 0 };
            // SAFETY: nothing that is there is replaced; the pages are mapped, and hold no values.
            unsafe {
                let mut start = map_at(std::ptr::null_mut(), file, (0, PAGES), protection, flags).unwrap();
                if matches!(way, "mlock" | "mremap" | "unlocked") {
                    assert_eq!(libc::mlock(start.cast(), PAGES * PAGE), 0);
                }
                if way == "mremap" {
                    let (size, flags) = (PAGES * PAGE, libc::MREMAP_MAYMOVE);
                    start = libc::mremap(start.cast(), size, size, flags).cast();
                }
                if way == "unlocked" {
                    assert_eq!(libc::munlock(start.cast(), PAGES * PAGE), 0);
                }
                for advice in ADVICE.filter(|advice| !is_of_other_memory(*advice)) {
                    file.write_all_at(&[1; 2 * PAGE], 0).unwrap();
                    let said = outcome(libc::madvise(start.cast(), PAGE, advice), -1);
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, 0).unwrap();
                    answers.push((format!("{way} {protection} advice {advice} byte {}", byte[0]), said));
                }
                for flags in [libc::MS_SYNC, libc::MS_INVALIDATE, libc::MS_SYNC | libc::MS_INVALIDATE] {
                    let said = outcome(libc::msync(start.cast(), PAGE, flags), -1);
                    answers.push((format!("{way} {protection} msync {flags}"), said));
                }
                unmap(start, PAGES * PAGE);
            }
        }
    }
    answers
}

/// Advice of which the kernel decides by what memory it has: other than of a file, or that it may or may not merge or collapse.
fn is_of_other_memory(advice: i32) -> bool {
    matches!(advice, libc::MADV_DONTFORK | libc::MADV_DOFORK | libc::MADV_COLLAPSE | 26..)
}

pub(crate) fn locked(place: &Path) {
    let host = tempfile::tempfile_in("/dev/shm").unwrap();
    let direct = open(&place.join("f"));
    for file in [&host, &direct] {
        file.set_len((PAGES * PAGE) as u64).unwrap();
    }
    for (found, expected) in answers(&direct).into_iter().zip(answers(&host)) {
        assert_eq!(found, expected);
    }
    // A child inherits no locks.
    let shared = map(&direct, 1, BOTH);
    // SAFETY: the page is mapped, and holds no value.
    unsafe {
        assert_eq!(libc::mlock(shared.cast(), PAGE), 0);
        let removed = || outcome(libc::madvise(shared.cast(), PAGE, libc::MADV_DONTNEED), -1);
        assert_eq!(removed(), Err(libc::EINVAL));
        assert!(in_child(|| assert_eq!(removed(), Ok(0))).success());
    }
}

#[test]
fn locked_pages_are_kept_as_the_kernel_keeps_its_own() {
    play_on_stage("locked");
}

/// Kilobytes of the volume's file that the process has mapped and locked.
fn locked_size() -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_of_volume, mut size, mut locked) = (false, 0, 0);
    for line in maps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let is_locked = is_of_volume && flags.split(' ').any(|flag| flag == "lo");
            locked += if is_locked { size } else { 0 };
        } else if let Some(said) = line.strip_prefix("Size:") {
            size = said.trim().trim_end_matches(" kB").parse().unwrap();
        } else if line.contains('-') && line.contains(' ') && !line.contains("kB") {
            is_of_volume = line.ends_with("/lode.vol");
        }
    }
    locked
}

/// A program that locks all that it maps, and then writes a direct file.
pub(crate) fn locks_all(place: &Path) {
    // SAFETY: it changes no contents.
    assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
    let file = open(&place.join("f"));
    for number in 0..100 {
        file.write_all_at(&[1; PAGE], number * PAGE as u64).unwrap();
    }
    let mapped = map(&file, 4, BOTH);
    // SAFETY: the page is mapped, and holds no value.
    let advised = unsafe { outcome(libc::madvise(mapped.cast(), PAGE, libc::MADV_DONTNEED), -1) };
    assert_eq!(advised, Err(libc::EINVAL));
    // What it has mapped itself may be.
    let locked = locked_size();
    assert!(locked <= 16, "{locked} KiB of the volume are locked");
}

#[test]
fn a_program_that_locks_all_its_memory_does_not_lock_the_volume() {
    let Some((bench, mounted)) = crate::common::programs::stage() else { return };
    let stored = || fs::metadata(bench.volume()).unwrap().blocks();
    let before = stored();
    crate::common::programs::play("locks-all", &mounted.directory);
    assert!(stored() < before + (16 << 11), "the host has filled the volume");
    mounted.unmount();
}
