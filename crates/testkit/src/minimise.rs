//! Making a failing sequence small: leaving out operations, then making the numbers in the rest simple.

use crate::operation::Operation;

/// The smallest sequence that could be found for which `fails` still holds.
///
/// `fails` is asked many times and must give the same answer for the same sequence. If it does not hold for
/// `operations` themselves, they are returned as they are.
pub fn minimise(operations: Vec<Operation>, mut fails: impl FnMut(&[Operation]) -> bool) -> Vec<Operation> {
    let mut smallest = operations;
    loop {
        let size_before = smallest.len();
        leave_out(&mut smallest, &mut fails);
        let simplified = simplify(&mut smallest, &mut fails);
        if !simplified && smallest.len() == size_before {
            return smallest;
        }
    }
}

/// Leaves out runs of operations, long ones first.
fn leave_out(operations: &mut Vec<Operation>, fails: &mut impl FnMut(&[Operation]) -> bool) {
    let mut run = operations.len().div_ceil(2);
    while run > 0 {
        let mut start = 0;
        while start < operations.len() {
            let end = (start + run).min(operations.len());
            let mut shorter = operations.clone();
            shorter.drain(start..end);
            if fails(&shorter) {
                *operations = shorter;
            } else {
                start = end;
            }
        }
        run /= 2;
    }
}

/// Replaces numbers by simpler ones. Says whether any was.
fn simplify(operations: &mut [Operation], fails: &mut impl FnMut(&[Operation]) -> bool) -> bool {
    let mut any = false;
    for index in 0..operations.len() {
        for simpler in simpler(&operations[index]) {
            let original = std::mem::replace(&mut operations[index], simpler);
            if fails(operations) {
                any = true;
            } else {
                operations[index] = original;
            }
        }
    }
    any
}

/// The operation with one of its numbers made smaller.
fn simpler(operation: &Operation) -> Vec<Operation> {
    let mut found = Vec::new();
    for number in 0..numbers(&mut operation.clone()).len() {
        for smaller in [|_| 0, |it| it / 4096 * 4096, |it| it / 2] as [fn(u64) -> u64; 3] {
            let mut changed = operation.clone();
            if let Some(number) = numbers(&mut changed).get_mut(number) {
                number.set(smaller(number.get()));
            }
            if changed != *operation {
                found.push(changed);
            }
        }
    }
    found
}

/// A number of an operation that may become smaller.
enum Number<'a> {
    Long(&'a mut u64),
    Short(&'a mut u32),
}

impl Number<'_> {
    fn get(&self) -> u64 {
        match self {
            Self::Long(number) => **number,
            Self::Short(number) => u64::from(**number),
        }
    }

    fn set(&mut self, to: u64) {
        match self {
            Self::Long(number) => **number = to,
            Self::Short(number) => **number = to as u32,
        }
    }
}

fn numbers(operation: &mut Operation) -> Vec<Number<'_>> {
    use Number::{Long, Short};
    match operation {
        Operation::Read { offset, size, .. } => vec![Long(offset), Short(size)],
        Operation::Write { offset, data, .. } => vec![Long(offset), Short(&mut data.size)],
        Operation::Truncate { size, .. } => vec![Long(size)],
        Operation::Fallocate { offset, size, .. } => vec![Long(offset), Long(size)],
        Operation::Seek { offset, .. } => vec![Long(offset)],
        Operation::CopyRange { from_offset, to_offset, size, .. } => {
            vec![Long(from_offset), Long(to_offset), Long(size)]
        }
        Operation::SetXattr { value, .. } => vec![Short(&mut value.size)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::operation::{Object, Outcome};
    use crate::{Generator, Profile, Target};

    /// A stand-in for a bug: a file that is larger than 100 bytes and has mode 0600.
    fn shows(operations: &[Operation]) -> bool {
        let mut model = Model::new();
        for operation in operations {
            model.apply(operation).ok();
        }
        model.paths().into_iter().any(|path| {
            let status = model.apply(&Operation::Stat { object: Object::Path(path) });
            matches!(status, Ok(Outcome::Status(it)) if it.size > 100 && it.mode == 0o600)
        })
    }

    #[test]
    fn a_long_failing_sequence_becomes_a_short_one() {
        let operations = (0..1000)
            .map(|seed| Generator::new(seed, Profile::LODEFS).take(100).collect::<Vec<_>>())
            .find(|operations| shows(operations))
            .unwrap();
        let smallest = minimise(operations, shows);
        assert!(shows(&smallest));
        assert!(smallest.len() <= 5, "directories to hold it, the file, its size and mode: {smallest:?}");
    }
}
