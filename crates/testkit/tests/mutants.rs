//! The explorer notices if a flush, a fence or a sync is missing, whichever it is.

use std::collections::{BTreeMap, BTreeSet};

use lodefs_pmem::Domain;
use lodefs_testkit::crash::Call;
use lodefs_testkit::explore::{
    Explorer, Failure, Request, Thoroughness, Violation, Workload, representatives,
};

/// Long workloads that are tried on each mutant.
const RANDOM: u64 = 16;
/// Operations in each of them.
const LONG: usize = 100;

/// The saved bitmap needs no order: each of its blocks names the update of the state it was saved for, and has a checksum.
/// One that did not get to the medium is not believed, and the bitmap is made anew.
const PROVES_ITSELF: &str = "crates/core/src/bitmap.rs";

/// Workloads that make something durable in every way there is.
fn workloads(domain: Domain) -> Vec<Workload> {
    let random = (0..RANDOM).map(|seed| Workload::random(domain, seed, LONG));
    let single = representatives().into_iter().map(|operation| Workload::furnished(domain, vec![operation]));
    random.chain(single).collect()
}

/// Explores what the power takes away; on a `page` volume also what happens if it fails while a process recovers from the death of
/// another.
fn explore(explorer: &mut Explorer, workload: &Workload, without: Option<Call>) -> Result<(), Violation> {
    let thoroughness = match without {
        Some(_) => Thoroughness::THOROUGH,
        None => Thoroughness { recoveries: 1, ..Thoroughness::QUICKEST },
    };
    Failure::survived_by(workload.domain).iter().try_for_each(|failure| {
        explorer.explore(workload, Request { failure: *failure, thoroughness, seed: 0, drop_at: without })
    })
}

/// Leaves out each call that makes something durable on a domain. Returns how many of them were missed, and tells of the
/// others.
fn check_all(domain: Domain) -> usize {
    let mut explorer = Explorer::default();
    let workloads = workloads(domain);
    let mut users: BTreeMap<Call, BTreeSet<usize>> = BTreeMap::new();
    for (number, workload) in workloads.iter().enumerate() {
        for call in explorer.durability_calls(workload).unwrap() {
            users.entry(call).or_default().insert(number);
        }
    }
    // Any crash can lead to a call that only recovery makes.
    explore(&mut explorer, &workloads[0], None).unwrap();
    for call in explorer.recovery_calls() {
        users.entry(*call).or_insert_with(|| (0..workloads.len()).collect());
    }
    let (mut missed, mut survivors) = (0, Vec::new());
    for (call, users) in users {
        if call.location.file().ends_with(PROVES_ITSELF) {
            continue;
        }
        match users.iter().find_map(|user| explore(&mut explorer, &workloads[*user], Some(call)).err()) {
            Some(violation) => {
                missed += 1;
                let first_line = violation.text.lines().next().unwrap_or_default();
                println!("{domain} without {call}: {first_line}");
            }
            None => survivors.push(call.to_string()),
        }
    }
    assert!(survivors.is_empty(), "{domain}: nothing is wrong without {survivors:?}");
    missed
}

#[test]
fn nothing_that_makes_durable_can_be_left_out() {
    let domains = [Domain::MemoryController, Domain::CpuCache, Domain::Page];
    let missed: usize = domains.into_iter().map(check_all).sum();
    assert!(missed >= 10, "only {missed} calls make anything durable?");
}
