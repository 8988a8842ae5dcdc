//! Frames of `/x0x/presence/1` and their limits; `docs/protocol/presence.md` describes the exchange.

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, MachineId, decode_bounded, fixed_bytes};

use crate::{
    chain::Value,
    config::{MAX_INTEREST, MAX_TTL},
    query::{QueryIn, SignedQuery, WalkId},
    session::{SessionId, SessionIn, SignedSession},
};

/// Largest frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// Most beacons in one frame.
pub const MAX_BEACONS: usize = 64;
/// Most records asked for in one frame.
pub const MAX_WANTED: usize = 32;
/// Most sightings in one answer: each is a record and a beacon, less than 6 KiB together.
pub const MAX_SIGHTINGS: usize = 8;
/// Bytes of an interest's tag.
pub const TAG_LEN: usize = 8;

const TAG_CONTEXT: &str = "x0x presence interest 1";

/// Stands for an agent on one link: whoever does not know the agent learns nothing of it, and tags of
/// different links cannot be compared.
pub type Tag = [u8; TAG_LEN];

/// The tag of an agent on the way from `asker` to `teller`.
#[must_use]
pub fn tag(agent: &AgentId, asker: &MachineId, teller: &MachineId) -> Tag {
    let mut hasher = blake3::Hasher::new_derive_key(TAG_CONTEXT);
    hasher.update(agent.as_bytes()).update(asker.as_bytes()).update(teller.as_bytes());
    let mut tag = [0; TAG_LEN];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// A sign of life: the value that leads to the session's anchor in `index` steps; with index 0 the
/// session's goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// Of which session.
    pub session: SessionId,
    /// Which one.
    pub index: u32,
    /// Proves it.
    pub value: Value,
}

mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Interest(Interest),
        #[prost(message, tag = "2")]
        Beacons(Beacons),
        #[prost(message, tag = "3")]
        Want(Want),
        #[prost(bytes = "bytes", tag = "4")]
        Record(Bytes),
        #[prost(message, tag = "5")]
        Walk(Walk),
        #[prost(message, tag = "6")]
        Answer(Answer),
    }

    /// All tags in one field.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Interest {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) tags: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Beacons {
        #[prost(message, repeated, tag = "1")]
        pub(super) beacons: Vec<Beacon>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Beacon {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) session: Bytes,
        #[prost(uint32, tag = "2")]
        pub(super) index: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Want {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub(super) sessions: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Walk {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) query: Bytes,
        #[prost(uint32, tag = "2")]
        pub(super) ttl: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Answer {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) walk: Bytes,
        #[prost(message, repeated, tag = "2")]
        pub(super) sightings: Vec<Sighting>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sighting {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) record: Bytes,
        #[prost(message, optional, tag = "2")]
        pub(super) beacon: Option<Beacon>,
    }
}

use proto::Kind;

/// What a node says; all of it its own or verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// The agents whose beacons the sender wants from the receiver, instead of those of before.
    Interest(Vec<Tag>),
    /// Signs of life.
    Beacons(Vec<Beacon>),
    /// Asks for the records of sessions.
    Want(Vec<SessionId>),
    /// A session's record.
    Record(SignedSession),
    /// A walk, and how many hops it may still take.
    Walk(SignedQuery, u32),
    /// What a walk found: encoded sightings, which only its origin verifies.
    Answer(WalkId, Vec<Sighting>),
}

/// What a peer said: well-formed, nothing of it verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FrameIn {
    /// See [`Frame::Interest`].
    Interest(Vec<Tag>),
    /// See [`Frame::Beacons`]: to be checked against their sessions.
    Beacons(Vec<Beacon>),
    /// See [`Frame::Want`].
    Want(Vec<SessionId>),
    /// See [`Frame::Record`].
    Record(Box<SessionIn>),
    /// See [`Frame::Walk`].
    Walk(Box<QueryIn>, u32),
    /// See [`Frame::Answer`].
    Answer(WalkId, Vec<Sighting>),
    /// A kind that this version does not know.
    Unknown,
}

/// A record and a beacon of its session, as they were received: nothing of them is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The encoded record.
    pub record: Bytes,
    /// The beacon.
    pub beacon: Beacon,
}

