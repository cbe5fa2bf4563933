//! Completions and manual pages, from the definition of the command line.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::arguments::Arguments;
use crate::text::shown;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lodefs", &mut script);
    io::stdout().write_all(&script).context("cannot print the script")
}

/// Writes `lodefs.1` and a page for each command into `directory`, which is made if it is missing.
pub(crate) fn manual_pages(directory: &Path) -> anyhow::Result<()> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    fs::create_dir_all(directory)
        .and_then(|()| write_pages(&command, directory))
        .with_context(|| format!("{}: cannot write manual pages there", shown(directory)))
}

/// Writes the page of a command, and those of its parts.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        write_pages(part, directory)?;
    }
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    replace(directory, &page.get_filename(), &text)
}

/// Puts a file in the place of what has this name in `directory`: whole, and never through a link that somebody else has put
/// there. A new file takes the name when it is complete.
fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let directory = openat(CWD, directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut number = [0; 8];
    getrandom(&mut number, GetRandomFlags::empty())?;
    let unfinished = format!(".{name}.{:016x}", u64::from_ne_bytes(number));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory, &unfinished, flags, Mode::from_raw_mode(0o644))?;
    let written = fs::File::from(file)
        .write_all(content)
        .and_then(|()| Ok(renameat(&directory, &unfinished, &directory, name)?));
    if written.is_err() {
        // The first error tells more than this one would.
        let _ = unlinkat(&directory, &unfinished, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn pages_are_written_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (directory, victim) = (scratch.path().join("man"), scratch.path().join("victim"));
        fs::create_dir(&directory).unwrap();
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.join("lodefs.1")).unwrap();
        fs::hard_link(&victim, directory.join("lodefs-mount.1")).unwrap();
        symlink(scratch.path().join("none"), directory.join("lodefs-mkfs.1")).unwrap();
        manual_pages(&directory).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!scratch.path().join("none").exists());
        let names =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        for name in &names {
            let page = directory.join(name);
            assert!(
                fs::symlink_metadata(&page).unwrap().is_file() && fs::metadata(&page).unwrap().nlink() == 1,
                "{name}"
            );
            assert!(fs::read_to_string(&page).unwrap().contains(".TH"), "{name}");
        }
        assert!(
            names.contains(&"lodefs.1".to_owned()) && names.contains(&"lodefs-dax.1".to_owned()),
            "{names:?}"
        );
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
        // Pages that are there already are replaced.
        manual_pages(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), names.len());
    }

    #[test]
    fn a_directory_in_the_place_of_a_page_is_an_error_that_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("lodefs-bench.1")).unwrap();
        assert!(manual_pages(scratch.path()).is_err());
        let left = fs::read_dir(scratch.path()).unwrap();
        assert!(!left.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with('.')));
    }
}
