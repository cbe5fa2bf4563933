//! A failing sequence as a file, so that it can be sent to somebody and run again.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// A sequence of operations that has shown something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What it has shown.
    pub note: String,
    /// Seed it was generated from, before it was made smaller.
    pub seed: u64,
    /// The operations.
    pub operations: Vec<Operation>,
}

impl Case {
    /// Writes it as JSON, one operation a line.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let lines: Result<Vec<_>, _> = self.operations.iter().map(serde_json::to_string).collect();
        let text = format!(
            "{{\n\"note\": {},\n\"seed\": {},\n\"operations\": [\n{}\n]\n}}\n",
            serde_json::to_string(&self.note)?,
            self.seed,
            lines?.join(",\n")
        );
        write(path, &text)
    }

    /// Reads what [`Case::save`] has written.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        read(path)
    }
}

/// Writes a case of any sort.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot save the case as {}", path.display()))
}

/// Reads a case of any sort.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the case {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a case", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generator, Profile};

    #[test]
    fn a_saved_case_is_loaded_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("case.json");
        let operations = Generator::new(7, Profile::LODEFS).take(500).collect();
        let case = Case { note: "a \"note\"\nof two lines".into(), seed: 7, operations };
        case.save(&path).unwrap();
        assert_eq!(Case::load(&path).unwrap(), case);
    }
}
