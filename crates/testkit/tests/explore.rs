//! Crashes of the engine at every point of short workloads: what is there after recovery is what had returned.

use lodefs_pmem::Domain;
use lodefs_testkit::explore::{Explorer, Failure, Request, Stage, Thoroughness, Workload, representatives};

/// Few images for each crash point: every fence, all or nothing or one line of what is pending, and some at random.
const QUICK: Thoroughness =
    Thoroughness { exhaustive_max: 8, singles_max: 4, random: 4, stores_between: 4, recoveries: 2 };

#[test]
fn every_single_operation_survives_every_crash() {
    let mut explorer = Explorer::default();
    for domain in Domain::ALL {
        for failure in Failure::survived_by(domain) {
            for (number, operation) in representatives().into_iter().enumerate() {
                let workload = Workload {
                    domain,
                    size: 1 << 20,
                    stage: Stage::Furnished,
                    fillers: 0,
                    threads: false,
                    ticks: 0,
                    closes: true,
                    operations: vec![operation.clone()],
                };
                let seed = number as u64;
                let request = Request { failure: *failure, thoroughness: QUICK, seed, drop_at: None };
                if let Err(violation) = explorer.explore(&workload, request) {
                    panic!("{domain} {failure:?} {operation:?}: {violation}");
                }
            }
        }
    }
    println!("{:?}", explorer.statistics());
}
