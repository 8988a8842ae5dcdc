//! What is in a file of the tail: a generation, then a record for each commit.
//!
//! A record is its length and a checksum, both in the order of big-endian bytes, and a protobuf
//! message. Reading ends at the first that is cut or damaged.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message;
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_gossip_pubsub::LogChange;

use crate::logs::AppendedRun;

/// What a file begins with, before its generation.
const MAGIC: [u8; 8] = *b"x0xtail1";

/// Bytes before a record's message: length and checksum.
const HEAD: usize = 4 + 8;

/// Key of the checksum, so that it is no other hash of this project.
const KEY: [u8; 32] = *b"x0x/store/tail/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A change that was read back.
#[derive(Debug)]
pub(crate) enum Replayed {
    /// A run that was appended, as its row has it.
    Append(AppendedRun),
    /// Anything else.
    Other(LogChange),
}

/// Writes the head of a file.
pub(crate) fn begin(buffer: &mut Vec<u8>, generation: u64) {
    buffer.put_slice(&MAGIC);
    buffer.put_u64(generation);
}

/// Writes a record. The key of an author is left out where the file has it already.
pub(crate) fn add(buffer: &mut Vec<u8>, changes: &[LogChange], authors: &mut BTreeSet<AgentId>) {
    let changes = changes.iter().filter_map(|change| Change::of(change, authors)).collect();
    let message = Commit { changes };
    let at = buffer.len();
    buffer.put_bytes(0, HEAD);
    message.encode_raw(buffer);
    let (head, body) = buffer[at..].split_at_mut(HEAD);
    let (length, sum) = head.split_at_mut(4);
    // A commit of more than fits the tail goes another way.
    length.copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    sum.copy_from_slice(&checksum(body));
}

/// Whether a file that is not empty is none that was begun here.
pub(crate) fn is_foreign(bytes: &[u8]) -> bool {
    bytes.len() >= MAGIC.len() && !bytes.starts_with(&MAGIC)
}

/// Reads a file: its generation, and what its whole records hold.
pub(crate) fn read_all(bytes: &[u8]) -> (u64, Vec<Replayed>) {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut replayed = Vec::new();
    if rest.len() < MAGIC.len() + 8 || rest.split_to(MAGIC.len()) != MAGIC[..] {
        return (0, replayed);
    }
    let generation = rest.get_u64();
    while let Some(body) = next(&mut rest) {
        let Ok(commit) = Commit::decode(body) else { break };
        // What a later release wrote beside is not understood; the rest stands.
        replayed.extend(commit.changes.into_iter().filter_map(Change::into_replayed));
    }
    (generation, replayed)
}

fn next(rest: &mut Bytes) -> Option<Bytes> {
    if rest.len() < HEAD {
        return None;
    }
    let length = rest.get_u32() as usize;
    let mut sum = [0; 8];
    rest.copy_to_slice(&mut sum);
    (length <= rest.len()).then(|| rest.split_to(length)).filter(|body| checksum(body) == sum)
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    blake3::Hasher::new_keyed(&KEY).update(body).finalize_xof().fill(&mut sum);
    sum
}

#[derive(Clone, PartialEq, Message)]
struct Commit {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<Change>,
}

#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Append(Append),
    #[prost(message, tag = "2")]
    EvictTo(Place),
    #[prost(message, tag = "3")]
    Remove(Place),
    #[prost(message, tag = "4")]
    Reach(Place),
    #[prost(message, tag = "5")]
    Block(Block),
    #[prost(bytes = "bytes", tag = "6")]
    DropTopic(Bytes),
    #[prost(uint64, tag = "7")]
    Expire(u64),
    #[prost(message, tag = "8")]
    Replace(Place),
}

