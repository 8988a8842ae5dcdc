//! Frames as a hostile peer writes them, field by field.

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, TopicId};

/// Fields of a message, in the order in which they are added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn number(mut self, tag: u32, value: u64) -> Self {
        if value > 0 {
            self.varint(u64::from(tag) << 3);
            self.varint(value);
        }
        self
    }

    pub(crate) fn bytes(mut self, tag: u32, value: &[u8]) -> Self {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn all(self, tag: u32, values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().fold(self, |fields, value| fields.bytes(tag, &value.0))
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The frame of this kind.
    pub(crate) fn frame(self, kind: u32) -> Bytes {
        Self::default().bytes(kind, &self.0).0.into()
    }
}

pub(crate) fn topic(topic: TopicId) -> Fields {
    Fields::default().bytes(1, topic.as_bytes())
}

pub(crate) fn head(author: AgentId, epoch: u64, seq: u64) -> Fields {
    Fields::default().bytes(1, author.as_bytes()).number(2, epoch).number(3, seq)
}

/// An announcement of heads, each with the links that it crossed.
pub(crate) fn announce(of: TopicId, heads: &[(AgentId, u64, u64, u32)]) -> Bytes {
    let heads = heads
        .iter()
        .map(|(author, epoch, seq, hops)| head(*author, *epoch, *seq).number(4, u64::from(*hops)));
    Fields::default().all(1, [topic(of).all(2, heads)]).frame(4)
}

pub(crate) fn publish(run: &[u8], key: &[u8], floor: bool, hops: u32) -> Bytes {
    let fields = Fields::default().bytes(1, run).bytes(2, key);
    fields.number(3, u64::from(floor)).number(4, u64::from(hops)).frame(2)
}

/// What the sender has of a topic, and whether an answer is wanted.
pub(crate) fn heads(of: TopicId, heads: impl Iterator<Item = Fields>, reply: bool) -> Bytes {
    topic(of).all(2, heads).number(3, u64::from(reply)).frame(8)
}

/// An answer to a search: peers with their addresses as text.
pub(crate) fn peers_found(of: TopicId, id: u64, peers: &[(MachineId, &str)]) -> Bytes {
    let peers = peers.iter().map(|(peer, addresses)| {
        Fields::default().bytes(1, peer.as_bytes()).bytes(2, addresses.as_bytes())
    });
    topic(of).number(2, id).all(3, peers).frame(11)
}

/// The kind of a frame.
pub(crate) fn kind(frame: &[u8]) -> u32 {
    u32::from(frame[0] >> 3)
}

/// The id of a search.
pub(crate) fn search_id(frame: &[u8]) -> u64 {
    // Tag and length of the message, tag, length and bytes of the topic, tag of the id.
    let id = &frame[2 + 2 + 32 + 1..];
    let mut value = 0;
    for (place, byte) in id.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
