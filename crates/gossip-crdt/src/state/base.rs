//! What a replica stands on: the checkpoint whose operations are final, and the one before it.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use x0x_core::{AgentId, DecodeError, Tick, WallTime};

use crate::{
    checkpoint::{Checkpoint, covered},
    codec::{Decoder, Encoder},
    config::{MAX_CHECKPOINT, MAX_CHECKPOINTS},
    dot::{ActorTag, Dot},
    metrics::CrdtMetrics,
    object::Object,
};

use super::{
    ObjectMachine,
    check::{Check, Taking},
};

/// Which of two checkpoints counts: the one that stands on more, then the one that was first.
pub(super) type Rank = (u64, Reverse<(WallTime, Dot)>);

/// A checkpoint with its replica.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) at: Dot,
    pub(super) time: WallTime,
    pub(super) checkpoint: Arc<Checkpoint>,
    pub(super) replica: Bytes,
    /// What it covers was here, and made the same.
    pub(super) checked: bool,
}

impl Base {
    pub(super) fn rank(&self) -> Rank {
        (self.checkpoint.number, Reverse((self.time, self.at)))
    }

    fn encode(&self, encoder: &mut Encoder) {
        encode_place(encoder, self.at, self.time);
        self.checkpoint.encode(encoder);
        encoder.flag(self.checked);
        encoder.bytes(&self.replica);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (at, time) = decode_place(decoder)?;
        let checkpoint = Arc::new(Checkpoint::decode(decoder)?);
        let checked = decoder.flag()?;
        let replica = Bytes::copy_from_slice(decoder.bytes(MAX_CHECKPOINT)?);
        Ok(Self { at, time, checkpoint, replica, checked })
    }
}

/// A checkpoint that was heard of.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) time: WallTime,
    pub(super) checkpoint: Arc<Checkpoint>,
    /// It is not what its operations make, or nothing came of taking it.
    pub(super) refused: bool,
    pub(super) untaken: bool,
    /// The log has lost what would check it.
    pub(super) unchecked: bool,
}

impl Known {
    pub(super) fn new(time: WallTime, checkpoint: Arc<Checkpoint>, refused: bool) -> Self {
        Self { time, checkpoint, refused, untaken: false, unchecked: false }
    }

    pub(super) fn rank(&self, at: Dot) -> Rank {
        (self.checkpoint.number, Reverse((self.time, at)))
    }
}

/// What a replica knows of checkpoints.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints<T: Object> {
    pub(super) base: Option<Base>,
    pub(super) before: Option<Base>,
    /// What the one before covers may be gone: there is no way behind it.
    pub(super) settled: bool,
    /// At most [`MAX_CHECKPOINTS`].
    pub(super) known: BTreeMap<Dot, Known>,
    pub(super) check: Option<Box<Check<T>>>,
    pub(super) taking: Option<Taking>,
    /// When a checkpoint is taken, unless something goes on before.
    pub(super) stuck: Option<Tick>,
    /// Bytes in the log of what the base does not cover; and of what it covers beyond the one before.
    pub(super) since: u64,
    pub(super) period: u64,
    /// When this agent may make one again.
    pub(super) next: Tick,
}

impl<T: Object> Default for Checkpoints<T> {
    fn default() -> Self {
        Self {
            base: None,
            before: None,
            settled: false,
            known: BTreeMap::new(),
            check: None,
            taking: None,
            stuck: None,
            since: 0,
            period: 0,
            next: Tick::ZERO,
        }
    }
}

impl<T: Object> Checkpoints<T> {
    /// The last operation of an actor that is final.
    pub(super) fn covers(&self, actor: &ActorTag) -> u64 {
        self.base.as_ref().map_or(0, |base| base.checkpoint.covers(actor))
    }

    /// An operation was processed that takes so much in the log.
    pub(super) const fn went_on(&mut self, logged: u64) {
        self.since = self.since.saturating_add(logged);
        self.stuck = None;
    }

    pub(super) fn number(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.checkpoint.number)
    }

    /// Remembers a checkpoint that was heard of. In a full table one that is of no more use goes, or one
    /// that comes last: it is read again when there is room.
    pub(super) fn note(&mut self, at: Dot, time: WallTime, checkpoint: &Arc<Checkpoint>) {
        let old = self.settled && checkpoint.number <= self.floor();
        if old || self.known.contains_key(&at) {
            return;
        }
        let checkpoint = Arc::clone(checkpoint);
        self.known.insert(at, Known::new(time, checkpoint, false));
        if self.known.len() > MAX_CHECKPOINTS {
            let number = self.number();
            let numbers = self.known.iter().map(|(at, known)| (known.rank(*at), *at));
            let spare = numbers.clone().min().filter(|(rank, _)| rank.0 < number);
            if let Some((_, spare)) = spare.or_else(|| numbers.max()) {
                self.known.remove(&spare);
            }
        }
    }

    fn floor(&self) -> u64 {
        self.before.as_ref().map_or(0, |before| before.checkpoint.number)
    }

    /// From now on there is no way behind the checkpoint before the last.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        let floor = self.floor();
        self.known.retain(|_, known| known.checkpoint.number > floor);
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.flag(self.settled);
        encoder.number(self.since);
        encoder.number(self.period);
        for base in [&self.base, &self.before] {
            encoder.flag(base.is_some());
            base.iter().for_each(|base| base.encode(encoder));
        }
        encoder.count(self.known.len());
        for (at, known) in &self.known {
            encode_place(encoder, *at, known.time);
            encoder.flag(known.refused);
            known.checkpoint.encode(encoder);
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut held = Self { settled: decoder.flag()?, ..Self::default() };
        (held.since, held.period) = (decoder.number()?, decoder.number()?);
        held.base = decoder.flag()?.then(|| Base::decode(decoder)).transpose()?;
        held.before = decoder.flag()?.then(|| Base::decode(decoder)).transpose()?;
        for _ in 0..decoder.count(1)? {
            let (at, time) = decode_place(decoder)?;
            let refused = decoder.flag()?;
            let checkpoint = Arc::new(Checkpoint::decode(decoder)?);
            held.known.insert(at, Known::new(time, checkpoint, refused));
            if held.known.len() > MAX_CHECKPOINTS {
                return Err(DecodeError::Field("checkpoints"));
            }
        }
        Ok(held)
    }
}

