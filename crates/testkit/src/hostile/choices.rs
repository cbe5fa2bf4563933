//! The bytes of an input as choices. Whatever is asked for behind their end is zero, so that every input is a case.

/// Bytes that are still to be used.
#[derive(Clone, Debug)]
pub(super) struct Choices<'d>(&'d [u8]);

impl<'d> Choices<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left of the input.
    pub(super) fn rest(&self) -> &'d [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    pub(super) fn half_word(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// One of `all`, if there are any.
    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = usize::from(self.half_word()).checked_rem(all.len())?;
        all.get(at)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, left) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = left;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_too_short_goes_on_with_zeros() {
        let mut choices = Choices::new(&[1, 2, 0, 3]);
        assert_eq!((choices.byte(), choices.half_word(), choices.number()), (1, 2, 3));
        assert!(choices.is_empty());
        assert_eq!((choices.byte(), choices.pick(&[5, 6]), choices.pick::<u8>(&[])), (0, Some(&5), None));
    }
}
