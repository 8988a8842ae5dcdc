//! A counter.

use x0x_core::DecodeError;

use crate::codec::{Decoder, Encoder};

/// A sum of signed steps. Wide enough that no number of operations overflows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally(i128);

impl Tally {
    /// Adds an operation's step.
    pub fn add(&mut self, step: i64) {
        self.0 = self.0.wrapping_add(step.into());
    }

    /// The sum.
    #[must_use]
    pub const fn value(&self) -> i128 {
        self.0
    }

    /// Encodes it.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.raw(&self.0.to_be_bytes());
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let bytes = decoder.raw(16)?.try_into().map_err(|_| DecodeError::Malformed)?;
        Ok(Self(i128::from_be_bytes(bytes)))
    }
}
