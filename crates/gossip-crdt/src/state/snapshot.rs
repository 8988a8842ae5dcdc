//! A replica as bytes: equal for equal sets of operations, so that replicas compare by hash.

use std::{collections::BTreeMap, sync::Arc};

use x0x_core::{AgentId, DecodeError, TopicId};

use crate::{
    codec::{Decoder, Encoder},
    config::{MAX_ACTORS, MAX_BARRED, MAX_SNAPSHOT},
    dot::{ActorTag, Dot},
    metrics::CrdtMetrics,
    object::Object,
    policy::PolicyChain,
};

use super::{Actor, Actors, ObjectMachine};

/// The first byte.
const FORMAT: u64 = 1;

/// Key of the hash over a replica.
const HASH_KEY: [u8; 32] = *b"x0x/crdt/replica/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

impl<T: Object> ObjectMachine<T> {
    /// The replica without what waits: what it is made of again with [`restore`](Self::restore).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.number(FORMAT);
        encoder.raw(self.object.as_bytes());
        self.policy.encode(&mut encoder);
        let held: Vec<(ActorTag, &Actor)> = self.actors.iter().collect();
        let places: BTreeMap<ActorTag, u64> = held.iter().map(|(tag, _)| *tag).zip(0..).collect();
        encoder.count(held.len());
        for (_, actor) in &held {
            encoder.agent(&actor.author);
            encoder.number(actor.epoch);
            let version = actor.version.into();
            for number in [actor.seq, actor.applied, actor.first, actor.last, actor.bytes, version]
            {
                encoder.number(number);
            }
            encoder.count(actor.mentions.len());
            actor.mentions.iter().for_each(|tag| encoder.raw(tag.as_bytes()));
        }
        for (tag, _) in &held {
            let seen: Vec<(ActorTag, u64)> = self.actors.seen_by(tag).collect();
            encoder.count(seen.len());
            for (other, seq) in seen {
                encoder.number(places.get(&other).copied().unwrap_or(0));
                encoder.number(seq);
            }
        }
        self.state.encode_state(&mut encoder);
        encoder.finish()
    }

    /// A hash of the replica: equal on two replicas that processed the same operations. The replica is
    /// encoded for it when something changed since it was asked for last.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *self.hash.get_or_init(|| hash_of(&self.encode()))
    }

    /// The replica that was encoded.
    ///
    /// # Errors
    /// [`DecodeError`]: these are no such bytes, or of another object.
    pub fn restore(
        object: TopicId,
        owner: Option<AgentId>,
        me: AgentId,
        metrics: Arc<CrdtMetrics>,
        bytes: &[u8],
    ) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_SNAPSHOT {
            return Err(DecodeError::TooLarge { len: bytes.len(), max: MAX_SNAPSHOT });
        }
        let mut decoder = Decoder::new(bytes);
        if decoder.number()? != FORMAT || decoder.raw(32)? != object.as_bytes() {
            return Err(DecodeError::Field("snapshot"));
        }
        let mut machine = Self::new(object, owner, me, metrics);
        machine.policy = PolicyChain::decode(owner, &mut decoder)?;
        machine.actors = decode_actors(&mut decoder)?;
        machine.firsts = machine.actors.iter().map(|(tag, actor)| (actor.first, tag)).collect();
        machine.state = T::decode_state(&mut decoder)?;
        decoder.finish()?;
        let last = machine.actors.iter().map(|(_, actor)| actor.last).max();
        machine.own.latest = last.unwrap_or(0);
        Ok(machine)
    }
}

/// The hash of an encoded replica.
pub(super) fn hash_of(replica: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&HASH_KEY, replica).as_bytes()
}

fn decode_actors(decoder: &mut Decoder<'_>) -> Result<Actors, DecodeError> {
    let count = decoder.count(40)?;
    if count > MAX_ACTORS {
        return Err(DecodeError::Field("actors"));
    }
    let mut actors = Actors::default();
    let mut tags: Vec<ActorTag> = Vec::new();
    for _ in 0..count {
        let (author, epoch) = (decoder.agent()?, decoder.number()?);
        let tag = ActorTag::of(&author, epoch);
        if tags.last().is_some_and(|last| *last >= tag) {
            return Err(DecodeError::Field("actors"));
        }
        let mut actor = Actor {
            author,
            epoch,
            seq: decoder.number()?,
            applied: decoder.number()?,
            first: decoder.number()?,
            last: decoder.number()?,
            bytes: decoder.number()?,
            version: decoder.number32()?,
            mentions: Vec::new(),
        };
        let mentions = decoder.count(ActorTag::LEN)?;
        if mentions > MAX_ACTORS + MAX_BARRED {
            return Err(DecodeError::Field("mentions"));
        }
        for _ in 0..mentions {
            let bytes = decoder.raw(ActorTag::LEN)?.try_into();
            actor.mentions.push(ActorTag::new(bytes.map_err(|_| DecodeError::Malformed)?));
        }
        actors.insert(tag, actor);
        tags.push(tag);
    }
    for tag in &tags {
        let mut seen: Vec<Dot> = Vec::new();
        for _ in 0..decoder.count(2)? {
            let place = usize::try_from(decoder.number()?).map_err(|_| DecodeError::Malformed)?;
            let actor = *tags.get(place).ok_or(DecodeError::Field("context"))?;
            let seq = u64::from(decoder.number32()?);
            if seq == 0 || seen.last().is_some_and(|last| last.actor >= actor) {
                return Err(DecodeError::Field("context"));
            }
            seen.push(Dot { actor, seq });
        }
        actors.restore_context(tag, &seen);
    }
    Ok(actors)
}
