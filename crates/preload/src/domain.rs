//! What are media to be treated as?
//!
//! `lodefs run` says so, if it was told (`--force-domain`): on a machine without such memory, a program can be tried that asks for it.

use std::sync::OnceLock;

use lodefs_direct::Domain;
use lodefs_direct::run::DOMAIN_VARIABLE;

static FORCED: OnceLock<Option<Domain>> = OnceLock::new();

/// Notes what was said.
pub(crate) fn begin() {
    let said = std::env::var(DOMAIN_VARIABLE).ok().and_then(|name| name.parse().ok());
    let _is_first = FORCED.set(said);
}

/// As what, if as anything else than what they are.
pub(crate) fn forced() -> Option<Domain> {
    FORCED.get().copied().flatten()
}
