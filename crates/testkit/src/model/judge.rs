//! Whether an answer is right.
//!
//! Mostly it has to equal the model's. Where several answers are right, the rule for them is here, and the model
//! goes on from the answer that was given. These are all the exceptions:
//! - a seek may report zeros as data or as a hole, but never data as a hole;
//! - `copy_file_range` may copy less, but something;
//! - inode numbers and the sizes of directories are not compared, nor are times ([`crate::check`] sees to these);
//! - flags of what is no file or directory may be refused with EINVAL, ENOTTY or EOPNOTSUPP;
//! - a seek in a directory may give anything;
//! - of statfs, only that it makes sense;
//! - with [`Leniency::exist_for_not_empty`], renaming over a directory that is not empty gives EEXIST;
//! - with [`Leniency::flags_last`], what is refused for an immutable or append-only inode may be refused for another
//!   reason, and copying no bytes to an immutable file may succeed;
//! - with [`Leniency::blind_at_end`], a seek may be wrong about the last pages that a file can have;
//! - with [`Leniency::out_of_space`], whatever may need space may fail with ENOSPC, and a write may be short.

use rustix::io::Errno;

use super::inode::Body;
use super::{LAST_PAGES, Model};
use crate::operation::{Kind, Operation, Outcome, Slot, Status, Usage, Whence};
use crate::path::NAME_MAX;
use crate::pattern::Pattern;
use crate::target::{Reply, Target};

/// What the model reports as its use of space.
pub(super) const ENDLESS: Usage =
    Usage { blocks: u64::MAX, blocks_free: u64::MAX, name_max: NAME_MAX as u64 };

/// What is forgiven besides.
#[expect(clippy::struct_excessive_bools, reason = "each forgives one thing, in any combination")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// Whether a seek may be wrong about the last pages before offset 2^63.
    pub blind_at_end: bool,
    /// Whether renaming over a directory that is not empty may give EEXIST, which POSIX allows for ENOTEMPTY.
    pub exist_for_not_empty: bool,
    /// Whether the kernel, which does not know the immutable and append-only flags of a FUSE file system, may find another
    /// reason to refuse before the file system is asked.
    pub flags_last: bool,
    /// Whether emptying a file by its name moves its times even if it was empty.
    pub emptying_touches: bool,
    /// Whether the file system under test may run out of space.
    pub out_of_space: bool,
}

impl Model {
    /// Does `operation`, of which a file system under test has `observed` the outcome.
    ///
    /// # Errors
    /// If that is not right: what the model says instead.
    pub fn judge(
        &mut self,
        operation: &Operation,
        observed: &Reply,
        leniency: Leniency,
    ) -> Result<(), Reply> {
        if leniency.out_of_space && is_failure_for_space(operation, observed) {
            return Ok(());
        }
        let operation = as_far_as_done(operation, observed, leniency);
        if let Operation::Seek { slot, offset, whence } = &operation
            && let Some(verdict) = self.judge_seek(*slot, *offset, *whence, observed, leniency)
        {
            return if verdict { Ok(()) } else { Err(self.apply(&operation)) };
        }
        let expected = self.apply(&operation);
        if is_forgiven(&operation, &expected, observed, leniency) || agree(&operation, &expected, observed) {
            Ok(())
        } else {
            Err(expected)
        }
    }

