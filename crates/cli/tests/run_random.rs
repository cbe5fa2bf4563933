//! `lodefs run`: processes that make calls at random, which come to what a model says.
//!
//! The test says what each process is to do, some calls at a time, and what it expects. The processes are those of one program, which forks:
//! they share open files, and map the same ones.

mod common;
mod random;

use std::path::Path;
use std::process::Child;

use common::programs::{playing, stage, told};
use random::conversation::{Server, Worker};
use random::{Model, Numbers, conversation, worker};

/// Calls; `LODEFS_TEST_CALLS` for more.
const CALLS: u64 = 60_000;
/// Calls of one process after the other, at most.
const BATCH: u64 = 48;

/// What the test runs.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    let (part, place) = told();
    assert_eq!(part, "worker");
    worker::work(&place, &conversation::connect());
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn begin(server: &Server, place: &Path) -> (Child, Worker) {
    let mut command = playing(&[], "worker", place);
    let child = server.tell(&mut command).spawn().unwrap();
    (child, server.accept())
}

#[test]
fn calls_of_processes_that_share_files_come_to_what_they_should() {
    let Some((_bench, mounted)) = stage() else { return };
    let (seed, calls) = (number("LODEFS_TEST_SEED", 1), number("LODEFS_TEST_CALLS", CALLS));
    let server = Server::new();
    let (mut first, worker) = begin(&server, &mounted.directory);
    let mut workers = vec![worker];
    let (mut model, mut numbers) = (Model::default(), Numbers(seed));
    let mut made = 0;
    while made < calls {
        let process = numbers.below(workers.len() as u64) as usize;
        let batch = 1 + numbers.below(BATCH);
        let mut expected = Vec::new();
        for _ in 0..batch {
            let call = model.choose(process, &mut numbers);
            expected.push((call, model.make(process, call)));
        }
        let found = workers[process].make(expected.iter().map(|(call, _)| *call));
        for (index, ((call, expected), found)) in expected.iter().zip(&found).enumerate() {
            let number = made + index as u64;
            assert_eq!(found, expected, "seed {seed}, call {number}, of process {process}: {call:?}");
        }
        made += batch;
        // Processes begin and end between batches.
        match numbers.below(40) {
            0 if workers.len() < 5 => {
                model.fork(process);
                workers[process].fork();
                workers.push(server.accept());
            }
            1 if workers.len() > 1 && process > 0 => {
                model.end(process);
                workers.remove(process).end();
            }
            _ => {}
        }
    }
    println!("{made} calls, {} of which were refused", model.refused());
    for worker in workers.into_iter().rev() {
        worker.end();
    }
    assert!(first.wait().unwrap().success());
    mounted.unmount();
}
