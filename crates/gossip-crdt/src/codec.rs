//! The canonical encoding of states: one value has one encoding, so that replicas compare states by
//! their hash.
//!
//! Numbers are LEB128 of the least length, byte strings are preceded by their length. Whoever encodes a
//! map or set writes it in the order of its keys, without repetition.

use x0x_core::{AgentId, DecodeError};

use crate::dot::{ActorTag, Dot, Stamp};

/// Appends values to an encoding.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty encoding.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A number.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// A signed number, small ones of either sign in few bytes.
    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// True or false.
    pub fn flag(&mut self, flag: bool) {
        self.bytes.push(flag.into());
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Text with its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes of a length that the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An agent.
    pub fn agent(&mut self, agent: &AgentId) {
        self.raw(agent.as_bytes());
    }

    /// A dot.
    pub fn dot(&mut self, dot: Dot) {
        self.raw(dot.actor.as_bytes());
        self.number(dot.seq);
    }

    /// A stamp.
    pub fn stamp(&mut self, stamp: Stamp) {
        self.number(stamp.millis);
        self.dot(stamp.dot);
    }

    /// How many items follow.
    pub fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// Bytes so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The encoding.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads an encoding from its beginning. Nothing that it reads makes it allocate more than the bytes
/// that are there.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Bytes of a known length.
    ///
    /// # Errors
    /// [`DecodeError`]: fewer are left.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.raw(N)?.try_into().map_err(|_| DecodeError::Malformed)
    }

    /// A number.
    ///
    /// # Errors
    /// [`DecodeError`]: none is there, or not in its shortest form.
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(number) } else { Err(DecodeError::Malformed) };
            }
        }
        Err(DecodeError::Malformed)
    }

    /// A number of at most 32 bits.
    ///
    /// # Errors
    /// [`DecodeError`]: none is there, or it is greater.
    pub fn number32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.number()?).map_err(|_| DecodeError::Malformed)
    }

    /// A signed number.
    ///
    /// # Errors
    /// [`DecodeError`]: none is there.
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// True or false.
    ///
    /// # Errors
    /// [`DecodeError`]: neither is there.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::Malformed),
        }
    }

    /// Bytes with their length, at most `max`.
    ///
    /// # Errors
    /// [`DecodeError`]: they are longer, or not all there.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.number()?).map_err(|_| DecodeError::Malformed)?;
        if len > max {
            return Err(DecodeError::TooLarge { len, max });
        }
        self.raw(len)
    }

    /// Text with its length, of at most `max` bytes.
    ///
    /// # Errors
    /// [`DecodeError`]: it is longer, not all there, or no UTF-8.
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes(max)?).map_err(|_| DecodeError::Malformed)
    }

    /// An agent.
    ///
    /// # Errors
    /// [`DecodeError`]: it is not all there.
    pub fn agent(&mut self) -> Result<AgentId, DecodeError> {
        Ok(AgentId::new(self.array()?))
    }

    /// A dot.
    ///
    /// # Errors
    /// [`DecodeError`]: it is not all there.
    pub fn dot(&mut self) -> Result<Dot, DecodeError> {
        Ok(Dot { actor: ActorTag::new(self.array()?), seq: self.number()? })
    }

    /// A stamp.
    ///
    /// # Errors
    /// [`DecodeError`]: it is not all there.
    pub fn stamp(&mut self) -> Result<Stamp, DecodeError> {
        Ok(Stamp { millis: self.number()?, dot: self.dot()? })
    }

    /// How many items follow, of at least `each` bytes: no more than the bytes left can hold.
    ///
    /// # Errors
    /// [`DecodeError`]: there cannot be so many.
    pub fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::Malformed)?;
        if count > self.rest.len() / each.max(1) {
            return Err(DecodeError::Malformed);
        }
        Ok(count)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError`]: something is.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn values_come_back(number: u64, signed: i64, bytes: Vec<u8>, flag: bool) {
            let mut encoder = Encoder::new();
            encoder.number(number);
            encoder.signed(signed);
            encoder.bytes(&bytes);
            encoder.flag(flag);
            let encoded = encoder.finish();
            let mut decoder = Decoder::new(&encoded);
            prop_assert_eq!(decoder.number(), Ok(number));
            prop_assert_eq!(decoder.signed(), Ok(signed));
            prop_assert_eq!(decoder.bytes(bytes.len()), Ok(&bytes[..]));
            prop_assert_eq!(decoder.flag(), Ok(flag));
            prop_assert!(decoder.finish().is_ok());
        }
    }

    #[test]
    fn a_number_has_one_encoding() {
        for bytes in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 11], &[]] {
            assert!(Decoder::new(bytes).number().is_err(), "{bytes:?}");
        }
        let mut encoder = Encoder::new();
        encoder.number(u64::MAX);
        assert_eq!(Decoder::new(&encoder.finish()).number(), Ok(u64::MAX));
        assert!(Decoder::new(&[0xff, 0x01]).count(8).is_err());
    }
}
