//! The letters of one sender on one machine, and which of them is next.
//!
//! Of each opened letter a lane keeps what orders it; the payload may be dropped and fetched again when
//! it is its turn.

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
/// The first pause after the inbox had no room; it doubles each time.
const FIRST_BUSY_PAUSE: Duration = Duration::from_secs(5);
const LAST_BUSY_PAUSE: Duration = Duration::from_secs(80);

/// What is to be done.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask whether the inbox has this message.
    Ask(MessageId),
    /// Fetch this letter again: it is its turn, and its payload was dropped.
    Fetch(Key),
    /// Deliver a letter, perhaps without the one before it.
    Deliver { letter: Box<Opened>, without: Option<MessageId> },
    /// The time of this letter is over: it is not in the lane any more.
    Expired(Key),
}

/// What became of a letter that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits for its turn. Another letter with the same message, whose payload is not here, is not
    /// needed any more.
    Waits { instead_of: Option<Key> },
    /// Its message is here already.
    Duplicate,
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
    /// Without its payload, when that is not here.
    letter: Box<Opened>,
    is_here: bool,
    since: Tick,
    expires: Tick,
    before: Before,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: BTreeMap<MessageId, Waiting>,
    /// Payload bytes that are here.
    bytes: usize,
    delivering: Option<MessageId>,
    /// It is its turn, and it is being fetched again.
    fetching: Option<MessageId>,
    delivered: VecDeque<MessageId>,
    /// Nothing is delivered before.
    paused_until: Option<Tick>,
    /// How often the inbox had no room, one after the other.
    failures: u32,
}

impl Lane {
    /// Adds a letter whose time ends at `expires`.
    pub(super) fn add(&mut self, now: Tick, key: Key, letter: Box<Opened>, expires: Tick) -> Added {
        let (id, len) = (letter.draft.id, letter.draft.payload.len());
        if self.delivered.contains(&id) {
            return Added::Duplicate;
        }
        let mut before = match letter.draft.after {
            None => Before::Settled,
            Some(after) if self.delivered.contains(&after.id) => Before::Settled,
            Some(_) => Before::Unknown(now),
        };
        let (mut since, mut instead_of) = (now, None);
        if let Some(known) = self.waiting.get(&id) {
            if known.is_here {
                return Added::Duplicate;
            }
            since = known.since;
            if known.letter.draft.after == letter.draft.after {
                before = known.before;
            }
            instead_of = (known.key != key).then_some(known.key);
            self.fetching.take_if(|fetching| *fetching == id);
        }
        self.bytes += len;
        self.waiting.insert(id, Waiting { key, letter, is_here: true, since, expires, before });
        Added::Waits { instead_of }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Payload bytes that are here.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing of it is to be fetched now.
    pub(super) fn is_paused(&self, now: Tick) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// Letters that are known and not here.
    pub(super) fn lacking(&self) -> impl Iterator<Item = Key> + '_ {
        self.waiting.values().filter(|waiting| !waiting.is_here).map(|waiting| waiting.key)
    }

    /// Drops the payload of what was written last, but for what is being delivered; false when there
    /// is none.
    pub(super) fn drop_latest(&mut self) -> bool {
        let here = self.waiting.iter_mut().filter(|(id, waiting)| {
            waiting.is_here
                && !waiting.letter.draft.payload.is_empty()
                && self.delivering != Some(**id)
        });
        let latest = here.max_by_key(|(id, waiting)| (waiting.letter.draft.sent_at, **id));
        let Some((_, waiting)) = latest else { return false };
        self.bytes -= std::mem::take(&mut waiting.letter.draft.payload).len();
        waiting.is_here = false;
        true
    }

    /// Forgets a letter that nobody has any more, unless it is being delivered.
    pub(super) fn forget(&mut self, key: &Key) -> bool {
        let known = self.waiting.iter().find(|(_, waiting)| waiting.key == *key);
        let Some(id) = known.map(|(id, _)| *id).filter(|id| self.delivering != Some(*id)) else {
            return false;
        };
        self.take(id);
        true
    }

    fn take(&mut self, id: MessageId) -> Option<Key> {
        let waiting = self.waiting.remove(&id)?;
        self.bytes -= waiting.letter.draft.payload.len();
        self.fetching.take_if(|fetching| *fetching == id);
        Some(waiting.key)
    }

    /// The next thing to do, if there is one now.
    pub(super) fn next(&mut self, now: Tick, wall: WallTime, patience: Duration) -> Option<Next> {
        let over = self.waiting.iter().filter(|(_, waiting)| waiting.expires <= now);
        if let Some(id) = over.map(|(id, _)| *id).find(|id| self.delivering != Some(*id)) {
            return self.take(id).map(Next::Expired);
        }
        if self.delivering.is_some() || self.fetching.is_some() || self.is_paused(now) {
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
                return self.turn(id, None);
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
            return self.turn(id, Some(missing));
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
        self.turn(id, Some(after))
    }

    /// It is the turn of a letter.
    fn turn(&mut self, id: MessageId, without: Option<MessageId>) -> Option<Next> {
        let waiting = self.waiting.get(&id)?;
        if !waiting.is_here {
            self.fetching = Some(id);
            return Some(Next::Fetch(waiting.key));
        }
        self.delivering = Some(id);
        Some(Next::Deliver { letter: waiting.letter.clone(), without })
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

    /// A delivery came to an end: the letter, when it is settled. Else the inbox has no room: no payload
    /// waits here until it may have some.
    pub(super) fn delivered(&mut self, now: Tick, id: MessageId, settled: bool) -> Option<Key> {
        self.delivering.take_if(|delivering| *delivering == id)?;
        if !settled {
            if let Some(waiting) = self.waiting.get_mut(&id) {
                // What it waited for was told already.
                waiting.before = Before::Settled;
            }
            let pause = FIRST_BUSY_PAUSE.saturating_mul(1 << self.failures.min(16));
            self.paused_until = Some(now + pause.min(LAST_BUSY_PAUSE));
            self.failures = self.failures.saturating_add(1);
            while self.drop_latest() {}
            return None;
        }
        self.failures = 0;
        if self.delivered.len() >= MAX_REMEMBERED {
            self.delivered.pop_front();
        }
        self.delivered.push_back(id);
        self.answered(now, id, true);
        self.take(id)
    }

    /// When something may be to do.
    pub(super) fn due(&self, patience: Duration) -> Option<Tick> {
        let others = self.waiting.iter().filter(|(id, _)| self.delivering != Some(**id));
        let over = others.map(|(_, waiting)| waiting.expires).min()?;
        if self.delivering.is_some() || self.fetching.is_some() {
            return Some(over);
        }
        let turn = self.paused_until.or_else(|| self.due_turn(patience));
        Some(turn.map_or(over, |turn| turn.min(over)))
    }

    /// When something may have its turn, without a pause.
    fn due_turn(&self, patience: Duration) -> Option<Tick> {
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
