//! Long tests of lodefs, as commands: `cargo xtask crash`, `fuzz`, `mutants`, `schedules`; and the making of golden images:
//! `cargo xtask golden`.

mod crash;
mod fuzz;
mod golden;
mod mutants;
mod schedules;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Long tests of lodefs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Explore the crashes in many workloads
    Crash(crash::Arguments),
    /// Switch off each step of persistence, each check and each lock: tests must notice
    Mutants(mutants::Arguments),
    /// Try schedules of threads in the engine
    Schedules(schedules::Arguments),
    /// Look for hostile images that the engine does not stand
    Fuzz(fuzz::Arguments),
    /// Make a golden image, once and for ever
    Golden(golden::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Crash(arguments) => crash::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Schedules(arguments) => schedules::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Golden(arguments) => golden::run(&arguments),
    }
}
