//! All ways to store leave the same bytes, and nothing beside them.

use proptest::prelude::*;

use super::{STREAM_SIZE_MIN, WriteBack, arch, portable};

/// Memory that starts at a line, as a mapping does.
#[repr(align(64))]
struct Lines([u8; 1024]);

type Stream = unsafe fn(*mut u8, *const u8, usize);
type StreamZeroes = unsafe fn(*mut u8, usize);

fn streamed(stream: Stream, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut memory = Lines([0xee; 1024]);
    // SAFETY: the strategies keep `at + bytes.len()` within the memory, and the size from the least on.
    unsafe { stream(memory.0.as_mut_ptr().add(at), bytes.as_ptr(), bytes.len()) };
    arch::fence();
    portable::fence();
    memory.0.to_vec()
}

fn zeroed(zeroes: StreamZeroes, at: usize, size: usize) -> Vec<u8> {
    let mut memory = Lines([0xee; 1024]);
    // SAFETY: as above.
    unsafe { zeroes(memory.0.as_mut_ptr().add(at), size) };
    arch::fence();
    memory.0.to_vec()
}

proptest! {
    #[test]
    fn streaming_is_copying(
        at in 0usize..512,
        bytes in prop::collection::vec(any::<u8>(), STREAM_SIZE_MIN..512),
        ahead in 0usize..8,
    ) {
        let bytes = &bytes[ahead.min(bytes.len() - STREAM_SIZE_MIN)..];
        let range = at..at + bytes.len();
        let mut expected = vec![0xee; 1024];
        expected[range.clone()].copy_from_slice(bytes);
        prop_assert_eq!(&streamed(arch::stream, at, bytes), &expected);
        prop_assert_eq!(&streamed(portable::stream, at, bytes), &expected);
        expected[range].fill(0);
        prop_assert_eq!(&zeroed(arch::stream_zeroes, at, bytes.len()), &expected);
        prop_assert_eq!(&zeroed(portable::stream_zeroes, at, bytes.len()), &expected);
    }

    #[test]
    fn write_back_changes_no_byte(at in 0usize..512, size in 0usize..512) {
        for &way in WriteBack::ALL.iter().filter(|way| way.is_supported()) {
            let memory = Lines([0xab; 1024]);
            // SAFETY: the instruction is supported, and the range lies within the memory.
            unsafe { way.lines(memory.0.as_ptr().add(at), size) };
            arch::fence();
            prop_assert!(memory.0.iter().all(|&byte| byte == 0xab));
        }
    }
}

#[test]
fn the_best_way_is_one_that_the_processor_has() {
    assert_eq!(WriteBack::best(), WriteBack::ALL.iter().copied().find(|way| way.is_supported()));
    assert!(WriteBack::best().is_none_or(WriteBack::is_supported));
    assert!(portable::WriteBack::ALL.is_empty());
}
