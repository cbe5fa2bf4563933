//! The engine against the model, on every domain. Much longer runs are what `modelcheck --engine` is for.

use lodefs_pmem::Domain;
use lodefs_testkit::check::Strictness;
use lodefs_testkit::engine::EngineCheck;
use lodefs_testkit::model::Leniency;
use lodefs_testkit::operation::{Node, Object, xflag};
use lodefs_testkit::{Generator, Operation, Profile};

/// Runs sequences on a volume of `size` bytes.
fn run(domain: Domain, size: u64, sequences: u64, out_of_space: bool) {
    let leniency = Leniency { out_of_space, ..Profile::LODEFS.leniency };
    let strictness = Strictness { leniency, ..Strictness::default() };
    let mut reopened = 0;
    for seed in 0..sequences {
        let operations: Vec<_> = Generator::new(seed, Profile::LODEFS).take(100).collect();
        let check = EngineCheck { domain, size, reopen_every: 40, seed, strictness };
        match check.run(&operations) {
            Ok(statistics) => reopened += statistics.reopened,
            Err(violation) => panic!("{domain}, seed {seed}: {violation}"),
        }
    }
    assert!(reopened > sequences, "{reopened} reopenings are too few");
}

#[test]
fn volatile_volumes_agree_with_the_model() {
    run(Domain::Volatile, 8 << 20, 50, false);
}

#[test]
fn volumes_behind_a_memory_controller_agree_with_the_model() {
    run(Domain::MemoryController, 16 << 20, 50, false);
}

#[test]
fn volumes_behind_a_saved_cache_agree_with_the_model() {
    run(Domain::CpuCache, 16 << 20, 50, false);
}

#[test]
fn volumes_in_pages_agree_with_the_model() {
    run(Domain::Page, 40 << 20, 50, false);
}

#[test]
fn tiny_volumes_agree_with_the_model_but_for_space() {
    for domain in Domain::ALL {
        run(domain, 1 << 20, 30, true);
    }
}

/// What was wrong once.
#[test]
fn an_owner_may_be_left_as_it_is_on_an_immutable_file() {
    let object = || Object::Path("a".into());
    let operations = [
        Operation::Mknod { path: "a".into(), mode: 0o4755, node: Node::File },
        Operation::SetXflags { object: object(), xflags: xflag::IMMUTABLE },
        Operation::Chown { object: object(), uid: None, gid: None },
    ];
    let strictness = Strictness::default();
    let check =
        EngineCheck { domain: Domain::Volatile, size: 1 << 20, reopen_every: 10, seed: 0, strictness };
    assert!(check.run(&operations).is_ok());
}
