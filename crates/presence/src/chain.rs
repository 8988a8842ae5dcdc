//! Hash chains: one signature authenticates a day of beacons.
//!
//! L. Lamport, *Password authentication with insecure communication*, CACM 24(11), 1981: values are
//! revealed in the reverse of the order in which they were made, so that each proves the next one's
//! author and none can be made from those before it.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes of a value.
pub const VALUE_LEN: usize = 32;
/// Most beacons of one session: a day of the default period.
pub const MAX_CHAIN: u32 = 2880;

/// A value of a chain.
pub type Value = [u8; VALUE_LEN];

/// Distance of the values that are kept: a beacon costs less than this many hashes.
const STRIDE: u32 = 64;
const STEP_KEY: &[u8; 32] = b"x0x presence beacon chain step 1";
const FAREWELL_CONTEXT: &str = "x0x presence farewell 1";

/// Goes `steps` from a revealed value towards the anchor.
#[must_use]
pub fn advance(value: Value, steps: u32) -> Value {
    (0..steps).fold(value, |value, _| *blake3::keyed_hash(STEP_KEY, &value).as_bytes())
}

/// The owner's side of a chain. Erased when dropped.
pub(crate) struct Chain {
    /// Every [`STRIDE`]th value, the secret first.
    kept: Zeroizing<Vec<Value>>,
    length: u32,
    anchor: Value,
    farewell: Zeroizing<Value>,
}

impl Chain {
    /// A chain of `length` values from a secret, which is used for nothing else.
    pub(crate) fn new(secret: &Zeroizing<Value>, length: u32) -> Self {
        let mut kept = Zeroizing::new(Vec::with_capacity(length.div_ceil(STRIDE) as usize + 1));
        let mut value = Zeroizing::new(**secret);
        for step in 0..length {
            if step % STRIDE == 0 {
                kept.push(*value);
            }
            *value = advance(*value, 1);
        }
        let farewell = Zeroizing::new(blake3::derive_key(FAREWELL_CONTEXT, &**secret));
        Self { kept, length, anchor: *value, farewell }
    }

    /// What the signed record states: `length` steps from the secret.
    pub(crate) const fn anchor(&self) -> Value {
        self.anchor
    }

    /// What is revealed to say goodbye.
    pub(crate) fn farewell(&self) -> Value {
        *self.farewell
    }

    /// The `index`th value to reveal, `index` steps before the anchor; none past the chain's end.
    pub(crate) fn reveal(&self, index: u32) -> Option<Value> {
        let from_secret = self.length.checked_sub(index)?;
        let kept = self.kept.get((from_secret / STRIDE) as usize);
        match kept {
            Some(kept) => Some(advance(*kept, from_secret % STRIDE)),
            // Index 0 of a chain whose length is a multiple of the stride.
            None => Some(self.anchor),
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revealed_leads_to_the_anchor() {
        for length in [1, 63, 64, 65, 200] {
            let chain = Chain::new(&Zeroizing::new([7; 32]), length);
            for index in 0..=length {
                let value = chain.reveal(index).expect("within the chain");
                assert_eq!(advance(value, index), chain.anchor(), "{index} of {length}");
            }
            assert_eq!(chain.reveal(length + 1), None);
            assert_eq!(chain.reveal(length), Some([7; 32]), "the secret comes last");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let chain = Chain::new(&Zeroizing::new([7; 32]), 64);
        assert_eq!(format!("{chain:?}"), "Chain { length: 64, .. }");
        assert_ne!(chain.farewell(), chain.anchor());
    }
}
