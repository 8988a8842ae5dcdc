//! Parts that types are made of. Each is changed by an operation's effect, with the operation's
//! [`OpContext`](crate::OpContext), and relies on what the framework promises: causal order, once each. So none keeps a
//! trace of what was removed.

mod counter;
mod order;
mod register;
mod set;
mod values;

pub use counter::Tally;
pub use order::{MAX_KEY, OrderKey, between};
pub use register::Register;
pub use set::AddWinsSet;
pub use values::MultiValue;

use x0x_core::DecodeError;

use crate::codec::{Decoder, Encoder};

/// A value within a state. Its order in a map and its encoding are canonical.
pub trait Value: Clone + Send + Sync + std::fmt::Debug + 'static {
    /// Encodes it.
    fn encode(&self, encoder: &mut Encoder);

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

impl Value for u64 {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(*self);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.number()
    }
}

impl Value for String {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.text(self);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(decoder.text(crate::MAX_OP)?.to_owned())
    }
}

impl Value for bytes::Bytes {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.bytes(self);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self::copy_from_slice(decoder.bytes(crate::MAX_OP)?))
    }
}

impl Value for x0x_core::AgentId {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.agent(self);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.agent()
    }
}

impl<T: Value> Value for Option<T> {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.flag(self.is_some());
        if let Some(value) = self {
            value.encode(encoder);
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.flag()?.then(|| T::decode(decoder)).transpose()
    }
}
