//! The `ok` field: a boolean whose value the type fixes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, schema::Schema, schema::Type},
};

/// Always the JSON boolean `VALUE`; any other value is refused when read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flag<const VALUE: bool>;

/// The `ok` of an answer.
pub type True = Flag<true>;

/// The `ok` of a failure.
pub type False = Flag<false>;

impl<const VALUE: bool> Serialize for Flag<VALUE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(VALUE)
    }
}

impl<'de, const VALUE: bool> Deserialize<'de> for Flag<VALUE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? == VALUE {
            Ok(Self)
        } else {
            Err(de::Error::custom(format_args!("expected {VALUE}")))
        }
    }
}

impl<const VALUE: bool> PartialSchema for Flag<VALUE> {
    fn schema() -> RefOr<Schema> {
        let description = format!("Always {VALUE}.");
        ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .enum_values(Some([VALUE]))
            .description(Some(description))
            .into()
    }
}

impl<const VALUE: bool> ToSchema for Flag<VALUE> {
    fn name() -> std::borrow::Cow<'static, str> {
        if VALUE { "True".into() } else { "False".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_value_is_read() {
        assert_eq!(serde_json::to_string(&Flag::<true>).expect("serialises"), "true");
        assert!(serde_json::from_str::<True>("true").is_ok());
        assert!(serde_json::from_str::<True>("false").is_err());
        assert!(serde_json::from_str::<False>("false").is_ok());
        assert!(serde_json::from_str::<False>("1").is_err());
    }
}
