//! What a test drives: anything that behaves as a file system.

use rustix::io::Errno;

use crate::operation::{Operation, Outcome};

/// The answer to an operation.
pub type Reply = Result<Outcome, Errno>;

/// A file system under test, or the model of one.
///
/// It is driven by a privileged caller with a umask of zero, one operation at a time. [`Operation`] says what
/// each operation means; everything that it does not say is as in the manual pages of Linux.
pub trait Target {
    /// Does one operation.
    fn apply(&mut self, operation: &Operation) -> Reply;
}

impl<T: Target + ?Sized> Target for &mut T {
    fn apply(&mut self, operation: &Operation) -> Reply {
        (**self).apply(operation)
    }
}
