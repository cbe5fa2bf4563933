//! Paths within the tree under test.
//!
//! A path is names with single slashes between them; the empty path is the root of the tree. Neither `.` nor `..`
//! occurs (the kernel resolves them before a file system sees them), and symbolic links are never followed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of an entry, in bytes.
pub const NAME_MAX: usize = 255;

/// A path from the root of the tree under test.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreePath(String);

impl TreePath {
    /// The root.
    pub const ROOT: Self = Self(String::new());

    /// The path `path`, names with single slashes between.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, from the root down.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The path of the containing directory, and the last name. The root has neither.
    pub fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.rsplit_once('/') {
            Some((parent, name)) => (Self::new(parent), name),
            None => (Self::ROOT, &self.0),
        })
    }

    /// The entry `name` of this directory.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        if self.is_root() { Self::new(name) } else { Self(format!("{}/{name}", self.0)) }
    }
}

impl From<&str> for TreePath {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_joins() {
        assert_eq!(TreePath::ROOT.split(), None);
        assert_eq!(TreePath::from("a").split(), Some((TreePath::ROOT, "a")));
        assert_eq!(TreePath::from("a/b/c").split(), Some((TreePath::from("a/b"), "c")));
        assert_eq!(TreePath::ROOT.join("a").join("b"), TreePath::from("a/b"));
        assert_eq!(TreePath::ROOT.names().count(), 0);
        assert_eq!(TreePath::from("a/b").names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
