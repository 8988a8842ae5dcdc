//! Binary values in JSON: hex ids and standard base64 with padding.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, schema::Schema, schema::Type},
};

/// Text that is not standard base64 with padding (RFC 4648 section 4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid base64: {0}")]
pub struct InvalidBase64(data_encoding::DecodeError);

/// Bytes that JSON carries as standard base64 with padding.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Base64(pub Bytes);

impl Base64 {
    /// Decodes the text form.
    ///
    /// # Errors
    /// [`InvalidBase64`] for any other alphabet, missing padding or trailing bits.
    pub fn decode(text: &str) -> Result<Bytes, InvalidBase64> {
        BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(InvalidBase64)
    }

    /// The text form.
    #[must_use]
    pub fn encode(bytes: &[u8]) -> String {
        BASE64.encode(bytes)
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl From<Bytes> for Base64 {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::decode(&text).map(Self).map_err(de::Error::custom)
    }
}

impl PartialSchema for Base64 {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .content_encoding("base64")
            .description(Some("Bytes as standard base64 with padding (RFC 4648 section 4)."))
            .into()
    }
}

impl ToSchema for Base64 {}

macro_rules! text_schema {
    ($(#[$doc:meta])* $name:ident, $pattern:literal, $description:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some($pattern))
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $name {}
    };
}

text_schema! {
    /// Schema of a 32-byte id in text form.
    Hex64, "^[0-9a-f]{64}$", "32 bytes as 64 lowercase hex characters."
}
text_schema! {
    /// Schema of a 16-byte message id in text form.
    Hex32, "^[0-9a-f]{32}$", "16 bytes as 32 lowercase hex characters."
}
text_schema! {
    /// Schema of a subscription id in text form.
    Hex16, "^[0-9a-f]{16}$", "8 bytes as 16 lowercase hex characters."
}
text_schema! {
    /// Schema of a socket address in text form.
    Address, "^.+:[0-9]{1,5}$", "`ip:port`, an IPv6 address in brackets."
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_other_alphabets() {
        for text in ["a", "aGk", "a-_=", "aGk=\n", "aGl="] {
            assert!(Base64::decode(text).is_err(), "{text:?}");
        }
        assert_eq!(Base64::decode("aGk=").expect("valid"), "hi");
        assert!(Base64::decode("!").expect_err("invalid").to_string().contains("invalid base64"));
    }

    proptest! {
        #[test]
        fn round_trip(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let value = Base64(Bytes::from(bytes));
            let json = serde_json::to_string(&value).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Base64>(&json).expect("reads back"), value);
        }
    }
}
