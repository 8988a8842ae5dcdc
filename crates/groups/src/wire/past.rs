//! What was written in an encrypted group, as a member hands it to one that came in later.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, WallTime, fixed_bytes};
use x0x_mls::MAX_PAYLOAD;

use super::is_text;
use crate::limits::{MAX_NAME, MAX_TEXTS};

#[derive(Clone, PartialEq, Message)]
pub(super) struct PastWire {
    #[prost(message, repeated, tag = "1")]
    texts: Vec<PastTextWire>,
}

#[derive(Clone, PartialEq, Message)]
struct PastTextWire {
    #[prost(bytes = "bytes", tag = "1")]
    author: Bytes,
    #[prost(string, tag = "2")]
    room: String,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
    #[prost(bytes = "bytes", tag = "5")]
    payload: Bytes,
}

/// A text from before an agent came in. That its author wrote it, only the member says who handed it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastText {
    /// Who is said to have written it.
    pub author: AgentId,
    /// In which room; empty for the first.
    pub room: String,
    /// Its author's name for it.
    pub id: [u8; 16],
    /// When it came to the member.
    pub at: WallTime,
    /// What.
    pub payload: Bytes,
}

impl PastWire {
    pub(super) fn new(texts: Vec<PastText>) -> Self {
        let texts = texts.into_iter().map(|text| PastTextWire {
            author: Bytes::copy_from_slice(text.author.as_bytes()),
            room: text.room,
            id: Bytes::copy_from_slice(&text.id),
            at_ms: text.at.as_millis(),
            payload: text.payload,
        });
        Self { texts: texts.collect() }
    }

    pub(super) fn read(self) -> Result<Vec<PastText>, DecodeError> {
        if self.texts.len() > MAX_TEXTS {
            return Err(DecodeError::Field("texts"));
        }
        self.texts.into_iter().map(PastTextWire::read).collect()
    }
}

impl PastTextWire {
    fn read(self) -> Result<PastText, DecodeError> {
        if !is_text(&self.room, MAX_NAME) {
            return Err(DecodeError::Field("room"));
        }
        if self.payload.len() > MAX_PAYLOAD {
            return Err(DecodeError::Field("payload"));
        }
        Ok(PastText {
            author: AgentId::new(fixed_bytes(&self.author, "author")?),
            room: self.room,
            id: fixed_bytes(&self.id, "id")?,
            at: WallTime::from_millis(self.at_ms),
            payload: self.payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> PastText {
        PastText {
            author: AgentId::new([1; 32]),
            room: "room".to_owned(),
            id: [2; 16],
            at: WallTime::from_millis(3),
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn texts_come_back_as_they_were() {
        let texts = vec![text(), PastText { room: String::new(), payload: Bytes::new(), ..text() }];
        assert_eq!(PastWire::new(texts.clone()).read(), Ok(texts));
    }

    #[test]
    fn what_is_too_much_or_no_text_is_refused() {
        let many = PastWire::new(vec![text(); MAX_TEXTS + 1]);
        assert_eq!(many.read(), Err(DecodeError::Field("texts")));
        for (bad, field) in [
            (PastText { room: "\u{202e}".to_owned(), ..text() }, "room"),
            (PastText { room: "r".repeat(MAX_NAME + 1), ..text() }, "room"),
            (PastText { payload: Bytes::from(vec![0; MAX_PAYLOAD + 1]), ..text() }, "payload"),
        ] {
            assert_eq!(PastWire::new(vec![bad]).read(), Err(DecodeError::Field(field)));
        }
        let mut nobody = PastWire::new(vec![text()]);
        nobody.texts[0].author = Bytes::new();
        assert_eq!(nobody.read(), Err(DecodeError::Field("author")));
    }
}
