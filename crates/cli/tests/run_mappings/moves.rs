//! Mappings that move, become longer and shorter.

use std::ffi::{c_int, c_void};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use libc::{MAP_SHARED, PROT_NONE, PROT_READ};

use crate::common::programs::{open, play_on_stage};
use crate::{BOTH, PAGE, byte, load, map, map_at, outcome, store};

/// Moves, lengthens, shortens and doubles mappings: of a direct file, and of the kernel's.
pub(crate) fn moves(place: &Path) {
    for file in [open(&place.join("f")), tempfile::tempfile_in("/dev/shm").unwrap()] {
        let numbers: Vec<u8> = (0..16 * PAGE).map(|at| (at / PAGE) as u8 + 1).collect();
        file.write_all_at(&numbers, 0).unwrap();
        let shown = |address: *mut u8, pages: usize| -> Vec<u8> {
            (0..pages).map(|page| load(address, page * PAGE)).collect()
        };
        // SAFETY: what is moved is mapped, and used at its new address only.
        let moved = |old: *mut u8, from: usize, to: usize, flags: c_int, new: *mut u8| unsafe {
            let moved = libc::mremap(old.cast(), from * PAGE, to * PAGE, flags, new);
            outcome(moved, libc::MAP_FAILED).map(<*mut c_void>::cast::<u8>)
        };
        let (stays, may_move) = (0, libc::MREMAP_MAYMOVE);
        let arena = map(&file, 16, BOTH);
        assert_eq!(moved(arena, 16, 4, stays, ptr::null_mut()), Ok(arena));
        assert_eq!(shown(arena, 4), [1, 2, 3, 4]);
        assert_eq!(moved(arena, 4, 8, stays, ptr::null_mut()), Ok(arena));
        assert_eq!(shown(arena, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        // There is something behind it.
        let second = arena.wrapping_add(2 * PAGE);
        assert_eq!(moved(arena, 2, 4, stays, ptr::null_mut()), Err(libc::ENOMEM));
        let elsewhere = moved(arena, 2, 12, may_move, ptr::null_mut()).unwrap();
        assert_eq!(shown(elsewhere, 12), (1..=12).collect::<Vec<_>>());
        assert_eq!(shown(second, 6), [3, 4, 5, 6, 7, 8]);
        // Once more, for a size of nothing.
        let twice = moved(second, 0, 3, may_move, ptr::null_mut()).unwrap();
        assert_eq!((shown(twice, 3), shown(second, 3)), (vec![3, 4, 5], vec![3, 4, 5]));
        // To an address, over what is there.
        let fixed = may_move | libc::MREMAP_FIXED;
        assert_eq!(moved(twice, 3, 2, fixed, elsewhere.wrapping_add(PAGE)), Ok(elsewhere.wrapping_add(PAGE)));
        assert_eq!(shown(elsewhere, 5), [1, 3, 4, 4, 5]);
        let overlapping = elsewhere.wrapping_add(4 * PAGE);
        assert_eq!(moved(elsewhere.wrapping_add(3 * PAGE), 3, 3, fixed, overlapping), Err(libc::EINVAL));
        assert_eq!(moved(second, 6, 0, may_move, ptr::null_mut()), Err(libc::EINVAL));
        // What is the kernel's comes over it.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nothing that is there is replaced.
        let own = unsafe { libc::mmap(ptr::null_mut(), PAGE, BOTH, flags, -1, 0) }.cast::<u8>();
        store(own, 0, 77);
        assert_eq!(moved(own, 1, 1, fixed, second), Ok(second));
        assert_eq!(shown(second, 3), [77, 4, 5]);
        store(second, PAGE, 78);
        assert_eq!(byte(&file, 3 * PAGE), 78);
        // What nobody may access moves too.
        let hidden = map(&file, 4, PROT_NONE);
        assert_eq!(moved(hidden, 4, 2, stays, ptr::null_mut()), Ok(hidden));
        let hidden = moved(hidden, 2, 6, may_move, ptr::null_mut()).unwrap();
        let hidden = moved(hidden, 6, 7, fixed, map(&file, 7, BOTH)).unwrap();
        // SAFETY: it is mapped.
        assert_eq!(unsafe { libc::mprotect(hidden.cast(), 7 * PAGE, PROT_READ) }, 0);
        assert_eq!(shown(hidden, 7), [1, 2, 3, 78, 5, 6, 7]);
        // What lies inside of that; and several pieces at once.
        let protect = |start: *mut u8, pages: usize, protection| {
            // SAFETY: it is mapped, and used as it may be.
            assert_eq!(unsafe { libc::mprotect(start.cast(), pages * PAGE, protection) }, 0);
        };
        let hidden = map(&file, 4, PROT_NONE);
        let inside = hidden.wrapping_add(PAGE);
        assert_eq!(moved(inside, 1, 1, stays, ptr::null_mut()), Ok(inside));
        let twice = moved(inside, 0, 1, may_move, ptr::null_mut()).unwrap();
        protect(hidden, 4, PROT_READ);
        protect(twice, 1, PROT_READ);
        assert_eq!((shown(hidden, 4), shown(twice, 1)), (vec![1, 2, 3, 78], vec![2]));
        let mixed = map(&file, 4, BOTH);
        protect(mixed.wrapping_add(PAGE), 1, PROT_NONE);
        assert_eq!(moved(mixed, 4, 4, may_move, ptr::null_mut()), Ok(mixed));
        assert_eq!(moved(mixed, 4, 3, stays, ptr::null_mut()), Ok(mixed));
        assert_eq!(moved(mixed, 3, 4, may_move, ptr::null_mut()), Err(libc::EFAULT));
        let elsewhere = map(&file, 1, PROT_NONE);
        assert_eq!(moved(mixed, 3, 1, fixed, elsewhere), Ok(elsewhere));
        assert_eq!(shown(elsewhere, 1), [1]);
        // A hint, and an address that is taken.
        let (hint, kind) = (hidden.wrapping_add(64 * PAGE), MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: nothing that is there is replaced.
        unsafe {
            assert_eq!(map_at(second, &file, (0, 1), BOTH, kind), Err(libc::EEXIST));
            let there = map_at(hint, &file, (0, 1), BOTH, MAP_SHARED).unwrap();
            let other = map_at(there, &file, (1, 1), BOTH, MAP_SHARED).unwrap();
            assert_eq!((load(there, 0), load(other, 0), there == other), (1, 2, false));
            let low = map_at(ptr::null_mut(), &file, (2, 1), BOTH, MAP_SHARED | libc::MAP_32BIT).unwrap();
            assert!(low.addr() < 1 << 32 && load(low, 0) == 3);
        }
    }
}

#[test]
fn mappings_move_as_the_kernels_do() {
    play_on_stage("moves");
}
