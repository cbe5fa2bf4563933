//! Programs that have files of a mount mapped: by each question a module.

mod appends;
mod coherence;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod endings;
mod liar;
mod limits;
mod maps;
mod on_dax;
mod program;
mod rights;
mod sight;
mod stage;
mod switches;

/// The program that other tests start.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    program::run();
}

/// A process of the test of coherence.
#[test]
#[ignore = "it is no test"]
fn a_process() {
    coherence::run();
}

/// A process that appends.
#[test]
#[ignore = "it is no test"]
fn an_appender() {
    appends::run();
}

/// A process that has no descriptors left.
#[test]
#[ignore = "it is no test"]
fn a_program_without_descriptors() {
    limits::run();
}
