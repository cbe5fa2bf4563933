//! Direct access to the files of a mounted volume, for programs.
//!
//! | module | question |
//! |---|---|
//! | [`dax`] | is this file direct, why, and who keeps it so? |

#![deny(missing_docs)]

pub mod dax;
