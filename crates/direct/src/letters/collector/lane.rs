//! The letters of one sender on one machine, and which of them is next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use x0x_core::{Tick, WallTime};

use super::{super::letter::Opened, Key};
use crate::wire::MessageId;

/// Messages remembered as delivered; what is older is asked of the inbox.
const MAX_REMEMBERED: usize = 64;
/// How often the inbox is asked for a message that may yet come in another way.
const KNOWS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a letter waits for which the inbox had no room.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask whether the inbox has this message.
    Ask(MessageId),
    /// Deliver a letter, perhaps without the one before it.
    Deliver { letter: Box<Opened>, without: Option<MessageId> },
}

/// What is known of the letter before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It was not asked for, or not lately: ask at this time.
    Unknown(Tick),
    Asked,
    /// It is there, or never will be.
    Settled,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    letter: Box<Opened>,
    since: Tick,
    before: Before,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: BTreeMap<MessageId, Waiting>,
    delivering: Option<MessageId>,
    delivered: VecDeque<MessageId>,
    /// Nothing is delivered before.
    paused_until: Option<Tick>,
}

impl Lane {
    /// Adds a letter; false when its message is here already.
    pub(super) fn add(&mut self, now: Tick, key: Key, letter: Box<Opened>) -> bool {
        let id = letter.draft.id;
        if self.waiting.contains_key(&id) || self.delivered.contains(&id) {
            return false;
        }
        let before = match letter.draft.after {
            None => Before::Settled,
            Some(after) if self.delivered.contains(&after.id) => Before::Settled,
            Some(_) => Before::Unknown(now),
        };
        self.waiting.insert(id, Waiting { key, letter, since: now, before });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next thing to do, if there is one now.
    pub(super) fn next(&mut self, now: Tick, wall: WallTime, patience: Duration) -> Option<Next> {
        if self.delivering.is_some() || self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        let mut first = None;
        let mut ask = None;
        for (id, waiting) in &self.waiting {
            let after = waiting.letter.draft.after;
            let ready = waiting.before == Before::Settled
                || after.is_none_or(|after| after.expires_at <= wall);
            if ready {
                let id = *id;
                return self.deliver(id, None);
            }
            let Some(after) = after else { continue };
            if self.waiting.contains_key(&after.id) {
                continue;
            }
            if matches!(waiting.before, Before::Unknown(at) if at <= now) {
                ask = Some((*id, after.id));
            }
            // Of several, the one that was written first goes first.
            let this = (waiting.letter.draft.sent_at, *id, after.id, waiting.since);
            first = Some(first.map_or(this, |first| this.min(first)));
        }
        if let Some((_, id, missing, since)) = first
            && since + patience <= now
        {
            return self.deliver(id, Some(missing));
        }
        if let Some((id, before)) = ask {
            if let Some(waiting) = self.waiting.get_mut(&id) {
                waiting.before = Before::Asked;
            }
            return Some(Next::Ask(before));
        }
        self.broken_circle(now, patience)
    }

    /// Letters of which each waits for another are the work of their sender alone: one is as good as
    /// the other.
    fn broken_circle(&mut self, now: Tick, patience: Duration) -> Option<Next> {
        let here = |waiting: &Waiting| {
            let after = waiting.letter.draft.after;
            waiting.since + patience <= now
                && after.is_some_and(|after| self.waiting.contains_key(&after.id))
        };
        let circle = !self.waiting.is_empty() && self.waiting.values().all(here);
        let (id, after) = self
            .waiting
            .iter()
            .filter(|_| circle)
            .find_map(|(id, waiting)| Some((*id, waiting.letter.draft.after?.id)))?;
        self.deliver(id, Some(after))
    }

    fn deliver(&mut self, id: MessageId, without: Option<MessageId>) -> Option<Next> {
        let letter = self.waiting.get(&id)?.letter.clone();
        self.delivering = Some(id);
        Some(Next::Deliver { letter, without })
    }

    /// Whether the inbox has a message that letters wait for.
    pub(super) fn answered(&mut self, now: Tick, id: MessageId, known: bool) {
        for waiting in self.waiting.values_mut() {
            if waiting.letter.draft.after.is_some_and(|after| after.id == id)
                && waiting.before != Before::Settled
            {
                waiting.before =
                    if known { Before::Settled } else { Before::Unknown(now + KNOWS_INTERVAL) };
            }
        }
    }

    /// A delivery came to an end: the letter and its payload bytes, when it is settled.
    pub(super) fn delivered(
        &mut self,
        now: Tick,
        id: MessageId,
        settled: bool,
    ) -> Option<(Key, usize)> {
        if self.delivering != Some(id) {
            return None;
        }
        self.delivering = None;
        if !settled {
            if let Some(waiting) = self.waiting.get_mut(&id) {
                // What it waited for was told already.
                waiting.before = Before::Settled;
            }
            self.paused_until = Some(now + BUSY_PAUSE);
            return None;
        }
        if self.delivered.len() >= MAX_REMEMBERED {
            self.delivered.pop_front();
        }
        self.delivered.push_back(id);
        self.answered(now, id, true);
        let Waiting { key, letter, .. } = self.waiting.remove(&id)?;
        Some((key, letter.draft.payload.len()))
    }

    /// When something may be to do.
    pub(super) fn due(&self, patience: Duration) -> Option<Tick> {
        if self.delivering.is_some() || self.waiting.is_empty() {
            return None;
        }
        if self.paused_until.is_some() {
            return self.paused_until;
        }
        let (mut first, mut ask) = (None, None);
        for (id, waiting) in &self.waiting {
            let Some(after) = waiting.letter.draft.after else { continue };
            if waiting.before == Before::Settled || self.waiting.contains_key(&after.id) {
                continue;
            }
            if let Before::Unknown(at) = waiting.before {
                ask = Some(ask.map_or(at, |ask: Tick| ask.min(at)));
            }
            let this = (waiting.letter.draft.sent_at, *id, waiting.since);
            first = Some(first.map_or(this, |first| this.min(first)));
        }
        match (first, ask) {
            (Some((.., since)), Some(ask)) => Some(ask.min(since + patience)),
            (Some((.., since)), None) => Some(since + patience),
            // Of a circle, all wait as long as the last.
            (None, _) => self.waiting.values().map(|waiting| waiting.since + patience).max(),
        }
    }
}