#[derive(Clone, PartialEq, Message)]
struct Append {
    #[prost(message, optional, tag = "1")]
    place: Option<Place>,
    #[prost(uint64, tag = "2")]
    missed: u64,
    #[prost(bool, tag = "3")]
    begins: bool,
    #[prost(uint64, tag = "4")]
    entries: u64,
    #[prost(bytes = "bytes", tag = "5")]
    author: Bytes,
    #[prost(uint64, tag = "6")]
    epoch: u64,
    #[prost(uint64, tag = "7")]
    head: u64,
    #[prost(bytes = "bytes", tag = "8")]
    hash: Bytes,
    #[prost(uint64, tag = "9")]
    time: u64,
    #[prost(bytes = "bytes", tag = "10")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "11")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Place {
    #[prost(bytes = "bytes", tag = "1")]
    topic: Bytes,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    position: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Block {
    #[prost(bytes = "bytes", tag = "1")]
    topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    author: Bytes,
}

impl Change {
    /// `None` for what this release does not store, which the tables skip too.
    fn of(change: &LogChange, authors: &mut BTreeSet<AgentId>) -> Option<Self> {
        let place = |topic: &TopicId, incarnation, position| Place {
            topic: bytes(topic.as_bytes()),
            incarnation,
            position,
        };
        let kind = match change {
            LogChange::Append { incarnation, position, missed, begins, run, key } => {
                let is_new = authors.insert(run.body().author());
                let key = if is_new { bytes(key.as_bytes()) } else { Bytes::new() };
                let place = (*incarnation, *position);
                Kind::Append(AppendedRun::new(run, place, *missed, *begins, key).into())
            }
            LogChange::EvictTo { topic, position } => Kind::EvictTo(place(topic, 0, *position)),
            LogChange::Remove { topic, position } => Kind::Remove(place(topic, 0, *position)),
            LogChange::Replace { topic, position } => Kind::Replace(place(topic, 0, *position)),
            LogChange::Reach { topic, incarnation, position } => {
                Kind::Reach(place(topic, *incarnation, *position))
            }
            LogChange::Block { topic, author } => Kind::Block(Block {
                topic: bytes(topic.as_bytes()),
                author: bytes(author.as_bytes()),
            }),
            LogChange::DropTopic { topic } => Kind::DropTopic(bytes(topic.as_bytes())),
            LogChange::Expire { before } => Kind::Expire(before.as_millis()),
            _ => return None,
        };
        Some(Self { kind: Some(kind) })
    }

    fn into_replayed(self) -> Option<Replayed> {
        let change = match self.kind? {
            Kind::Append(append) => return append.into_row().map(Replayed::Append),
            Kind::EvictTo(Place { topic, position, .. }) => {
                LogChange::EvictTo { topic: topic_id(&topic)?, position }
            }
            Kind::Remove(Place { topic, position, .. }) => {
                LogChange::Remove { topic: topic_id(&topic)?, position }
            }
            Kind::Replace(Place { topic, position, .. }) => {
                LogChange::Replace { topic: topic_id(&topic)?, position }
            }
            Kind::Reach(Place { topic, incarnation, position }) => {
                LogChange::Reach { topic: topic_id(&topic)?, incarnation, position }
            }
            Kind::Block(Block { topic, author }) => {
                LogChange::Block { topic: topic_id(&topic)?, author: agent_id(&author)? }
            }
            Kind::DropTopic(topic) => LogChange::DropTopic { topic: topic_id(&topic)? },
            Kind::Expire(before) => LogChange::Expire { before: WallTime::from_millis(before) },
        };
        Some(Replayed::Other(change))
    }
}

impl From<AppendedRun> for Append {
    fn from(row: AppendedRun) -> Self {
        let AppendedRun { topic, incarnation, position, entries, missed, begins, .. } = row;
        let place = Place { topic: bytes(topic.as_bytes()), incarnation, position };
        Self {
            place: Some(place),
            missed,
            begins,
            entries,
            author: bytes(row.author.as_bytes()),
            epoch: row.epoch,
            head: row.head,
            hash: bytes(&row.hash),
            time: row.time,
            key: row.key,
            data: row.data,
        }
    }
}

impl Append {
    fn into_row(self) -> Option<AppendedRun> {
        let Place { topic, incarnation, position } = self.place?;
        Some(AppendedRun {
            topic: topic_id(&topic)?,
            incarnation,
            position,
            entries: self.entries,
            missed: self.missed,
            begins: self.begins,
            author: agent_id(&self.author)?,
            epoch: self.epoch,
            head: self.head,
            hash: self.hash[..].try_into().ok()?,
            time: self.time,
            key: self.key,
            data: self.data,
        })
    }
}

fn bytes(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

fn topic_id(bytes: &[u8]) -> Option<TopicId> {
    bytes.try_into().ok().map(TopicId::new)
}

fn agent_id(bytes: &[u8]) -> Option<AgentId> {
    bytes.try_into().ok().map(AgentId::new)
}
