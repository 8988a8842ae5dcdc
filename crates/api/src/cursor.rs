//! A place in a topic's log, as clients keep it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, schema::Schema, schema::Type},
};

/// Where a client is in a topic of one daemon: the place after a message. To clients it is text that
/// they hand back. It stays valid across restarts of a daemon that keeps its topics on disk; to any
/// other daemon, and after what it names was dropped, it means the oldest message that is kept, behind
/// a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CursorToken {
    /// Which life of the topic's log the position counts in.
    pub log: u64,
    /// The position.
    pub position: u64,
}

/// The text is no [`CursorToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor: expected one that this daemon gave with a message")]
pub struct InvalidCursor;

impl fmt::Display for CursorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.log, self.position)
    }
}

impl FromStr for CursorToken {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (log, position) = text.split_once('-').ok_or(InvalidCursor)?;
        let parse = |part| u64::from_str_radix(part, 16).map_err(|_| InvalidCursor);
        let token = Self { log: parse(log)?, position: parse(position)? };
        // One text a place, so that clients may compare them.
        if token.to_string() == text { Ok(token) } else { Err(InvalidCursor) }
    }
}

impl Serialize for CursorToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CursorToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl PartialSchema for CursorToken {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9a-f]{1,16}-[0-9a-f]{1,16}$"))
            .description(Some("A place in a topic of this daemon, to be handed back as `since`."))
            .into()
    }
}

impl ToSchema for CursorToken {
    fn name() -> std::borrow::Cow<'static, str> {
        "Cursor".into()
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Since {
    /// With the oldest message that the daemon keeps.
    #[default]
    Oldest,
    /// With what comes from now on: the text `now`.
    Now,
    /// After a message: its cursor.
    After(CursorToken),
}

impl Since {
    /// Reads an optional `since`.
    ///
    /// # Errors
    /// [`InvalidCursor`] for what is neither `now` nor a cursor.
    pub fn parse(text: Option<&str>) -> Result<Self, InvalidCursor> {
        match text {
            None => Ok(Self::Oldest),
            Some("now") => Ok(Self::Now),
            Some(text) => text.parse().map(Self::After),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_text() {
        for token in [
            CursorToken { log: 0, position: 0 },
            CursorToken { log: 0x12ab, position: 7 },
            CursorToken { log: u64::MAX, position: u64::MAX },
        ] {
            let json = serde_json::to_string(&token).expect("serialises");
            assert_eq!(serde_json::from_str::<CursorToken>(&json).expect("reads back"), token);
            assert_eq!(Since::parse(Some(&token.to_string())), Ok(Since::After(token)));
        }
        assert_eq!(Since::parse(None), Ok(Since::Oldest));
        assert_eq!(Since::parse(Some("now")), Ok(Since::Now));
        for bad in ["", "-", "1", "1-", "-1", "01-1", "A-1", "+1-1", "1-2-3", "1-10000000000000000"]
        {
            assert_eq!(Since::parse(Some(bad)), Err(InvalidCursor), "{bad}");
        }
    }
}
