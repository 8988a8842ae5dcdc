//! A register in which the last writer wins.

use x0x_core::DecodeError;

use crate::{
    codec::{Decoder, Encoder},
    dot::Stamp,
    object::OpContext,
    types::Value,
};

/// Keeps the value with the greatest [`Stamp`], and that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register<T> {
    stamp: Stamp,
    value: T,
}

impl<T: Default> Default for Register<T> {
    fn default() -> Self {
        Self { stamp: Stamp::default(), value: T::default() }
    }
}

impl<T> Register<T> {
    /// Holds what an operation sets.
    #[must_use]
    pub const fn new(cx: &OpContext<'_>, value: T) -> Self {
        Self { stamp: cx.stamp, value }
    }

    /// Sets a value, unless a later one is there. Returns whether it is the value now.
    pub fn set(&mut self, cx: &OpContext<'_>, value: T) -> bool {
        let later = cx.stamp > self.stamp;
        if later {
            (self.stamp, self.value) = (cx.stamp, value);
        }
        later
    }

    /// The value.
    #[must_use]
    pub const fn get(&self) -> &T {
        &self.value
    }

    /// When it was set; the least stamp when it never was.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl<T: Value> Register<T> {
    /// Encodes it.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.stamp(self.stamp);
        self.value.encode(encoder);
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { stamp: decoder.stamp()?, value: T::decode(decoder)? })
    }
}
