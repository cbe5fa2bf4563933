//! The test of the tests: file systems that are wrong in one small way, each of which must be found out.

use lodefs_testkit::check::Strictness;
use lodefs_testkit::operation::{AllocateMode, Object, Outcome, RenameMode, Whence, xflag};
use lodefs_testkit::{Generator, Model, Operation, Profile, Reply, Target, check};
use rustix::io::Errno;

/// One way of being wrong.
type Fault = fn(&mut Model, &Operation) -> Reply;

struct Wrong {
    model: Model,
    fault: Fault,
}

impl Target for Wrong {
    fn apply(&mut self, operation: &Operation) -> Reply {
        (self.fault)(&mut self.model, operation)
    }
}

/// Whether a file system with this fault is found out within 300 sequences.
fn is_found(fault: Fault) -> bool {
    (0..300).any(|seed| {
        let operations: Vec<_> = Generator::new(seed, Profile::LODEFS).take(100).collect();
        check(&mut Wrong { model: Model::new(), fault }, &operations, Strictness::default()).is_err()
    })
}

#[test]
fn the_model_agrees_with_itself() {
    assert!(!is_found(Model::apply));
}

#[test]
fn a_punched_hole_that_keeps_its_data_is_found() {
    assert!(is_found(|model, operation| match operation {
        Operation::Fallocate { slot, mode: AllocateMode::PunchHole, offset, size } => {
            let mode = AllocateMode::KeepSize;
            model.apply(&Operation::Fallocate { slot: *slot, mode, offset: *offset, size: *size })
        }
        _ => model.apply(operation),
    }));
}

#[test]
fn data_that_is_reported_as_a_hole_is_found() {
    assert!(is_found(|model, operation| match (operation, model.apply(operation)) {
        (Operation::Seek { offset, whence: Whence::Hole, .. }, Ok(_)) => Ok(Outcome::Position(*offset)),
        (_, reply) => reply,
    }));
}

#[test]
fn a_flag_that_is_not_inherited_is_found() {
    assert!(is_found(|model, operation| {
        let reply = model.apply(operation);
        if let Operation::Mkdir { path, .. } = operation
            && reply.is_ok()
        {
            model.apply(&Operation::SetXflags { object: Object::Path(path.clone()), xflags: 0 }).ok();
        }
        reply
    }));
}

#[test]
fn a_lost_extended_attribute_is_found() {
    assert!(is_found(|model, operation| match operation {
        Operation::SetXattr { value, .. } if value.size == 0 => Ok(Outcome::Done),
        _ => model.apply(operation),
    }));
}

#[test]
fn a_whiteout_that_is_missing_is_found() {
    assert!(is_found(|model, operation| match operation {
        Operation::Rename { from, to, mode: RenameMode::Whiteout } => {
            let mode = RenameMode::Replace;
            model.apply(&Operation::Rename { from: from.clone(), to: to.clone(), mode })
        }
        _ => model.apply(operation),
    }));
}

#[test]
fn another_errno_is_found() {
    assert!(is_found(|model, operation| match (operation, model.apply(operation)) {
        (Operation::Rename { .. }, Err(Errno::INVAL)) => Err(Errno::BUSY),
        (_, reply) => reply,
    }));
}

#[test]
fn an_immutable_file_that_can_be_unlinked_is_found() {
    assert!(is_found(|model, operation| {
        if let Operation::Unlink { path } = operation {
            let object = Object::Path(path.clone());
            if let Ok(Outcome::Xflags(xflags)) = model.apply(&Operation::GetXflags { object: object.clone() })
            {
                let xflags = xflags & !xflag::IMMUTABLE;
                model.apply(&Operation::SetXflags { object, xflags }).ok();
            }
        }
        model.apply(operation)
    }));
}

#[test]
fn a_time_that_stands_still_is_found() {
    assert!(is_found(|model, operation| match model.apply(operation) {
        Ok(Outcome::Status(mut status)) => {
            status.mtime.seconds = status.mtime.seconds.min(1 << 32);
            Ok(Outcome::Status(status))
        }
        reply => reply,
    }));
}
