//! A copy of the sources in which every place that was found has a switch.
//!
//! All mutants are compiled at once; the environment variable `LODEFS_MUTANT` says which one of them a process is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::sites::{self, Kind, Site, Wanted};

/// Something that can be switched off.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// Its number, from one.
    pub(crate) number: usize,
    /// The file, from the root of the project.
    pub(crate) file: String,
    pub(crate) site: Site,
}

/// Files of which everything is looked at: what makes durable, the journal, and what relies on them.
const PERSISTENCE: [&str; 14] = [
    "crates/pmem/src/medium.rs",
    "crates/pmem/src/store.rs",
    "crates/pmem/src/overlay.rs",
    "crates/pmem/src/evidence.rs",
    "crates/pmem/src/losses.rs",
    "crates/core/src/journal/mod.rs",
    "crates/core/src/journal/lane.rs",
    "crates/core/src/journal/replay.rs",
    "crates/core/src/journal/state.rs",
    "crates/core/src/tx.rs",
    "crates/core/src/recovery.rs",
    "crates/core/src/bitmap.rs",
    "crates/core/src/ops/tail.rs",
    "crates/core/src/lease/words.rs",
];

/// Files of which the checks of bytes from the volume are looked at.
const LAYOUT: &str = "crates/layout/src";

/// Directories of which the locks are looked at.
const LOCKING: [&str; 2] = ["crates/core/src", "crates/pmem/src"];

/// Files that are tests or serve them, or belong to other processors.
const LEFT_OUT: [&str; 6] = ["tests", "ageing", "interleavings", "recording", "portable", "aarch64"];

/// What is copied, besides directories.
const FILES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "rustfmt.toml", "README.md"];

/// Everything that can be switched off in the sources below `root`.
pub(crate) fn find_all(root: &Path) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let all = Wanted { steps: true, checks: true, locks: false };
    for file in PERSISTENCE {
        add(root, file, all, &mut mutants)?;
    }
    for file in sources(&root.join(LAYOUT))? {
        add(root, &relative(root, &file), Wanted { steps: false, checks: true, locks: false }, &mut mutants)?;
    }
    for directory in LOCKING {
        for file in sources(&root.join(directory))? {
            add(
                root,
                &relative(root, &file),
                Wanted { steps: false, checks: false, locks: true },
                &mut mutants,
            )?;
        }
    }
    for (number, mutant) in (1..).zip(&mut mutants) {
        mutant.number = number;
    }
    Ok(mutants)
}

fn add(root: &Path, file: &str, wanted: Wanted, mutants: &mut Vec<Mutant>) -> anyhow::Result<()> {
    let source = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
    let sites = sites::find(&source, wanted).with_context(|| file.to_owned())?;
    let mutant = |site| Mutant { number: 0, file: file.to_owned(), site };
    mutants.extend(sites.into_iter().map(mutant));
    Ok(())
}

fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// All Rust files below a directory that are not tests, in order.
fn sources(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let is_left_out = path.file_stem().is_some_and(|stem| LEFT_OUT.iter().any(|it| stem == *it));
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|it| it == "rs") && !is_left_out {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes the copy to `target`. Files that are the same already are left alone, so that they need not be compiled again.
pub(crate) fn write(root: &Path, target: &Path, mutants: &[Mutant]) -> anyhow::Result<()> {
    for file in FILES {
        replace(&target.join(file), fs::read(root.join(file))?)?;
    }
    for whole in ["docs", "model"] {
        copy(&root.join(whole), &target.join(whole), &|_, bytes| Ok(bytes))?;
    }
    copy(&root.join("crates"), &target.join("crates"), &|path, bytes| {
        let file = relative(root, path);
        let here: Vec<&Mutant> =
            mutants.iter().filter(|mutant| mutant.file == file && mutant.site.kind != Kind::Lock).collect();
        let mut source =
            if here.is_empty() { bytes } else { switched(std::str::from_utf8(&bytes)?, &here)?.into_bytes() };
        source.extend_from_slice(appended(&file).as_bytes());
        Ok(source)
    })
}

/// What becomes of a file.
type Change<'c> = &'c dyn Fn(&Path, Vec<u8>) -> anyhow::Result<Vec<u8>>;

fn copy(from: &Path, to: &Path, change: Change<'_>) -> anyhow::Result<()> {
    remove_others(from, to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target, change)?;
        } else {
            replace(&target, change(&path, fs::read(&path)?)?)?;
        }
    }
    Ok(())
}