    /// Judges a seek in what can be sought in.
    fn judge_seek(
        &self,
        slot: Slot,
        offset: u64,
        whence: Whence,
        observed: &Reply,
        leniency: Leniency,
    ) -> Option<bool> {
        let content = match &self.inode(self.handle(slot).ok()?.ino).body {
            Body::File(content) => content,
            Body::Directory { .. } => return Some(true),
            _ => return None,
        };
        let size = content.size();
        let seen = if leniency.blind_at_end { size.min(LAST_PAGES) } else { size };
        Some(match (whence, observed) {
            _ if offset >= size => matches!(observed, Err(Errno::NXIO)),
            (_, Ok(Outcome::Position(position))) if leniency.blind_at_end && *position >= LAST_PAGES => true,
            (Whence::Data, Ok(Outcome::Position(position))) => {
                (offset..size).contains(position) && content.is_zero(offset, *position)
            }
            (Whence::Data, Err(Errno::NXIO)) => content.is_zero(offset, seen),
            (Whence::Hole, Ok(Outcome::Position(position))) => {
                *position == size
                    || ((offset..size).contains(position) && content.is_zero(*position, *position + 1))
            }
            _ => false,
        })
    }
}

/// Whether an answer is wrong in a way that is known and allowed.
fn is_forgiven(operation: &Operation, expected: &Reply, observed: &Reply, leniency: Leniency) -> bool {
    use Operation as Op;
    let renames = matches!(operation, Op::Rename { .. });
    let other_name = leniency.exist_for_not_empty
        && renames
        && (expected, observed) == (&Err(Errno::NOTEMPTY), &Err(Errno::EXIST));
    let copied_nothing = matches!(operation, Op::CopyRange { .. }) && *observed == Ok(Outcome::Count(0));
    let refused_otherwise =
        leniency.flags_last && *expected == Err(Errno::PERM) && (observed.is_err() || copied_nothing);
    other_name || refused_otherwise
}

/// Whether `observed` says that there was no space for something that may need some.
fn is_failure_for_space(operation: &Operation, observed: &Reply) -> bool {
    use Operation as Op;
    let may_need_space = matches!(
        operation,
        Op::Open { .. }
            | Op::Tmpfile { .. }
            | Op::Mknod { .. }
            | Op::Mkdir { .. }
            | Op::Symlink { .. }
            | Op::Link { .. }
            | Op::Rename { .. }
            | Op::Write { .. }
            | Op::Truncate { .. }
            | Op::Fallocate { .. }
            | Op::CopyRange { .. }
            | Op::SetXattr { .. }
    );
    may_need_space && matches!(observed, Err(Errno::NOSPC))
}

/// The operation, made smaller if less was done than asked and that is right.
fn as_far_as_done(operation: &Operation, observed: &Reply, leniency: Leniency) -> Operation {
    let mut done = operation.clone();
    match (&mut done, observed) {
        (Operation::CopyRange { size, .. }, Ok(Outcome::Count(count))) if *count > 0 => {
            *size = (*size).min(*count);
        }
        (Operation::Write { data, .. }, Ok(Outcome::Count(count)))
            if leniency.out_of_space && (1..u64::from(data.size)).contains(count) =>
        {
            *data = Pattern { seed: data.seed, size: *count as u32 };
        }
        _ => {}
    }
    done
}

/// Whether two answers are equally right.
fn agree(operation: &Operation, expected: &Reply, observed: &Reply) -> bool {
    let flags = matches!(operation, Operation::GetXflags { .. } | Operation::SetXflags { .. });
    match (expected, observed) {
        (Ok(Outcome::Status(expected)), Ok(Outcome::Status(observed))) => same_status(expected, observed),
        (Ok(Outcome::Usage(_)), Ok(Outcome::Usage(usage))) => {
            usage.blocks_free <= usage.blocks && usage.name_max == ENDLESS.name_max
        }
        (Err(Errno::INVAL), Err(observed)) if flags => {
            [Errno::INVAL, Errno::NOTTY, Errno::OPNOTSUPP].contains(observed)
        }
        _ => expected == observed,
    }
}

/// Whether attributes are the same, of those that are comparable.
fn same_status(expected: &Status, observed: &Status) -> bool {
    let comparable = |status: &Status| Status {
        ino: 0,
        size: if status.kind == Kind::Directory { 0 } else { status.size },
        mtime: expected.mtime,
        ctime: expected.ctime,
        ..*status
    };
    comparable(expected) == comparable(observed)
}
