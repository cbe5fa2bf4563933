//! What can be switched off without anything becoming wrong, and why.

use anyhow::ensure;

use super::instrument::Mutant;
use super::sites::Kind;

/// Code that may be left out, or decided in one way, and the reason.
struct Harmless {
    file: &'static str,
    function: &'static str,
    kind: Kind,
    text: &'static str,
    why: &'static str,
}

const HARMLESS: [Harmless; 0] = [];

impl Harmless {
    fn is(&self, mutant: &Mutant) -> bool {
        let Mutant { file, site, .. } = mutant;
        file.ends_with(self.file)
            && site.function == self.function
            && site.kind == self.kind
            && site.text == self.text
    }
}

/// Why a mutant changes nothing that matters, if that is known.
pub(crate) fn why(mutant: &Mutant) -> Option<&'static str> {
    HARMLESS.iter().find(|harmless| harmless.is(mutant)).map(|harmless| harmless.why)
}

/// That each entry is about code that is there.
pub(crate) fn check(mutants: &[Mutant]) -> anyhow::Result<()> {
    for harmless in &HARMLESS {
        let Harmless { file, function, text, .. } = harmless;
        let is_there = mutants.iter().any(|mutant| harmless.is(mutant));
        ensure!(is_there, "{file}, {function}: there is no `{text}` any more that could be harmless");
    }
    Ok(())
}
