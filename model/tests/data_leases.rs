//! All states of the protocol of data leases, and what is wrong with its variants.

use lodefs_model::data::{Action, DataProtocol, Variant};
use stateright::{Checker as _, HasDiscoveries, Model as _, Path};

fn protocol(variant: Variant) -> DataProtocol {
    DataProtocol { variant, programs: 2, writes: 2, truncations: 1, failures: 1 }
}

#[test]
fn nothing_is_wrong_in_any_state() {
    let checker = protocol(Variant::Right).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

/// What is to be reached, which is nothing wrong.
const REACHED: [&str; 4] = [
    "appended by itself",
    "a block is in quarantine",
    "an append was given up on",
    "what was loaded does not count",
];

/// The shortest way to something wrong, if there is one.
fn fault_of(protocol: DataProtocol) -> Option<(&'static str, Vec<Action>)> {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut wrong = checker.discoveries().into_iter().filter(|(name, _)| !REACHED.contains(name));
    wrong.next().map(|(name, path)| (name, Path::into_actions(path)))
}

#[test]
fn each_wrong_way_is_noticed() {
    const TOLD: &str = "what was told is there";
    const READ: &str = "nothing is read that was never there";
    const OTHERS: &str = "nobody else's block";
    for (variant, expected) in [
        (Variant::LooksOnce, READ),
        (Variant::AnswersAtOnce, OTHERS),
        (Variant::NoMark, TOLD),
        (Variant::WordFirst, TOLD),
        (Variant::EarlyReuse, OTHERS),
    ] {
        let (name, way) =
            fault_of(protocol(variant)).unwrap_or_else(|| panic!("{variant:?}: nothing is wrong"));
        println!("{variant:?}: {name}: {way:?}");
        assert_eq!(name, expected, "{variant:?}");
    }
}
