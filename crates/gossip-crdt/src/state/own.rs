//! What this agent writes: checked as others will check it, and given its place in the causal order.

use std::collections::BTreeMap;

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};

use crate::{
    config::{MAX_AHEAD, MAX_CUTS, MAX_DEPS, MAX_INLINE_DEPS, MAX_OBJECT, MAX_OP},
    dot::{ActorTag, Dot, Stamp},
    error::{Reason, WriteError},
    object::{Object, OpContext, Past, WriteContext},
    policy::PolicyChange,
    wire::{Body, Named, OperationIn},
};

use super::{Actors, ObjectMachine, WriteId};

/// Bytes of an operation up to which its dependencies always fit beside it.
const SMALL: usize = 16 * 1024;

/// Own operations on their way.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    /// The chain that the log took the last one into.
    epoch: Option<u64>,
    /// How far the operations on their way say that others were seen.
    sent: BTreeMap<ActorTag, u64>,
    in_flight: BTreeMap<(u64, u64), WriteId>,
    /// The greatest time of any operation that is here or on its way.
    pub(super) latest: u64,
}

impl Own {
    pub(super) fn accepted(&mut self, write: Option<WriteId>, epoch: u64, seq: u64) {
        if self.epoch != Some(epoch) {
            if self.epoch.is_some() {
                // What went on in another chain says nothing for this one.
                self.sent.clear();
            }
            self.epoch = Some(epoch);
        }
        if let Some(write) = write {
            self.in_flight.insert((epoch, seq), write);
        }
    }

    pub(super) fn came_back(&mut self, place: (u64, u64)) -> Option<WriteId> {
        let write = self.in_flight.remove(&place)?;
        if self.in_flight.is_empty() {
            self.sent.clear();
        }
        Some(write)
    }

    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
    }
}

/// A local write as the log is to get it: in this order, the last one carries the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prepared {
    /// Payloads of entries.
    pub payloads: Vec<Bytes>,
}

/// All that is here.
struct Everything<'a>(&'a Actors);

impl Past for Everything<'_> {
    fn sees(&self, dot: Dot) -> bool {
        self.0.seq(&dot.actor) >= dot.seq
    }
}

impl<T: Object> ObjectMachine<T> {
    /// What a local write is decided with.
    #[must_use]
    pub fn write_context(&self, now: WallTime) -> WriteContext<'_> {
        WriteContext { me: self.me, now, policy: self.policy.current() }
    }

    /// The last operations seen of an agent's chains: what a removal leaves valid.
    #[must_use]
    pub fn cut(&self, agent: &AgentId) -> Vec<Dot> {
        let theirs = self.actors.iter().filter(|(_, actor)| actor.author == *agent);
        theirs.map(|(actor, held)| Dot { actor, seq: held.seq }).take(MAX_CUTS).collect()
    }

    /// Prepares an operation of the type.
    ///
    /// # Errors
    /// [`WriteError`]: it is not to be published.
    pub fn prepare<R>(&mut self, now: WallTime, op: &T::Op) -> Result<Prepared, WriteError<R>> {
        let bytes = T::encode_op(op);
        if bytes.len() > MAX_OP {
            return Err(WriteError::TooLarge { len: bytes.len() });
        }
        if self.state.size().saturating_add(bytes.len()) > MAX_OBJECT || self.is_uncovered() {
            return Err(WriteError::Full);
        }
        let policy = self.policy.current();
        if policy.role(&self.me).is_none() {
            return Err(WriteError::Refused(Reason::NotWriter));
        }
        let actor = self.own_tag().unwrap_or_default();
        let dot = Dot { actor, seq: self.actors.seq(&actor) + self.own.in_flight.len() as u64 + 1 };
        let stamp = Stamp { millis: now.as_millis() + self.ahead(now), dot };
        let past = Everything(&self.actors);
        let cx = OpContext { dot, author: self.me, stamp, policy, past: &past };
        self.state.check(&cx, op).map_err(|reason| WriteError::Refused(Reason::Type(reason)))?;
        Ok(self.place(now, Body::Operation(bytes.into())))
    }

    /// Prepares a change of the policy.
    ///
    /// # Errors
    /// [`WriteError`]: it is not to be published.
    pub fn prepare_change<R>(
        &mut self,
        now: WallTime,
        change: PolicyChange,
    ) -> Result<Prepared, WriteError<R>> {
        let owner = self.policy.current().owner();
        if owner != Some(self.me) || !self.policy.has_room() {
            return Err(WriteError::Refused(Reason::Policy));
        }
        Ok(self.place(now, Body::Change(change)))
    }

    fn own_tag(&self) -> Option<ActorTag> {
        self.own.epoch.map(|epoch| ActorTag::of(&self.me, epoch))
    }

    /// How much later than now an operation is to say that it is, to be later than all that is here.
    pub(super) fn ahead(&self, now: WallTime) -> u64 {
        (self.own.latest + 1).saturating_sub(now.as_millis()).min(MAX_AHEAD)
    }

    /// Gives an operation its time and its dependencies: how far others came since its chain said last.
    pub(super) fn place(&mut self, now: WallTime, body: Body) -> Prepared {
        let ahead = self.ahead(now);
        self.own.latest = self.own.latest.max(now.as_millis() + ahead);
        let tag = self.own_tag().unwrap_or_default();
        let context = self.actors.context(&tag);
        let mentions = self.actors.get(&tag).map_or(&[][..], |actor| &actor.mentions);
        let places: BTreeMap<&ActorTag, u64> = mentions.iter().zip(0..).collect();
        let mut deps = Vec::new();
        for dot in self.actors.vector().filter(|dot| dot.seq > 0 && dot.actor != tag) {
            let sent = self.own.sent.get(&dot.actor).copied().unwrap_or(0);
            if context.sees(dot) || sent >= dot.seq {
                continue;
            }
            let named = places.get(&dot.actor).map_or(Named::Tag(dot.actor), |p| Named::Before(*p));
            deps.push((named, dot.seq));
            self.own.sent.insert(dot.actor, dot.seq);
        }
        let small = match &body {
            Body::Operation(bytes) => bytes.len() <= SMALL,
            Body::Context => true,
            Body::Change(_) | Body::Checkpoint(_) | Body::Piece(_) => false,
        };
        let mut payloads = Vec::new();
        let inline = if small { MAX_DEPS } else { MAX_INLINE_DEPS };
        while deps.len() > inline {
            let rest = deps.split_off(deps.len().min(MAX_DEPS));
            let before = OperationIn { ahead, deps, body: Body::Context };
            payloads.push(before.encode());
            deps = rest;
        }
        payloads.push(OperationIn { ahead, deps, body }.encode());
        Prepared { payloads }
    }
}
