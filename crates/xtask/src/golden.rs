//! Makes a golden image and its text. One that exists is never made again: what a released format has stored stays as it
//! is.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use lodefs_testkit::golden::{self, Golden};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which one, of those in `crates/testkit/src/golden`
    name: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name.as_str();
    if golden::stored().is_ok_and(|stored| stored.iter().any(|known| known == name)) {
        bail!(
            "{name} exists, and images of a released format are never made again; give a new one a new name"
        );
    }
    let Some(image) = golden::make(name) else { bail!("there is no recipe for {name}") };
    Golden::of(image?)?.store(name)?;
    println!("{name} is made: read its text before you commit it");
    Ok(ExitCode::SUCCESS)
}
