//! Content that is described rather than stored, so that a saved case stays small.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// `size` bytes that follow from `seed`. Seed 0 stands for zeros: storing zeros is a case of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// What the bytes follow from.
    pub seed: u32,
    /// How many there are.
    pub size: u32,
}

impl Pattern {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        let size = self.size as usize;
        if self.seed == 0 {
            return vec![0; size];
        }
        let mut rng = Rng::new(u64::from(self.seed));
        let mut bytes = Vec::with_capacity(size.next_multiple_of(8));
        while bytes.len() < size {
            bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_and_size_are_all_there_is() {
        let long = Pattern { seed: 3, size: 100 }.bytes();
        assert_eq!(long.len(), 100);
        assert_eq!(Pattern { seed: 3, size: 13 }.bytes(), long[..13]);
        assert_ne!(Pattern { seed: 4, size: 100 }.bytes(), long);
        assert_eq!(Pattern { seed: 0, size: 5 }.bytes(), [0; 5]);
    }
}
