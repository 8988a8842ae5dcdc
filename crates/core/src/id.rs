//! 32-byte identifiers, printed as 64 lowercase hex characters.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text was not exactly 64 hex characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// A character outside `[0-9a-fA-F]`, or an odd number of them.
    #[error("invalid hex: {0}")]
    Hex(data_encoding::DecodeError),
    /// Valid hex of another length.
    #[error("expected 32 bytes (64 hex chars), got {0}")]
    Length(usize),
}

/// Declares a public name for 32 bytes: made by `new`, read by `as_bytes`, ordered as the bytes are, and
/// shown in logs by its first four bytes. For what is no secret.
#[macro_export]
macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 raw bytes.
            #[must_use]
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// As the bytes are ordered. Word by word, since the maps of every machine are searched by
        /// such names and the first word decides almost always.
        impl Ord for $name {
            // In each crate that searches by them, at the optimisation of that crate.
            #[inline]
            fn cmp(&self, other: &Self) -> ::core::cmp::Ordering {
                let (words, others) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
                words
                    .iter()
                    .zip(others)
                    .map(|(a, b)| u64::from_be_bytes(*a).cmp(&u64::from_be_bytes(*b)))
                    .find(|order| order.is_ne())
                    .unwrap_or(::core::cmp::Ordering::Equal)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<::core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let [a, b, c, d, ..] = self.0;
                write!(f, "{}({a:02x}{b:02x}{c:02x}{d:02x})", stringify!($name))
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        bytes32! {
            $(#[$doc])*
            $name
        }

        impl $name {
            /// The first eight hex characters, for logs and tables.
            #[must_use]
            pub fn short(&self) -> String {
                HEXLOWER_PERMISSIVE.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes =
                    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(ParseIdError::Hex)?;
                let len = bytes.len();
                Ok(Self(bytes.try_into().map_err(|_| ParseIdError::Length(len))?))
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

id! {
    /// A machine: SHA-256 of its ML-DSA-65 public key. The QUIC endpoint's identity, so also the
    /// peer id of the transport.
    MachineId
}
id! {
    /// An agent: SHA-256 of its ML-DSA-65 public key. Portable between machines.
    AgentId
}
id! {
    /// A person or organisation standing behind agents: SHA-256 of its ML-DSA-65 public key.
    UserId
}
id! {
    /// A gossip topic: a hash of its name.
    TopicId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let id = AgentId::new([0xab; 32]);
        assert_eq!(id.to_string().parse::<AgentId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<AgentId>(), Ok(id));
        assert_eq!("abcd".parse::<AgentId>(), Err(ParseIdError::Length(2)));
        assert!(matches!("xy".parse::<AgentId>(), Err(ParseIdError::Hex(_))));
        assert_eq!(id.short(), "abababab");
    }

    #[test]
    fn ids_are_ordered_as_their_bytes() {
        let mut rng = crate::SeededRng::from_number(1);
        for _ in 0..10_000 {
            let same = rng.below(33);
            let a: [u8; 32] = std::array::from_fn(|_| rng.next_u64() as u8);
            let b = std::array::from_fn(|i| if i < same { a[i] } else { rng.next_u64() as u8 });
            assert_eq!(TopicId::new(a).cmp(&TopicId::new(b)), a.cmp(&b));
        }
    }

    #[test]
    fn serde_uses_hex() {
        let id = TopicId::new([1; 32]);
        let json = serde_json::to_string(&id).expect("ids serialise");
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<TopicId>(&json).expect("round trip"), id);
        assert!(serde_json::from_str::<TopicId>("\"00\"").is_err());
    }
}
