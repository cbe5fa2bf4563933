//! Where regions are, and what is left of them.

mod common;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use common::{FakeFile, PAGE, PAGES, addresses, in_child, mappings_within, number, region};
use lodefs_mapping::{Mapper, Part, Region, Request, Shown, What};
use rustix::fs::OFlags;

const HUGE: u64 = 2 << 20;

/// A file in a file system that gives huge pages to whatever it can.
fn on_huge_pages() -> File {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "huge", "always").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let mounted =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(&mounted, "medium", flags, 0o600.into()).unwrap())
}

#[test]
fn huge_pages_are_mapped_as_such() {
    let file = FakeFile::on(on_huge_pages());
    rustix::fs::fallocate(&file.medium, rustix::fs::FallocateFlags::empty(), 0, PAGES * PAGE).unwrap();
    let mapper = file.mapper();
    // The file begins somewhere, and is laid out so that huge pages are possible.
    let offset = 3 * HUGE + 5 * PAGE;
    let size = 3 * HUGE as usize;
    let region = Region::new(&mapper, &Request { offset, size, writable: true }).unwrap();
    let what = What::Medium(7 * HUGE + 5 * PAGE);
    assert!(region.install(0, &[Part { offset, size: size as u64, what }]).unwrap());
    for page in 0..size as u64 / PAGE {
        number(&region, page).store(1, SeqCst);
    }
    let start = format!("{:x}-", region.base().addr());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_region: Vec<_> = smaps.lines().skip_while(|line| !line.starts_with(&start)).take(30).collect();
    let huge = of_region.iter().find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
    assert_eq!(huge.trim(), "4096 kB", "of 6 MiB, two pages are whole: {of_region:#?}");
}

#[test]
fn regions_can_be_at_an_address() {
    let file = FakeFile::new();
    file.lay_out(0..8, 0);
    let mapper = file.mapper();
    let request = Request { offset: 0, size: 4 * PAGE as usize, writable: true };
    let first = Region::new(&mapper, &request).unwrap();
    let address = first.base().addr().get();
    assert!(Region::new_at(&mapper, &request, address).is_err());
    assert!(Region::new_at(&mapper, &request, address + 1).is_err());
    first.unmap(0, u64::MAX).unwrap();
    let again = Region::new_at(&mapper, &request, address).unwrap();
    assert_eq!(again.base().addr().get(), address);
    number(&again, 0).store(4, SeqCst);
    // In place of its second half, and of what is behind.
    // SAFETY: nobody uses what was there any more.
    let over = unsafe { Region::new_over(&mapper, &request, address + 2 * PAGE as usize) }.unwrap();
    assert_eq!(number(&over, 0).load(SeqCst), 4);
    assert_eq!((number(&again, 0).load(SeqCst), again.parts().last().unwrap().shown), (4, Shown::Unmapped));
    again.recall(0, u64::MAX, 1);
    drop(again);
    assert_eq!((number(&over, 0).load(SeqCst), number(&over, 3).load(SeqCst)), (4, 0));
}

#[test]
fn what_was_unmapped_is_never_touched_again() {
    let file = FakeFile::new();
    file.lay_out(0..8, 0);
    let mapper = file.mapper();
    let region = region(&mapper, 8);
    number(&region, 2).store(1, SeqCst);
    region.unmap(2 * PAGE, 3 * PAGE).unwrap();
    let hole = addresses(&region).start + 2 * PAGE as usize..addresses(&region).start + 5 * PAGE as usize;
    let all = Part { offset: 0, size: 8 * PAGE, what: What::Medium(0) };
    assert!(region.install(0, &[all]).unwrap());
    region.fail(0, 0, u64::MAX);
    region.recall(0, u64::MAX, 1);
    let not_ours = |line: &String| !line.contains("memfd:");
    assert!(mappings_within(hole).iter().all(not_ours));
    let shown: Vec<_> = region.parts().iter().map(|part| (part.offset / PAGE, part.shown)).collect();
    assert_eq!(shown, [(0, Shown::Armed), (2, Shown::Unmapped), (5, Shown::Armed)]);
    file.lock().epoch = 1;
    number(&region, 5).store(1, SeqCst);
    assert_eq!(in_child(|| i32::from(number(&region, 2).load(SeqCst) == 0)), -libc::SIGSEGV);
}

#[test]
fn nothing_is_left_of_a_region() {
    // Where no other thread maps anything meanwhile.
    assert_eq!(in_child(|| (0..20).map(|_| map_and_drop()).sum()), 0);
}

/// How many mappings are left.
fn map_and_drop() -> i32 {
    let file = FakeFile::new();
    file.lay_out(0..64, 0);
    let mapper = file.mapper();
    let region = region(&mapper, 128);
    for page in (0..128).step_by(2) {
        number(&region, page).load(SeqCst);
    }
    region.recall(9 * PAGE, 20 * PAGE, 0);
    region.fail(0, 70 * PAGE, PAGE);
    let addresses = addresses(&region);
    // A thread that has just reported a fault may still know of it.
    region.unmap(0, u64::MAX).unwrap();
    i32::try_from(mappings_within(addresses).len()).unwrap()
}

/// Whoever waits for a page of a region that goes gets what he would get from any address where nothing is.
#[test]
fn regions_go_while_others_touch_them() {
    let ended = in_child(|| {
        let file = FakeFile::new();
        file.lock().is_silent = true;
        let mapper = file.mapper();
        let region = region(&mapper, 2);
        let page = region.base().cast::<std::sync::atomic::AtomicU32>();
        let address = page.addr().get();
        let toucher = thread::spawn(move || {
            // SAFETY: not safe at all: the process is expected to end here.
            unsafe { std::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
        });
        while file.faults.load(SeqCst) == 0 {
            thread::yield_now();
        }
        region.unmap(0, u64::MAX).unwrap();
        i32::from(toucher.join().is_ok())
    });
    assert_eq!(ended, -libc::SIGSEGV);
}

#[test]
fn regions_come_and_go_while_others_are_touched() {
    let file = FakeFile::new();
    file.lay_out(0..16, 0);
    let mapper = file.mapper();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let region = region(&mapper, 16);
                    (0..16).for_each(|page| {
                        number(&region, page).fetch_add(1, SeqCst);
                    });
                }
            });
        }
        let stays = region(&mapper, 16);
        for turn in 0..200 {
            number(&stays, turn % 16).fetch_add(1, SeqCst);
            stays.recall(0, u64::MAX, 0);
        }
        is_over.store(true, SeqCst);
    });
    assert!(file.number_at(0) >= 200 / 16);
}

#[test]
fn mappers_go_with_their_threads() {
    let threads = || {
        let mut count = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let name = std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
            count += usize::from(name.starts_with("lodefs:"));
        }
        count
    };
    let result = in_child(|| {
        let file = FakeFile::new();
        let mapper: std::sync::Arc<Mapper> = file.mapper();
        let region = region(&mapper, 1);
        assert_eq!(number(&region, 0).load(SeqCst), 0);
        assert_eq!(threads(), 2);
        drop(mapper);
        drop(region);
        while threads() > 0 {
            thread::yield_now();
        }
        0
    });
    assert_eq!(result, 0);
}
