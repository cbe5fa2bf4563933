//! How much is taken.

mod common;

use std::sync::atomic::Ordering::SeqCst;

use common::{FakeFile, PAGE, addresses, mappings_within, number, region};
use lodefs_mapping::{Limits, Part, Region, Shown, What};

const MIB: usize = 1 << 20;

fn zeroes(region: &Region) -> u64 {
    region.parts().iter().filter(|part| part.shown == Shown::Zeroes).map(|part| part.size).sum()
}

/// Memory in use within a region, which is what the kernel counts.
fn memory(region: &Region) -> usize {
    let (wanted, mut is_within, mut sum) = (addresses(region), false, 0);
    for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        if let Some((start, _)) = line.split_once('-').filter(|(start, _)| !start.contains(':')) {
            is_within = usize::from_str_radix(start, 16).is_ok_and(|start| wanted.contains(&start));
        } else if let Some(size) = line.strip_prefix("Anonymous:").filter(|_| is_within) {
            sum += size.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10;
        }
    }
    sum
}

#[test]
fn zeroes_take_so_much_memory_and_no_more() {
    let file = FakeFile::new();
    let limits = Limits { zeroes: 4 * MIB, ..Limits::default() };
    let mapper = file.mapper_with(limits);
    let first = region(&mapper, 256);
    let second = region(&mapper, 8 * MIB as u64 / PAGE);
    for page in 0..256 {
        assert_eq!(number(&first, page).load(SeqCst), 0);
    }
    assert_eq!((zeroes(&first), memory(&first)), (MIB as u64, MIB));
    for page in 0..8 * MIB as u64 / PAGE {
        assert_eq!(number(&second, page).load(SeqCst), 0);
        assert!(zeroes(&first) + zeroes(&second) <= 4 * MIB as u64);
    }
    // The oldest first.
    assert_eq!((zeroes(&first), memory(&first)), (0, 0));
    assert_eq!(memory(&second) as u64, zeroes(&second));
    // In one answer as well.
    let all = Part { offset: 0, size: 8 * MIB as u64, what: What::Zeroes };
    assert!(second.install(0, &[all]).unwrap());
    assert!(memory(&second) <= 4 * MIB && zeroes(&second) > 0);
    number(&second, 0).store(1, SeqCst);
    assert_eq!(file.number_at(file.lock().places[&0]), 1);
}

#[test]
fn mappings_are_so_many_and_no_more() {
    let file = FakeFile::new();
    // None continues another.
    for page in 0..512 {
        file.lay_out(page..page + 1, 1000 - page);
    }
    let limits = Limits { mappings: 64, ..Limits::default() };
    let mapper = file.mapper_with(limits);
    let regions = [region(&mapper, 256), region(&mapper, 512)];
    for region in &regions {
        for page in 0..region.size() as u64 / PAGE {
            number(region, page).fetch_add(1, SeqCst);
            let count: usize = regions.iter().map(|region| mappings_within(addresses(region)).len()).sum();
            assert!(count <= 64 + 2, "{count} mappings");
        }
    }
    for page in 0..512 {
        assert_eq!(file.number_at(1000 - page), if page < 256 { 2 } else { 1 });
    }
    let all_at_once: Vec<_> = (0..512)
        .map(|page| Part { offset: page * PAGE, size: PAGE, what: What::Medium((1000 - page) * PAGE) })
        .collect();
    assert!(regions[1].install(0, &all_at_once).unwrap());
    assert!(mappings_within(addresses(&regions[1])).len() <= 64);
}

#[test]
fn parts_that_continue_each_other_are_one_mapping() {
    let file = FakeFile::new();
    file.lay_out(0..512, 7);
    let mapper = file.mapper();
    let region = region(&mapper, 512);
    // In an order in which most are neighbours of nothing at first.
    for i in 0..512 {
        number(&region, i * 37 % 512).store(1, SeqCst);
    }
    assert_eq!(region.parts().len(), 1);
    assert_eq!(mappings_within(addresses(&region)).len(), 1);
    region.recall(100 * PAGE, 50 * PAGE, 0);
    assert_eq!((region.parts().len(), mappings_within(addresses(&region)).len()), (3, 3));
    region.recall(0, u64::MAX, 0);
    assert_eq!((region.parts().len(), mappings_within(addresses(&region)).len()), (1, 1));
}
