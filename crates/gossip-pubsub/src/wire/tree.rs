//! The messages of the tree: announcements, prune, graft, and requests for entries.

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, TopicId};

use crate::{config::MAX_ANNOUNCED, error::WireError};

use super::{FrameKind, author_field, check_count, copy, encode, topic_field};

/// A request to send an author's entries.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WantWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) from_seq: u64,
    #[prost(bool, tag = "5")]
    pub(crate) need_key: bool,
}

/// Heads that are new to the receiver, by topic.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AnnounceWire {
    /// Encoded [`TopicAnnounceWire`]s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) topics: Vec<Bytes>,
}

/// Heads of one topic.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TopicAnnounceWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) heads: Vec<AnnouncedWire>,
}

/// The sender has an author's entries up to this one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AnnouncedWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) seq: u64,
    /// Links that the run with this entry crossed on its way to the sender.
    #[prost(uint32, tag = "4")]
    pub(crate) hops: u32,
    /// It will not be pushed on any link: too large for that.
    #[prost(bool, tag = "5")]
    pub(crate) pull: bool,
}

/// Do not push an author's runs here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PruneWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    /// The link leaves the shared tree.
    #[prost(bool, tag = "4")]
    pub(crate) tree: bool,
}

/// Push runs here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraftWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) topic: Bytes,
    /// Empty when only the shared tree is meant.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    /// The first entry that is missing.
    #[prost(uint64, tag = "4")]
    pub(crate) from_seq: u64,
    /// The link joins the shared tree.
    #[prost(bool, tag = "5")]
    pub(crate) tree: bool,
}

/// A request to send entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantIn {
    pub(crate) topic: TopicId,
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) from_seq: u64,
    pub(crate) need_key: bool,
}

/// Heads that the peer has, at most [`MAX_ANNOUNCED`] in all.
#[derive(Debug, Clone)]
pub struct AnnounceIn {
    pub(crate) heads: Vec<(TopicId, Announced)>,
}

/// The peer has an author's entries up to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) hops: u32,
    pub(crate) pull: bool,
}

/// The peer gets an author's runs from another link too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneIn {
    pub(crate) topic: TopicId,
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    pub(crate) tree: bool,
}

/// The peer wants runs pushed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraftIn {
    pub(crate) topic: TopicId,
    /// Author, epoch and the first entry that it lacks; none when it means the shared tree only.
    pub(crate) chain: Option<(AgentId, u64, u64)>,
    pub(crate) tree: bool,
}

impl WantIn {
    pub(super) fn from_wire(wire: &WantWire) -> Result<Self, WireError> {
        Ok(Self {
            topic: topic_field(&wire.topic)?,
            author: author_field(&wire.author)?,
            epoch: wire.epoch,
            from_seq: wire.from_seq,
            need_key: wire.need_key,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Want(WantWire {
            topic: copy(self.topic.as_bytes()),
            author: copy(self.author.as_bytes()),
            epoch: self.epoch,
            from_seq: self.from_seq,
            need_key: self.need_key,
        }))
    }
}

impl AnnounceIn {
    pub(super) fn from_wire(wire: AnnounceWire) -> Result<Self, WireError> {
        let mut heads = Vec::new();
        for bytes in wire.topics {
            check_count(
                &bytes,
                &[2],
                MAX_ANNOUNCED.saturating_sub(heads.len()),
                "announced heads",
            )?;
            let wire = TopicAnnounceWire::decode(bytes)?;
            let topic = topic_field(&wire.topic)?;
            for head in &wire.heads {
                let author = author_field(&head.author)?;
                let AnnouncedWire { epoch, seq, hops, pull, .. } = *head;
                heads.push((topic, Announced { author, epoch, seq, hops, pull }));
            }
        }
        Ok(Self { heads })
    }

    /// Encodes heads; those of one topic come one after the other.
    pub(crate) fn encode(heads: &[(TopicId, Announced)]) -> Bytes {
        let topics = heads.chunk_by(|(a, _), (b, _)| a == b).map(|heads| {
            let topic = heads.first().map_or_else(Bytes::new, |(topic, _)| copy(topic.as_bytes()));
            let heads = heads.iter().map(|(_, head)| AnnouncedWire {
                author: copy(head.author.as_bytes()),
                epoch: head.epoch,
                seq: head.seq,
                hops: head.hops,
                pull: head.pull,
            });
            TopicAnnounceWire { topic, heads: heads.collect() }.encode_to_vec().into()
        });
        encode(FrameKind::Announce(AnnounceWire { topics: topics.collect() }))
    }
}

impl PruneIn {
    pub(super) fn from_wire(wire: &PruneWire) -> Result<Self, WireError> {
        let (topic, author) = (topic_field(&wire.topic)?, author_field(&wire.author)?);
        Ok(Self { topic, author, epoch: wire.epoch, tree: wire.tree })
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(FrameKind::Prune(PruneWire {
            topic: copy(self.topic.as_bytes()),
            author: copy(self.author.as_bytes()),
            epoch: self.epoch,
            tree: self.tree,
        }))
    }
}

impl GraftIn {
    pub(super) fn from_wire(wire: &GraftWire) -> Result<Self, WireError> {
        let chain = match wire.author.len() {
            0 => None,
            _ => Some((author_field(&wire.author)?, wire.epoch, wire.from_seq)),
        };
        Ok(Self { topic: topic_field(&wire.topic)?, chain, tree: wire.tree })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let (author, epoch, from_seq) = match self.chain {
            Some((author, epoch, from_seq)) => (copy(author.as_bytes()), epoch, from_seq),
            None => Default::default(),
        };
        let topic = copy(self.topic.as_bytes());
        encode(FrameKind::Graft(GraftWire { topic, author, epoch, from_seq, tree: self.tree }))
    }
}