/// Removes what an earlier copy has left in `to` and is in `from` no more.
fn remove_others(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !to.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        let is_there = path.file_name().is_some_and(|name| from.join(name).exists());
        if !is_there && path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if !is_there {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn replace(path: &Path, bytes: Vec<u8>) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// What the switches need, at the end of some files.
fn appended(file: &str) -> &'static str {
    const SWITCH: &str = "
extern crate std as switching;
#[doc(hidden)]
pub(crate) fn mutant_is(number: usize) -> bool {
    static MUTANT: switching::sync::OnceLock<usize> = switching::sync::OnceLock::new();
    let parsed = || switching::env::var(\"LODEFS_MUTANT\").ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    *MUTANT.get_or_init(parsed) == number
}
";
    const OMITTED: &str = "
impl Medium {
    #[doc(hidden)]
    pub fn fence_omitted(&self, _: Flushed) -> Result<Ordered, MediumError> {
        Ok(Ordered::new())
    }
    #[doc(hidden)]
    pub fn sync_omitted(&self, _: Flushed) -> Result<Durable, MediumError> {
        Ok(Durable::new())
    }
    #[doc(hidden)]
    pub fn settle_omitted(&self, _: Staged, _: &Durable) -> Result<(Settled, Durable), MediumError> {
        Ok((Settled { pages: Vec::new() }, Durable::new()))
    }
}
";
    match file {
        "crates/layout/src/lib.rs" | "crates/pmem/src/lib.rs" | "crates/core/src/lib.rs" => SWITCH,
        "crates/pmem/src/medium.rs" => OMITTED,
        _ => "",
    }
}

/// The source with a switch at each place. Places may lie within each other.
fn switched(source: &str, mutants: &[&Mutant]) -> anyhow::Result<String> {
    // Inserted before a byte: what closes an inner place comes before what closes an outer one.
    let mut insertions: Vec<(usize, bool, usize, String)> = Vec::new();
    for mutant in mutants {
        let Site { start, end, kind, .. } = &mutant.site;
        let number = mutant.number;
        let size = end - start;
        let (open, close) = match kind {
            Kind::Statement => (format!("if !crate::mutant_is({number}) {{ "), " }".to_owned()),
            Kind::True => (format!("(crate::mutant_is({number}) || "), ")".to_owned()),
            Kind::False => (format!("(!crate::mutant_is({number}) && ("), "))".to_owned()),
            Kind::Evidence(name) => {
                let omitted = omitted(&source[*start..*end], name)?;
                (format!("(if crate::mutant_is({number}) {{ {omitted} }} else {{ "), " })".to_owned())
            }
            Kind::Lock => continue,
        };
        insertions.push((*start, true, usize::MAX - size, open));
        insertions.push((*end, false, size, close));
    }
    insertions.sort_by_key(|(at, opens, size, _)| (*at, *opens, *size));
    let mut result = String::with_capacity(source.len() * 2);
    let mut done = 0;
    for (at, _, _, text) in insertions {
        ensure!(source.is_char_boundary(at), "a place begins within a character");
        result.push_str(&source[done..at]);
        result.push_str(&text);
        done = at;
    }
    result.push_str(&source[done..]);
    Ok(result)
}

/// A call of `name` as one that does nothing.
fn omitted(call: &str, name: &str) -> anyhow::Result<String> {
    let at = call.find(&format!(".{name}(")).context("the call names the function")?;
    Ok(format!("{}_omitted{}", &call[..=at + name.len()], &call[at + 1 + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_nest() {
        let source = "fn f() { g(a == b); }\n".to_owned();
        let wanted = Wanted { steps: true, checks: true, locks: false };
        let sites = sites::find(&source, wanted).unwrap();
        let mutants: Vec<Mutant> =
            (1..).zip(sites).map(|(number, site)| Mutant { number, file: String::new(), site }).collect();
        let switched = switched(&source, &mutants.iter().collect::<Vec<_>>()).unwrap();
        assert!(syn::parse_file(&switched).is_ok(), "{switched}");
        for number in 1..=3 {
            assert_eq!(switched.matches(&format!("crate::mutant_is({number})")).count(), 1, "{switched}");
        }
    }

    #[test]
    fn evidence_is_given_without_its_reason() {
        assert_eq!(
            omitted("volume.medium.sync(flushed)", "sync").unwrap(),
            "volume.medium.sync_omitted(flushed)"
        );
    }
}
