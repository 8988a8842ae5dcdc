//! The actors of an object: how far each came, and what each had seen.

use std::collections::BTreeMap;

use x0x_core::AgentId;

use crate::{
    dot::{ActorTag, Dot},
    object::Past,
};

/// One chain of an author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    /// Operations processed, valid or not.
    pub(crate) seq: u64,
    /// The last one that was valid.
    pub(crate) applied: u64,
    /// When its first entry was published, in milliseconds.
    pub(crate) first: u64,
    /// The greatest time of its operations.
    pub(crate) last: u64,
    /// Bytes of its operations.
    pub(crate) bytes: u64,
    /// The version of the policy that it had seen.
    pub(crate) version: u32,
    /// Actors in the order in which it first named them.
    pub(crate) mentions: Vec<ActorTag>,
}

/// Actors by number, in the order in which they came here; each with what it had seen of the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Actors {
    actors: Vec<Actor>,
    numbers: BTreeMap<ActorTag, u32>,
    /// For each actor, how far it had seen each other one, by number.
    contexts: Vec<Vec<u32>>,
}

/// What one actor had seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    numbers: &'a BTreeMap<ActorTag, u32>,
    seen: &'a [u32],
}

impl Past for Context<'_> {
    fn sees(&self, dot: Dot) -> bool {
        let Some(number) = self.numbers.get(&dot.actor) else { return false };
        self.seen.get(*number as usize).is_some_and(|seq| u64::from(*seq) >= dot.seq)
    }
}

impl Actors {
    pub(crate) fn len(&self) -> usize {
        self.actors.len()
    }

    pub(crate) fn get(&self, tag: &ActorTag) -> Option<&Actor> {
        self.actors.get(*self.numbers.get(tag)? as usize)
    }

    pub(crate) fn get_mut(&mut self, tag: &ActorTag) -> Option<&mut Actor> {
        self.actors.get_mut(*self.numbers.get(tag)? as usize)
    }

    /// Operations of an actor that are processed.
    pub(crate) fn seq(&self, tag: &ActorTag) -> u64 {
        self.get(tag).map_or(0, |actor| actor.seq)
    }

    /// All, in the order of their tags.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ActorTag, &Actor)> {
        self.numbers
            .iter()
            .filter_map(|(tag, number)| Some((*tag, self.actors.get(*number as usize)?)))
    }

    pub(crate) fn insert(&mut self, tag: ActorTag, actor: Actor) {
        let number = u32::try_from(self.actors.len()).unwrap_or(u32::MAX);
        self.numbers.insert(tag, number);
        self.actors.push(actor);
        self.contexts.push(Vec::new());
    }

    /// What is here is final: its actors keep their places, and begin anew with their quotas.
    pub(crate) fn settle(&mut self) {
        for actor in &mut self.actors {
            (actor.first, actor.bytes) = (0, 0);
        }
    }

    /// What an actor had seen.
    pub(crate) fn context(&self, tag: &ActorTag) -> Context<'_> {
        let number = self.numbers.get(tag).copied().unwrap_or(u32::MAX);
        let seen = self.contexts.get(number as usize).map_or(&[][..], Vec::as_slice);
        Context { numbers: &self.numbers, seen }
    }

    /// Notes that an actor had seen others this far, and named those of them that it had not named before.
    pub(crate) fn observe(&mut self, tag: &ActorTag, deps: &[Dot]) {
        let Some(number) = self.numbers.get(tag).copied() else { return };
        let Some(seen) = self.contexts.get_mut(number as usize) else { return };
        let mut fresh = Vec::new();
        for dep in deps {
            let Some(other) = self.numbers.get(&dep.actor).map(|other| *other as usize) else {
                fresh.push(dep.actor);
                continue;
            };
            if seen.len() <= other {
                seen.resize(other + 1, 0);
            }
            if let Some(seq) = seen.get_mut(other) {
                if *seq == 0 {
                    fresh.push(dep.actor);
                }
                *seq = (*seq).max(u32::try_from(dep.seq).unwrap_or(u32::MAX));
            }
        }
        let Some(actor) = self.actors.get_mut(number as usize) else { return };
        for tag in fresh {
            if !actor.mentions.contains(&tag) {
                actor.mentions.push(tag);
            }
        }
    }

    /// What an actor had seen, as it was stored.
    pub(crate) fn restore_context(&mut self, tag: &ActorTag, seen: &[Dot]) {
        let mentions = self.get(tag).map(|actor| actor.mentions.clone());
        self.observe(tag, seen);
        if let (Some(actor), Some(mentions)) = (self.get_mut(tag), mentions) {
            actor.mentions = mentions;
        }
    }

    /// How far an actor had seen others, in the order of their tags.
    pub(crate) fn seen_by(&self, tag: &ActorTag) -> impl Iterator<Item = (ActorTag, u64)> + '_ {
        let context = self.context(tag);
        self.numbers.iter().filter_map(move |(other, number)| {
            let seq = context.seen.get(*number as usize).copied().filter(|seq| *seq > 0)?;
            Some((*other, u64::from(seq)))
        })
    }

    /// How far each is, in the order of their tags.
    pub(crate) fn vector(&self) -> impl Iterator<Item = Dot> + '_ {
        self.iter().map(|(actor, held)| Dot { actor, seq: held.seq })
    }
}
