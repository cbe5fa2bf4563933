//! Children.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use common::{FakeFile, PAGE, byte, in_child, number, region};
use lodefs_mapping::{Mapper, Shown, set_fork_hook};

/// The mapper that the hook is to serve in a child, and what it is to be given there.
static SERVED: Mutex<Option<(Arc<Mapper>, Arc<FakeFile>)>> = Mutex::new(None);

/// One test at a time: children find the locks above as they were.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let is_first = set_fork_hook(|| {
            let served = SERVED.lock().unwrap();
            if let Some((mapper, file)) = &*served {
                file.lock().epoch = 0;
                mapper.after_fork_in_child(file.medium(true), file.clone()).unwrap();
            }
        });
        assert!(is_first);
    });
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file whose pages are at the same places for the parent, and for a child, which has another pager.
fn shared_file() -> (Arc<FakeFile>, Arc<FakeFile>, Arc<Mapper>) {
    let file = FakeFile::new();
    file.lay_out(0..8, 10);
    let for_child = FakeFile::on(file.medium.try_clone().unwrap());
    for_child.lay_out(0..8, 10);
    let mapper = file.mapper();
    (file, for_child, mapper)
}

#[test]
fn parent_and_child_reach_the_medium() {
    let _alone = alone();
    let (file, for_child, mapper) = shared_file();
    let region = region(&mapper, 8);
    number(&region, 0).store(1, SeqCst);
    region.recall(7 * PAGE, PAGE, 3);
    *SERVED.lock().unwrap() = Some((mapper, for_child.clone()));
    let result = in_child(|| {
        let is_new = region.parts().iter().all(|part| part.shown == Shown::Armed) && region.epoch() == 0;
        assert_eq!(number(&region, 0).fetch_add(1, SeqCst), 1);
        number(&region, 1).store(7, SeqCst);
        region.recall(0, PAGE, 1);
        for_child.lock().epoch = 1;
        assert_eq!(number(&region, 0).load(SeqCst), 2);
        // And their children.
        let grandchild = in_child(|| i32::from(number(&region, 1).load(SeqCst) != 7));
        i32::from(!is_new || grandchild != 0)
    });
    *SERVED.lock().unwrap() = None;
    assert_eq!(result, 0);
    assert_eq!((number(&region, 0).load(SeqCst), file.number_at(11)), (2, 7));
    file.lock().epoch = 3;
    assert_eq!(number(&region, 1).load(SeqCst), 7);
}

#[test]
fn a_child_that_is_not_served_has_nothing() {
    let _alone = alone();
    let (_file, _, mapper) = shared_file();
    let region = region(&mapper, 8);
    number(&region, 0).store(1, SeqCst);
    assert_eq!(in_child(|| i32::from(number(&region, 0).load(SeqCst) == 1)), -libc::SIGSEGV);
    let result = in_child(|| {
        assert!(region.install(0, &[]).is_err());
        assert!(!mapper.serves_system_calls());
        region.recall(0, PAGE, 1);
        let addresses = common::addresses(&region);
        // Nobody else gets the addresses until the region goes.
        assert_eq!(common::mappings_within(addresses.clone()).len(), 1);
        region.unmap(0, u64::MAX).unwrap();
        i32::try_from(common::mappings_within(addresses).len()).unwrap()
    });
    assert_eq!(result, 0);
}

/// Whoever forks without the C library's help gets nothing, either: neither the medium, nor zeroes where a file is.
#[test]
fn nothing_is_inherited_in_any_way() {
    let _alone = alone();
    let (_file, _, mapper) = shared_file();
    let region = region(&mapper, 10);
    // The medium, zeroes, what fails, and what is armed.
    assert_eq!(number(&region, 0).load(SeqCst) | number(&region, 8).load(SeqCst), 0);
    region.fail(0, 9 * PAGE, PAGE);
    for page in [0, 1, 8, 9] {
        let address = number(&region, page);
        // SAFETY: the child only reads a page, and ends.
        let child = unsafe {
            match libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
                0 => {
                    address.load(SeqCst);
                    libc::_exit(0)
                }
                child => i32::try_from(child).unwrap(),
            }
        };
        assert_eq!(common::wait_for(child), -libc::SIGSEGV, "page {page}");
    }
}

#[test]
fn programs_are_started_meanwhile() {
    let _alone = alone();
    let (file, for_child, mapper) = shared_file();
    let region = region(&mapper, 8);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let counter = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(SeqCst) {
                number(&region, 0).fetch_add(1, SeqCst);
                region.recall(0, PAGE, 0);
                count += 1;
            }
            count
        });
        *SERVED.lock().unwrap() = Some((mapper, for_child));
        for _ in 0..10 {
            // By vfork, or the like.
            assert!(Command::new("/bin/true").status().unwrap().success());
            // By fork.
            assert_eq!(in_child(|| i32::from(number(&region, 1).fetch_add(1, SeqCst) > 1000)), 0);
        }
        *SERVED.lock().unwrap() = None;
        is_over.store(true, SeqCst);
        let count = counter.join().unwrap();
        assert_eq!(file.number_at(10), count);
    });
    assert_eq!(file.number_at(11), 10);
}

#[test]
fn many_threads_are_served_in_a_child() {
    let _alone = alone();
    let (file, for_child, mapper) = shared_file();
    let region = region(&mapper, 8);
    *SERVED.lock().unwrap() = Some((mapper, for_child));
    let result = in_child(|| {
        thread::scope(|scope| {
            for i in 0..8 {
                let region = &region;
                scope.spawn(move || {
                    for page in 0..8 {
                        byte(region, page * PAGE as usize + i).store(1, SeqCst);
                    }
                });
            }
        });
        0
    });
    *SERVED.lock().unwrap() = None;
    assert_eq!(result, 0);
    for place in 10..18 {
        assert_eq!(file.number_at(place), 0x0101_0101);
    }
}

/// Forks find everything in order, whatever goes on: faults, recalls, regions that come and go.
#[test]
fn forks_in_the_midst_of_it() {
    let _alone = alone();
    let (_file, for_child, mapper) = shared_file();
    let stays = region(&mapper, 8);
    *SERVED.lock().unwrap() = Some((Arc::clone(&mapper), for_child));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for i in 0..2 {
            let (stays, mapper, is_over) = (&stays, &mapper, &is_over);
            scope.spawn(move || {
                while !is_over.load(SeqCst) {
                    let comes = region(mapper, 10);
                    for page in 0..8 {
                        byte(stays, page * PAGE as usize + i).fetch_add(1, SeqCst);
                        byte(&comes, page * PAGE as usize + 2 + i).fetch_add(1, SeqCst);
                    }
                    number(&comes, 9).load(SeqCst);
                    stays.recall(i as u64 * 3 * PAGE, 2 * PAGE, 0);
                }
            });
        }
        for turn in 0..30 {
            let result = in_child(|| {
                stays.recall(0, u64::MAX, 0);
                let at = 4 * PAGE as usize + 8;
                i32::from(byte(&stays, at).fetch_add(1, SeqCst) != turn)
            });
            assert_eq!(result, 0, "turn {turn}");
        }
        is_over.store(true, SeqCst);
    });
    *SERVED.lock().unwrap() = None;
}
