//! A type with one of each part, to test the framework by.

use std::collections::BTreeMap;

use x0x_core::DecodeError;

use crate::{
    codec::{Decoder, Encoder},
    config::MAX_OP,
    object::{Invalid, Object, OpContext},
    policy::Role,
    types::{AddWinsSet, MultiValue, Register, Tally},
};

/// An operation on a [`Sample`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleOp {
    /// Sets the title.
    Title(String),
    /// Puts a value under a key.
    Put(String, String),
    /// Removes the values of a key that were seen.
    Delete(String),
    /// Adds an element.
    Add(String),
    /// Removes an element.
    Remove(String),
    /// Adds to the sum.
    Step(i64),
    /// Empties the title: admins only.
    Reset,
}

/// What changed in a [`Sample`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleEvent {
    /// A key, or the title.
    Set(String),
    /// A key or an element is gone.
    Gone(String),
}

/// A register, a map of multi-value registers, a set and a sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The title.
    pub title: Register<String>,
    /// Values by key.
    pub values: BTreeMap<String, MultiValue<String>>,
    /// Elements.
    pub elements: AddWinsSet<String>,
    /// The sum.
    pub sum: Tally,
    bytes: usize,
}

impl Object for Sample {
    const KIND: &'static str = "sample/1";
    type Op = SampleOp;
    type Event = SampleEvent;

    fn encode_op(op: &SampleOp) -> Vec<u8> {
        let mut encoder = Encoder::new();
        match op {
            SampleOp::Title(text) => {
                encoder.number(0);
                encoder.text(text);
            }
            SampleOp::Put(key, value) => {
                encoder.number(1);
                encoder.text(key);
                encoder.text(value);
            }
            SampleOp::Delete(key) => {
                encoder.number(2);
                encoder.text(key);
            }
            SampleOp::Add(element) => {
                encoder.number(3);
                encoder.text(element);
            }
            SampleOp::Remove(element) => {
                encoder.number(4);
                encoder.text(element);
            }
            SampleOp::Step(step) => {
                encoder.number(5);
                encoder.signed(*step);
            }
            SampleOp::Reset => encoder.number(6),
        }
        encoder.finish()
    }

    fn decode_op(bytes: &[u8]) -> Result<SampleOp, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let kind = decoder.number()?;
        let mut text = || decoder.text(MAX_OP).map(str::to_owned);
        let op = match kind {
            0 => SampleOp::Title(text()?),
            1 => SampleOp::Put(text()?, text()?),
            2 => SampleOp::Delete(text()?),
            3 => SampleOp::Add(text()?),
            4 => SampleOp::Remove(text()?),
            5 => SampleOp::Step(decoder.signed()?),
            6 => SampleOp::Reset,
            _ => return Err(DecodeError::Field("kind")),
        };
        decoder.finish()?;
        Ok(op)
    }

    fn check(&self, cx: &OpContext<'_>, op: &SampleOp) -> Result<(), Invalid> {
        match op {
            SampleOp::Reset if cx.role() < Role::Admin => Err(Invalid("only admins reset")),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, cx: &OpContext<'_>, op: SampleOp, events: &mut Vec<SampleEvent>) {
        match op {
            SampleOp::Title(title) => {
                self.title.set(cx, title);
                events.push(SampleEvent::Set("title".to_owned()));
            }
            SampleOp::Put(key, value) => {
                self.bytes += key.len() + value.len();
                self.values.entry(key.clone()).or_default().set(cx, value);
                events.push(SampleEvent::Set(key));
            }
            SampleOp::Delete(key) => {
                let Some(values) = self.values.get_mut(&key) else { return };
                values.clear(cx);
                if values.is_empty() {
                    self.values.remove(&key);
                    events.push(SampleEvent::Gone(key));
                }
            }
            SampleOp::Add(element) => {
                self.elements.add(cx, element);
            }
            SampleOp::Remove(element) => {
                if self.elements.remove(cx, &element) {
                    events.push(SampleEvent::Gone(element));
                }
            }
            SampleOp::Step(step) => self.sum.add(step),
            SampleOp::Reset => {
                self.title.set(cx, String::new());
            }
        }
    }

    fn encode_state(&self, encoder: &mut Encoder) {
        self.title.encode(encoder);
        encoder.count(self.values.len());
        for (key, values) in &self.values {
            encoder.text(key);
            values.encode(encoder);
        }
        self.elements.encode(encoder);
        self.sum.encode(encoder);
        encoder.number(self.bytes as u64);
    }

    fn decode_state(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let title = Register::decode(decoder)?;
        let mut values: BTreeMap<String, _> = BTreeMap::new();
        for _ in 0..decoder.count(2)? {
            let key = decoder.text(MAX_OP)?.to_owned();
            if values.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Field("keys"));
            }
            values.insert(key, MultiValue::decode(decoder)?);
        }
        let (elements, sum) = (AddWinsSet::decode(decoder)?, Tally::decode(decoder)?);
        let bytes = usize::try_from(decoder.number()?).map_err(|_| DecodeError::Malformed)?;
        Ok(Self { title, values, elements, sum, bytes })
    }

    fn size(&self) -> usize {
        self.bytes
    }
}