fn encode_place(encoder: &mut Encoder, at: Dot, time: WallTime) {
    encoder.dot(at);
    encoder.number(time.as_millis());
}

fn decode_place(decoder: &mut Decoder<'_>) -> Result<(Dot, WallTime), DecodeError> {
    Ok((decoder.dot()?, WallTime::from_millis(decoder.number()?)))
}

impl<T: Object> ObjectMachine<T> {
    /// The replica as it is stored: with what it stands on, which [`encode`](Self::encode) leaves out.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.number(STORED);
        encoder.bytes(&self.encode());
        self.checkpoints.encode(&mut encoder);
        encoder.finish()
    }

    /// The replica that was stored.
    ///
    /// # Errors
    /// [`DecodeError`]: these are no such bytes, or of another object.
    pub fn load(
        object: x0x_core::TopicId,
        owner: Option<AgentId>,
        me: AgentId,
        metrics: Arc<CrdtMetrics>,
        bytes: &[u8],
    ) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        if decoder.number()? != STORED {
            // Before there were checkpoints it was the replica alone.
            return Self::restore(object, owner, me, metrics, bytes);
        }
        let replica = decoder.bytes(crate::config::MAX_SNAPSHOT)?;
        let mut machine = Self::restore(object, owner, me, metrics, replica)?;
        machine.checkpoints = Checkpoints::decode(&mut decoder)?;
        decoder.finish()?;
        if let Some(base) = &machine.checkpoints.base {
            let cover = &base.checkpoint.cover;
            let settled =
                machine.policy.dots().take_while(|dot| covered(cover, &dot.actor) >= dot.seq);
            let settled = u32::try_from(settled.count()).unwrap_or(u32::MAX);
            machine.policy.settle(settled);
        }
        // A check that was under way begins again.
        machine.consider();
        Ok(machine)
    }

    /// An empty replica on a checkpoint, or on nothing: another one than this, with the same operations
    /// before it. None when the checkpoint carries none.
    pub(super) fn standing_on(&self, base: Option<&Base>) -> Option<Self> {
        let owner = self.policy.current().owner();
        // What it counts is counted by this one.
        let metrics = Arc::new(CrdtMetrics::default());
        let Some(base) = base else {
            return Some(Self::new(self.object, owner, self.me, metrics));
        };
        let replica = Self::restore(self.object, owner, self.me, metrics, &base.replica);
        let mut replica = replica.ok()?;
        let vector: Vec<Dot> = replica.actors.vector().collect();
        if vector != base.checkpoint.cover {
            return None;
        }
        replica.actors.settle();
        replica.firsts = vector.iter().map(|dot| (0, dot.actor)).collect();
        let version = replica.policy.version();
        replica.policy.settle(version);
        replica.checkpoints.base = Some(base.clone());
        Some(replica)
    }

    /// Stands on a checkpoint, and reads what it does not cover from the log.
    pub(super) fn stand_on(&mut self, base: Base, before: Option<Base>) {
        let Some(replica) = self.standing_on(Some(&base)) else { return };
        self.policy = replica.policy.clone();
        self.firsts.clone_from(&replica.firsts);
        self.barred.clear();
        let follows = before.as_ref().map(|before| before.at)
            == self.checkpoints.base.as_ref().map(|base| base.at);
        self.checkpoints.period = if follows { self.checkpoints.since } else { 0 };
        self.checkpoints.since = 0;
        self.checkpoints.base = Some(base);
        self.checkpoints.before = before;
        self.checkpoints.stuck = None;
        self.checkpoints.next = Tick::ZERO;
        self.metrics.checkpoints.inc();
        self.begin_again(replica, None);
    }

    /// The last entries of chains (author, epoch, number) that nobody needs any more, if there are: those
    /// that the checkpoint before the last covers. After this call there is no way behind it.
    pub fn let_go(&mut self) -> Vec<(AgentId, u64, u64)> {
        let checked = |base: &Option<Base>| base.as_ref().is_some_and(|base| base.checked);
        if !checked(&self.checkpoints.base) || !checked(&self.checkpoints.before) {
            return Vec::new();
        }
        self.checkpoints.settle();
        let cover = self.checkpoints.before.iter().flat_map(|before| &before.checkpoint.cover);
        let chain = |dot: &Dot| {
            let actor = self.actors.get(&dot.actor)?;
            Some((actor.author, actor.epoch, dot.seq))
        };
        cover.filter_map(chain).collect()
    }

    /// The number of the checkpoint that it stands on; 0 when there is none.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.checkpoints.number()
    }
}

/// The first byte of a stored replica: none that an encoded one begins with.
const STORED: u64 = 2;
