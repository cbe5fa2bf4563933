//! Threads whose schedule is chosen: shuttle tries random ones of the whole engine, loom all of what takes no lock.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Plans of what the threads do, of each kind
    #[arg(long, default_value_t = 20)]
    plans: u64,
    /// Schedules of each plan at random, and as many that change seldom
    #[arg(long, default_value_t = 25)]
    schedules: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut shuttle = cargo("shuttle")?;
    shuttle.args(["--package", "lodefs-testkit", "--test", "schedules"]);
    shuttle.env("LODEFS_SCHEDULE_PLANS", arguments.plans.to_string());
    shuttle.env("LODEFS_SCHEDULES", arguments.schedules.to_string());
    // It says once for each kind of test that it does not model weak memory orders, which loom is for.
    shuttle.env("SHUTTLE_SILENCE_WARNINGS", "1");
    let mut loom = cargo("loom")?;
    loom.args(["--package", "lodefs-sync", "--lib", "interleavings"]);
    for mut command in [shuttle, loom] {
        command.args(["--", "--nocapture", "--test-threads=1"]);
        if !command.status().context("cargo cannot be started")?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo test` with a scheduler in place of locks and atomics, and a directory of its own for what it builds.
fn cargo(scheduler: &str) -> anyhow::Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("there is a root")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["test", "--profile", "checked", "--quiet"]);
    cargo.env("RUSTFLAGS", format!("--cfg lodefs_{scheduler}"));
    cargo.env("CARGO_TARGET_DIR", root.join("target").join(scheduler));
    Ok(cargo)
}
