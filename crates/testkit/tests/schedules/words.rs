//! Words of files that programs append to, on a volume on which nothing can be changed any more.

use std::sync::Arc;

use lodefs_core::{DaxPolicy, FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, SetAttr};
use lodefs_pmem::Domain;
use lodefs_testkit::memory_file::MemoryFile;
use shuttle::Runner;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use super::{Answers, Interrupt, config, counts};

const BLOCK: u64 = 4096;

fn create(fs: &Arc<Fs>, name: &str) -> Node {
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    fs.create(&fs.root().unwrap(), name.as_bytes(), &new).unwrap()
}

/// The medium fails while one program has a word taken, and others end, whose files are then read from the volume anew, with the words
/// that have their sizes.
fn look_while_a_word_is_taken() {
    let file = Arc::new(MemoryFile::new(1 << 20).unwrap());
    let open = || file.open(Domain::MemoryController).unwrap();
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let options = OpenOptions { dax: DaxPolicy::Always, ..OpenOptions::default() };
    let fs = Fs::open(open(), &options).unwrap();
    // More than are kept in memory when nobody uses them.
    let others: Vec<String> = (0..8).map(|number| format!("other {number}")).collect();
    others.iter().for_each(|name| drop(create(&fs, name)));
    let ended = ["a", "b", "c", "d"].map(|name| {
        let node = create(&fs, name);
        let lease = fs.lease_data(&node, Arc::new(Answers), true, 1).unwrap();
        lease.reserve(0, BLOCK, |_| {}).unwrap();
        (name, node, lease)
    });
    // One file has the end of the volume.
    let (room, full) = (create(&fs, "room"), create(&fs, "full"));
    fs.write(&room, 0, &vec![0; 64 * BLOCK as usize], false).unwrap();
    let blocks =
        (0..).take_while(|block| fs.write(&full, block * BLOCK, &[1; BLOCK as usize], false).is_ok()).count();
    fs.set_attr(&room, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    let node = create(&fs, "appended");
    let lease = fs.lease_data(&node, Arc::new(Answers), true, 2).unwrap();
    let (looking, cut) = (Arc::clone(&fs), Arc::clone(&file));
    let threads = [
        // Refused, when it has been noticed.
        shuttle::thread::spawn(move || drop(lease.reserve(0, BLOCK, |_| {}))),
        shuttle::thread::spawn(move || {
            cut.cut(32 * BLOCK).unwrap();
            let is_written = |block| looking.write(&full, block * BLOCK, &[2; BLOCK as usize], false).is_ok();
            assert!(!(0..blocks as u64).all(is_written), "it has been noticed");
            drop(full);
            let names = ended.map(|(name, node, lease)| {
                drop((lease, node));
                name
            });
            let root = looking.root().unwrap();
            for name in others.iter().map(String::as_str).chain(names) {
                let found = looking.lookup(&root, name.as_bytes()).unwrap();
                assert_eq!(looking.attr(&found).unwrap().size, 0);
            }
        }),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn files_are_read_anew_while_a_word_is_taken_on_a_medium_that_fails() {
    let (plans, schedules) = counts();
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let config = config(shuttle::FailurePersistence::Print);
        Runner::new(scheduler, config).run(look_while_a_word_is_taken)
    };
    run(Box::new(RandomScheduler::new_from_seed(0, plans as usize * schedules)));
    run(Box::new(PctScheduler::new_from_seed(0, 3, plans as usize * schedules)));
    println!("taken at {} moments", run(Box::new(Interrupt::default())));
}
