//! A register that keeps what was written at the same time.

use std::collections::BTreeMap;

use x0x_core::DecodeError;

use crate::{
    codec::{Decoder, Encoder},
    dot::{Dot, Stamp},
    object::OpContext,
    types::Value,
};

/// A write takes the place of all that its author had seen; writes that saw nothing of each other stay
/// side by side, the one with the greatest stamp first. An actor's later write sees its earlier ones, so
/// that there are at most as many values as actors: a cap would make the result depend on the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiValue<T> {
    /// By time, then dot.
    values: BTreeMap<Stamp, T>,
}

impl<T> Default for MultiValue<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<T> MultiValue<T> {
    /// Writes a value.
    pub fn set(&mut self, cx: &OpContext<'_>, value: T) {
        self.clear(cx);
        self.values.insert(cx.stamp, value);
    }

    /// Removes what the operation's author had seen.
    pub fn clear(&mut self, cx: &OpContext<'_>) {
        self.values.retain(|stamp, _| !cx.sees(stamp.dot));
    }

    /// Keeps the values that a rule keeps, which must depend on nothing but the value and its stamp.
    pub fn retain(&mut self, mut keep: impl FnMut(Stamp, &T) -> bool) {
        self.values.retain(|stamp, value| keep(*stamp, value));
    }

    /// The value that counts, with its stamp.
    #[must_use]
    pub fn winner(&self) -> Option<(Stamp, &T)> {
        self.values.last_key_value().map(|(stamp, value)| (*stamp, value))
    }

    /// All values, the one that counts first.
    pub fn values(&self) -> impl Iterator<Item = (Stamp, &T)> {
        self.values.iter().rev().map(|(stamp, value)| (*stamp, value))
    }

    /// The dots of all values.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.values.keys().map(|stamp| stamp.dot)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl<T: Value> MultiValue<T> {
    /// Encodes it.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.count(self.values.len());
        for (stamp, value) in &self.values {
            encoder.stamp(*stamp);
            value.encode(encoder);
        }
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut values = BTreeMap::new();
        for _ in 0..decoder.count(18)? {
            let stamp = decoder.stamp()?;
            let last = values.last_key_value().map(|(stamp, _)| *stamp);
            if last.is_some_and(|last| last >= stamp) {
                return Err(DecodeError::Field("values"));
            }
            values.insert(stamp, T::decode(decoder)?);
        }
        Ok(Self { values })
    }
}
