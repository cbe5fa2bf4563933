//! What the caller sees when the engine refuses, fails or panics, and what the log says about it.
//!
//! A refusal (no such file, no space) is between the engine and the caller. Damage, a failing medium and a panic
//! concern whoever runs the volume: they are logged, each distinct message once, because a damaged file that is
//! read in a loop would bury everything else.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::Errno;
use lodefs_core::Error;
use parking_lot::Mutex;

/// Distinct messages that are remembered; after that many, nobody reads on.
const MESSAGES_MAX: usize = 1000;

/// Turns the outcome of an engine call into what the kernel is told.
#[derive(Default)]
pub(crate) struct Answers {
    logged: Mutex<HashSet<String>>,
}

impl Answers {
    /// Runs the body of a request. `is_told`: whether the log has an error already.
    ///
    /// A panic is answered with EIO: a thread that unwound out of the server's loop would leave its caller hanging
    /// and the mount one thread poorer. What the engine left half done it must survive anyway, as after a crash.
    pub(crate) fn run<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce() -> lodefs_core::Result<T>,
        is_told: impl FnOnce(&Error) -> bool,
    ) -> Result<T, Errno> {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if !is_told(&error) {
                    self.note(operation, &error);
                }
                Err(Errno::from_i32(error.errno().raw_os_error()))
            }
            Err(panic) => {
                tracing::error!(
                    operation,
                    panic = panic_text(&*panic),
                    "a request failed by a bug in lodefs"
                );
                Err(Errno::EIO)
            }
        }
    }

    fn note(&self, operation: &'static str, error: &Error) {
        if matches!(error, Error::Refused(_)) {
            return;
        }
        let message = error.to_string();
        let mut logged = self.logged.lock();
        if logged.len() < MESSAGES_MAX && logged.insert(message.clone()) {
            tracing::error!(operation, "{message}");
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(object: &str) -> Error {
        Error::Corrupt { object: object.into(), fault: "does not match its checksum" }
    }

    #[test]
    fn a_panic_is_an_input_output_error() {
        let answers = Answers::default();
        let outcome = answers.run::<()>("read", || panic!("deliberate"), |_| false);
        assert_eq!(outcome, Err(Errno::EIO));
    }

    #[test]
    fn a_refusal_keeps_its_errno_and_is_not_logged() {
        let answers = Answers::default();
        let outcome = answers.run::<()>("open", || Err(rustix::io::Errno::NOTEMPTY.into()), |_| false);
        assert_eq!(outcome, Err(Errno::ENOTEMPTY));
        assert!(answers.logged.lock().is_empty());
    }

    #[test]
    fn damage_is_logged_once_for_each_object() {
        let answers = Answers::default();
        for object in ["inode 5", "inode 5", "inode 6"] {
            let _ = answers.run::<()>("read", || Err(damage(object)), |_| false);
        }
        assert_eq!(answers.logged.lock().len(), 2);
    }

    #[test]
    fn what_the_log_has_is_not_told_again() {
        let answers = Answers::default();
        let outcome = answers.run::<()>("write", || Err(damage("inode 5")), |_| true);
        assert!(outcome.is_err() && answers.logged.lock().is_empty());
    }

    #[test]
    fn the_log_is_bounded() {
        let answers = Answers::default();
        for ino in 0..2 * MESSAGES_MAX {
            answers.note("read", &damage(&format!("inode {ino}")));
        }
        assert_eq!(answers.logged.lock().len(), MESSAGES_MAX);
    }
}