impl Frame {
    /// The wire form, at most [`MAX_FRAME`] bytes within the limits of each kind.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            Self::Interest(tags) => Kind::Interest(proto::Interest { tags: tags.concat().into() }),
            Self::Beacons(beacons) => {
                let beacons = beacons.iter().map(encode_beacon).collect();
                Kind::Beacons(proto::Beacons { beacons })
            }
            Self::Want(sessions) => {
                let session = |session: &SessionId| Bytes::copy_from_slice(&session.0);
                Kind::Want(proto::Want { sessions: sessions.iter().map(session).collect() })
            }
            Self::Record(record) => Kind::Record(record.encode()),
            Self::Walk(query, ttl) => Kind::Walk(proto::Walk { query: query.encode(), ttl: *ttl }),
            Self::Answer(walk, sightings) => {
                let sighting = |sighting: &Sighting| proto::Sighting {
                    record: sighting.record.clone(),
                    beacon: Some(encode_beacon(&sighting.beacon)),
                };
                let walk = Bytes::copy_from_slice(walk);
                let sightings = sightings.iter().map(sighting).collect();
                Kind::Answer(proto::Answer { walk, sightings })
            }
        };
        proto::Frame { kind: Some(kind) }.encode_to_vec().into()
    }

    /// Reads a frame. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes) -> Result<FrameIn, DecodeError> {
        let frame: proto::Frame = decode_bounded(bytes.clone(), MAX_FRAME)?;
        let Some(kind) = frame.kind else { return Ok(FrameIn::Unknown) };
        Ok(match kind {
            Kind::Interest(interest) => {
                let (tags, rest) = interest.tags.as_chunks::<TAG_LEN>();
                if tags.len() > MAX_INTEREST || !rest.is_empty() {
                    return Err(DecodeError::Field("tags"));
                }
                FrameIn::Interest(tags.to_vec())
            }
            Kind::Beacons(list) => {
                at_most(list.beacons.len(), MAX_BEACONS, "beacons")?;
                FrameIn::Beacons(list.beacons.iter().map(decode_beacon).collect::<Result<_, _>>()?)
            }
            Kind::Want(want) => {
                at_most(want.sessions.len(), MAX_WANTED, "sessions")?;
                let sessions = want.sessions.iter().map(|id| session_id(id));
                FrameIn::Want(sessions.collect::<Result<_, _>>()?)
            }
            Kind::Record(record) => FrameIn::Record(Box::new(SignedSession::decode(&record)?)),
            Kind::Walk(walk) => {
                if !(1..=MAX_TTL).contains(&walk.ttl) {
                    return Err(DecodeError::Field("ttl"));
                }
                FrameIn::Walk(Box::new(SignedQuery::decode(&walk.query)?), walk.ttl)
            }
            Kind::Answer(answer) => {
                at_most(answer.sightings.len(), MAX_SIGHTINGS, "sightings")?;
                let sightings = answer.sightings.into_iter().map(decode_sighting);
                FrameIn::Answer(
                    fixed_bytes(&answer.walk, "walk")?,
                    sightings.collect::<Result<_, _>>()?,
                )
            }
        })
    }
}

fn at_most(count: usize, most: usize, field: &'static str) -> Result<(), DecodeError> {
    if count > most { Err(DecodeError::Field(field)) } else { Ok(()) }
}

fn session_id(bytes: &[u8]) -> Result<SessionId, DecodeError> {
    Ok(SessionId(fixed_bytes(bytes, "session")?))
}

fn encode_beacon(beacon: &Beacon) -> proto::Beacon {
    proto::Beacon {
        session: Bytes::copy_from_slice(&beacon.session.0),
        index: beacon.index,
        value: Bytes::copy_from_slice(&beacon.value),
    }
}

fn decode_beacon(beacon: &proto::Beacon) -> Result<Beacon, DecodeError> {
    Ok(Beacon {
        session: session_id(&beacon.session)?,
        index: beacon.index,
        value: fixed_bytes(&beacon.value, "value")?,
    })
}

fn decode_sighting(sighting: proto::Sighting) -> Result<Sighting, DecodeError> {
    let beacon = sighting.beacon.ok_or(DecodeError::Field("beacon"))?;
    Ok(Sighting { record: sighting.record, beacon: decode_beacon(&beacon)? })
}
