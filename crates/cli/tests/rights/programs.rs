//! What the kernel enforces: as whom a program with set-id bits runs after somebody has changed it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::operation::{By, Operation};
use super::person::{Actor, GROUP, OWNER, PEOPLE, STRANGER};
use super::stage::Stage;
use super::{open, stage};

/// A program that prints as whom it runs.
const PROGRAM: &str = "/usr/bin/id";
const MODES: [u32; 4] = [0o4777, 0o2777, 0o6777, 0o2767];

/// What `id` prints when the stranger runs it, or why the stranger cannot.
fn run(place: &Path, stranger: &Actor) -> String {
    let path = place.join("f");
    stranger.run(move || {
        let output = Command::new(path).output();
        output.map_or_else(
            |error| error.kind().to_string(),
            |output| String::from_utf8_lossy(&output.stdout).into(),
        )
    })
}

fn make(place: &Path, mode: u32, is_direct: bool) {
    fs::create_dir(place).unwrap();
    if is_direct {
        stage::make_direct(place);
    }
    for name in ["f", "g"] {
        fs::copy(PROGRAM, place.join(name)).unwrap();
        chown(place.join(name), Some(OWNER), Some(GROUP)).unwrap();
    }
    fs::set_permissions(place.join("f"), fs::Permissions::from_mode(mode)).unwrap();
}

/// The program before and after somebody has changed it; what came of the change.
fn change(
    place: &Path,
    operation: Operation,
    actor: &Actor,
    stranger: &Actor,
) -> (String, Result<i64, i32>, String) {
    let before = run(place, stranger);
    let needs = operation.needs_descriptor();
    let file = if needs { open(place, "f", operation.flags_of_descriptor()) } else { None };
    let other = if needs { open(place, "g", libc::O_RDONLY) } else { None };
    let given = [&file, &other].map(|file| file.as_ref().map_or(-1, std::os::fd::AsRawFd::as_raw_fd));
    let at = place.to_owned();
    let result = actor.run(move || operation.perform(&at, given));
    // A file that is open to be written is not run.
    drop((file, other));
    (before, result, run(place, stranger))
}

#[test]
fn a_program_that_was_changed_runs_as_whom_it_does_on_xfs() {
    let Some(stage) = Stage::new() else { return };
    let size = i64::try_from(fs::metadata(PROGRAM).unwrap().len()).unwrap();
    let mut changes =
        vec![Operation::Truncate(size), Operation::Chown(u32::MAX, 7), Operation::CopyRange(By::Opening)];
    for by in [By::Opening, By::Descriptor] {
        changes.extend([
            Operation::Append(by),
            Operation::Ftruncate(by, size + 1),
            Operation::Fallocate(by, 1),
        ]);
    }
    let people = PEOPLE.iter().filter(|person| !person.name.starts_with("root without"));
    let actors: Vec<Actor> = people.map(|person| Actor::new(*person)).collect();
    let stranger = actors.iter().find(|actor| actor.person.uid == STRANGER).unwrap();
    let mut differences = Vec::new();
    for is_direct in [true, false] {
        for mode in MODES {
            for &operation in &changes {
                for actor in &actors {
                    let [ours, theirs] = stage.sides().map(|side| {
                        let place = side.join("case");
                        make(&place, mode, is_direct);
                        let outcome = change(&place, operation, actor, stranger);
                        fs::remove_dir_all(&place).unwrap();
                        outcome
                    });
                    if ours != theirs {
                        let who = actor.person.name;
                        differences.push(format!(
                            "{operation:?} as {who}, mode {mode:o}, direct: {is_direct}: {ours:?}, on XFS {theirs:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}: {differences:#?}", differences.len());
}
