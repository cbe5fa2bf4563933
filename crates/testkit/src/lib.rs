//! How lodefs is tested.
//!
//! One reference [`Model`] says what a file system must answer. Random [`Operation`]s from a [`Generator`] are
//! given to the model and to a [`Target`]: the engine, a mounted volume, or another file system that the model
//! itself is checked against ([`HostTarget`]). [`check`] compares every answer and the whole tree; a sequence
//! that fails is made small by [`minimise`](minimise::minimise) and saved as a [`Case`].

#![deny(missing_docs)]

pub mod case;
pub mod check;
pub mod crash;
pub mod engine;
pub mod explore;
pub mod generate;
pub mod golden;
pub mod host;
pub mod hostile;
pub mod mapped;
pub mod memory_file;
pub mod minimise;
pub mod model;
pub mod operation;
pub mod path;
pub mod pattern;
pub mod profile;
pub mod rng;
pub mod schedules;
#[cfg(target_arch = "x86_64")]
pub mod stepper;
pub mod target;
pub mod tree;

pub use case::Case;
pub use check::{Violation, check};
pub use engine::EngineTarget;
pub use generate::Generator;
pub use host::HostTarget;
pub use memory_file::MemoryFile;
pub use model::Model;
pub use operation::{Operation, Outcome};
pub use path::TreePath;
pub use profile::Profile;
pub use target::{Reply, Target};
pub use tree::{Tree, snapshot};
