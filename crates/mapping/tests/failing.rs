//! Pages that cannot be had.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use common::{FakeFile, in_child, number, region};
use lodefs_mapping::{Region, SIGNAL_TIME, Shown};

/// Reads from, or writes to, a descriptor with the region's first bytes as the buffer.
fn by_system_call(region: &Region, write: bool) -> io::Result<isize> {
    let pipe = &mut [0; 2];
    // SAFETY: the buffers are mapped, and are not used otherwise meanwhile; the pipe has room for what is written.
    unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        assert_eq!(libc::write(pipe[1], c"abcd".as_ptr().cast(), 4), 4);
        let buffer = region.base().as_ptr().cast();
        let result = if write { libc::write(pipe[1], buffer, 4) } else { libc::read(pipe[0], buffer, 4) };
        let error = *libc::__errno_location();
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        if result < 0 { Err(io::Error::from_raw_os_error(error)) } else { Ok(result) }
    }
}

fn shrunk_to_nothing() -> (Arc<FakeFile>, Arc<Region>) {
    let file = FakeFile::new();
    file.lay_out(0..1, 5);
    file.lock().end = 0;
    let region = region(&file.mapper(), 2);
    (file, region)
}

#[test]
fn a_touch_raises_a_signal() {
    let ended = in_child(|| {
        let (_file, region) = shrunk_to_nothing();
        number(&region, 1).load(SeqCst);
        0
    });
    assert_eq!(ended, -libc::SIGBUS);
    let ended = in_child(|| {
        let (_file, region) = shrunk_to_nothing();
        number(&region, 0).store(1, SeqCst);
        0
    });
    assert_eq!(ended, -libc::SIGBUS);
}

#[test]
fn the_signal_names_the_address() {
    let ended = in_child(|| {
        extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
            // SAFETY: the kernel passes a valid one, with an address; ending the process may be done in a handler.
            unsafe {
                let is_named = (*info).si_code == libc::BUS_ADRERR && (*info).si_addr().addr() & 4095 == 4;
                libc::_exit(if is_named { 42 } else { 1 });
            }
        }
        // SAFETY: all zero is a valid value, and the handler has the signature that SA_SIGINFO demands.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
        let (_file, region) = shrunk_to_nothing();
        common::byte(&region, 4).load(SeqCst);
        0
    });
    assert_eq!(ended, 42);
}

/// The file becomes longer, and the pager tells whoever has met its end.
fn grow(file: &FakeFile, region: &Region, end: u64) {
    let epoch = region.epoch() + 1;
    {
        let mut state = file.lock();
        (state.end, state.epoch) = (end, epoch);
    }
    region.recall(0, u64::MAX, epoch);
}

#[test]
fn a_system_call_fails_and_works_after_growth() {
    let (file, region) = shrunk_to_nothing();
    for write in [false, true] {
        let error = by_system_call(&region, write).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }
    grow(&file, &region, 2);
    assert_eq!(by_system_call(&region, false).unwrap(), 4);
    assert_eq!(file.number_at(5), u32::from_ne_bytes(*b"abcd"));
    assert_eq!(by_system_call(&region, true).unwrap(), 4);
}

#[test]
fn pages_are_asked_for_again_after_a_while() {
    let (file, region) = shrunk_to_nothing();
    by_system_call(&region, true).unwrap_err();
    assert_eq!(region.parts()[0].shown, Shown::Failing);
    file.lock().end = 2;
    while region.parts()[0].shown == Shown::Failing {
        std::thread::sleep(SIGNAL_TIME);
    }
    number(&region, 0).store(6, SeqCst);
    assert_eq!(file.number_at(5), 6);
}

#[test]
fn what_is_mapped_does_not_fail() {
    let file = FakeFile::new();
    file.lay_out(0..1, 5);
    let mapper = file.mapper();
    let region = region(&mapper, 2);
    number(&region, 0).store(1, SeqCst);
    region.fail(0, 0, u64::MAX);
    assert_eq!(number(&region, 0).load(SeqCst), 1);
    assert_eq!(region.parts()[1].shown, Shown::Failing);
    // It was decided before a recall.
    region.recall(0, u64::MAX, 1);
    region.fail(0, 0, u64::MAX);
    assert_eq!(region.parts()[0].shown, Shown::Armed);
}

#[test]
fn there_is_room_for_zeroes_but_not_for_a_block() {
    let file = FakeFile::new();
    let mapper = file.mapper();
    let region = region(&mapper, 2);
    assert_eq!(number(&region, 0).load(SeqCst), 0);
    file.lock().end = 0;
    assert_eq!(by_system_call(&region, false).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    grow(&file, &region, 2);
    assert_eq!(number(&region, 0).load(SeqCst), 0);
    assert_eq!(by_system_call(&region, false).unwrap(), 4);
}

#[test]
fn after_the_end_every_touch_raises_a_signal() {
    let ended = in_child(|| {
        let file = FakeFile::new();
        file.lay_out(0..1, 5);
        let mapper = file.mapper();
        let region = region(&mapper, 2);
        number(&region, 0).store(1, SeqCst);
        mapper.shut_down();
        assert_eq!(by_system_call(&region, true).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert!(
            Region::new(&mapper, &lodefs_mapping::Request { offset: 0, size: 1, writable: true }).is_err()
        );
        number(&region, 0).load(SeqCst);
        0
    });
    assert_eq!(ended, -libc::SIGBUS);
}

#[test]
fn whoever_waits_at_the_end_gets_a_signal() {
    let ended = in_child(|| {
        let file = FakeFile::new();
        file.lock().is_silent = true;
        let mapper = file.mapper();
        let region = region(&mapper, 2);
        std::thread::scope(|scope| {
            scope.spawn(|| number(&region, 0).load(SeqCst));
            while file.faults.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            mapper.shut_down();
        });
        0
    });
    assert_eq!(ended, -libc::SIGBUS);
}
