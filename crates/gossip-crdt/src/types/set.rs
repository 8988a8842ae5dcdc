//! A set in which an addition wins over a removal that did not see it.

use std::collections::BTreeMap;

use x0x_core::DecodeError;

use crate::{
    codec::{Decoder, Encoder},
    dot::Dot,
    object::OpContext,
    types::Value,
};

/// An observed-remove set without tombstones: each element keeps the dots of the additions that no
/// removal and no later addition saw. What was removed leaves nothing, since the operation that removes knows
/// its causal past (compare Bieniusa et al., "An optimized conflict-free replicated set", 2012).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddWinsSet<T> {
    elements: BTreeMap<T, Vec<Dot>>,
}

impl<T> Default for AddWinsSet<T> {
    fn default() -> Self {
        Self { elements: BTreeMap::new() }
    }
}

impl<T: Ord> AddWinsSet<T> {
    /// Adds an element. Returns whether it is new.
    pub fn add(&mut self, cx: &OpContext<'_>, element: T) -> bool {
        let dots = self.elements.entry(element).or_default();
        let new = dots.is_empty();
        dots.retain(|dot| !cx.sees(*dot));
        if let Err(at) = dots.binary_search(&cx.dot) {
            dots.insert(at, cx.dot);
        }
        new
    }

    /// Removes an element as far as the operation's author had seen it. Returns whether it is gone.
    pub fn remove(&mut self, cx: &OpContext<'_>, element: &T) -> bool {
        let Some(dots) = self.elements.get_mut(element) else { return false };
        dots.retain(|dot| !cx.sees(*dot));
        let gone = dots.is_empty();
        if gone {
            self.elements.remove(element);
        }
        gone
    }

    /// Whether an element is in it.
    pub fn contains(&self, element: &T) -> bool {
        self.elements.contains_key(element)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.elements.keys()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}

impl<T: Value + Ord> AddWinsSet<T> {
    /// Encodes it.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.count(self.elements.len());
        for (element, dots) in &self.elements {
            element.encode(encoder);
            encoder.count(dots.len());
            dots.iter().for_each(|dot| encoder.dot(*dot));
        }
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut elements: BTreeMap<T, Vec<Dot>> = BTreeMap::new();
        for _ in 0..decoder.count(19)? {
            let element = T::decode(decoder)?;
            let count = decoder.count(17)?;
            let dots = (0..count).map(|_| decoder.dot()).collect::<Result<Vec<_>, _>>()?;
            let last = elements.last_key_value();
            if dots.is_empty()
                || !dots.is_sorted_by(|a, b| a < b)
                || last.is_some_and(|(last, _)| *last >= element)
            {
                return Err(DecodeError::Field("elements"));
            }
            elements.insert(element, dots);
        }
        Ok(Self { elements })
    }
}
