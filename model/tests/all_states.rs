//! All states of the protocol, and what is wrong with its variants.

use lodefs_model::{Action, Protocol, Variant};
use stateright::{Checker as _, HasDiscoveries, Model as _, Path};

fn protocol(variant: Variant) -> Protocol {
    Protocol {
        variant,
        clients: 2,
        blocks: 2,
        writes: 1,
        truncations: 1,
        switches: 2,
        failures: 1,
        synchronous: None,
    }
}

/// Looks at all states; how many there are.
fn check(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn nothing_is_wrong_in_any_state() {
    println!("{} states", check(protocol(Variant::Right)));
}

#[test]
fn nothing_is_wrong_with_synchronous_mappings() {
    println!("{} states", check(Protocol { synchronous: Some(0), ..protocol(Variant::Right) }));
}

/// The shortest way to something wrong, if there is one.
fn fault_of(protocol: Protocol) -> Option<(&'static str, Vec<Action>)> {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let wrong = |(name, path): (&'static str, _)| {
        let is_wrong = checker.discovery(name).is_some() && !REACHED.contains(&name);
        is_wrong.then(|| (name, Path::into_actions(path)))
    };
    checker.discoveries().into_iter().find_map(wrong)
}

/// What is to be reached, which is nothing wrong.
const REACHED: [&str; 5] = [
    "both have mapped the block",
    "a block is in quarantine",
    "somebody was given up on",
    "buffered, and mapped",
    "direct again",
];

#[test]
fn each_wrong_way_is_noticed() {
    let table = [
        (Variant::KindAtFault, "one copy"),
        (Variant::LateInstall, "no stale zeroes"),
        (Variant::EarlyReuse, "nobody else's block"),
        (Variant::ZeroesStay, "no stale zeroes"),
        (Variant::ZeroesOverBlock, "no stale zeroes"),
        (Variant::CacheStays, "one copy"),
        (Variant::SyncRecalled, "a synchronous mapping stays"),
    ];
    for (variant, expected) in table {
        let (name, way) = fault_of(Protocol { synchronous: Some(0), ..protocol(variant) })
            .unwrap_or_else(|| panic!("{variant:?}: nothing is wrong"));
        println!("{variant:?}: {name}: {way:?}");
        assert_eq!(name, expected, "{variant:?}");
    }
}
