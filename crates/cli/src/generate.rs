//! Completions and manual pages, from the definition of the command line.

use std::io;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lodefs", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).context("cannot print the script")
}

/// Writes `lodefs.1` and a page for each command into `directory`, which is made if it is missing.
pub(crate) fn manual_pages(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory))
        .with_context(|| format!("{}: cannot write manual pages there", directory.display()))
}
