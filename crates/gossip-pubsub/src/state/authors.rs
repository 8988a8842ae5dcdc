//! Which authors a log takes, and what makes room: keys cost nothing, so a table that is full must
//! neither be shut to those who come later nor lose those who were there before.
//!
//! Half of a table is for authors that are known for long, who stay. The rest is shared by the links
//! that bring newcomers: in a full table the link that brought most of them gives one up, so that who
//! makes authors up takes the place of his own. What is remembered of one who was expelled keeps its
//! entries from coming again, and from being looked for.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{AgentId, MachineId, Tick, TopicId, WallTime};

use crate::{
    config::{FREE_EPOCHS, MAX_EPOCHS},
    log::Arrival,
    retention::EPHEMERAL_FOR,
    run::RunBody,
};

use super::{PubSubMachine, Topic, timers::SWEEP, topics::EXPIRY_SLACK_MS};

/// Authors that are made former ones at once.
const FORGET: usize = 64;

/// Most links among which a full table of authors is shared.
const SHARERS: usize = 8;

/// How long an author publishes before it counts as known for long.
pub(super) const ESTABLISHED: Duration = Duration::from_secs(600);

/// How a link may bring an author that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// There is room.
    Room,
    /// One of those that another link brought makes room.
    Displaces,
    /// One of those that it brought itself makes room.
    Renews,
    /// There is no room that anybody could make.
    Full,
    /// It brought more than its share, and none that could make room.
    Quota,
}

impl PubSubMachine {
    /// Whether a link may bring a run of this author, as far as can be told before its signature is
    /// checked.
    pub(super) fn may_introduce(&mut self, peer: MachineId, body: &RunBody) -> bool {
        let now = self.now;
        let known = |topic: &Topic| topic.log.key(&body.author).is_some();
        if self.topics.get(&body.topic).is_none_or(known) {
            return self.topics.contains_key(&body.topic);
        }
        let admission = self.admission(peer, &body.topic);
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let may = match admission {
            Admission::Room | Admission::Displaces => link.allowed.authors.take(now),
            Admission::Renews => link.score.renewals.take(now),
            Admission::Full => {
                self.metrics.refused_authors.inc();
                return false;
            }
            Admission::Quota => false,
        };
        if !may {
            self.metrics.refused_author_quota.inc();
        }
        may
    }

    /// The first half of a table is for everybody; of the other, each of the links of the topic gets a
    /// share, so that one that makes authors up leaves room for those of the others.
    fn admission(&self, peer: MachineId, id: &TopicId) -> Admission {
        let limits = &self.limits;
        let Some(topic) = self.topics.get(id) else { return Admission::Full };
        let active = |topic: &Topic| topic.log.authors() - topic.log.idle_authors();
        let (here, all) = (active(topic), self.topics.values().map(active).sum::<usize>());
        let sources = self.topic_links(id).min(SHARERS);
        let brought = self.links.get(&peer).map_or(0, |link| link.score.authors(self.now) as usize);
        let fits =
            |used: usize, max: usize| sources <= 1 || used < max / 2 || brought < max / sources;
        let full = here >= limits.topic_authors || all >= limits.authors;
        if !full && fits(here, limits.topic_authors) && fits(all, limits.authors) {
            return Admission::Room;
        }
        let (by, crowded) = (Some(peer), self.topics.get(&self.crowded(id)).unwrap_or(topic));
        if full && crowded.log.crowding(&by).is_some_and(|most| most != by) {
            return Admission::Displaces;
        }
        match (crowded.log.newcomers_of(&by), full) {
            (1.., _) => Admission::Renews,
            (0, true) => Admission::Full,
            (0, false) => Admission::Quota,
        }
    }

    /// The topic in which an author makes room for one of this topic: itself when it is full, else the
    /// one with most of them when all together are too many.
    fn crowded(&self, id: &TopicId) -> TopicId {
        let active = |topic: &Topic| topic.log.authors() - topic.log.idle_authors();
        let here = self.topics.get(id).map_or(0, active);
        let all: usize = self.topics.values().map(active).sum();
        let most = self.topics.iter().max_by_key(|(_, topic)| active(topic));
        match most {
            Some((most, _)) if here < self.limits.topic_authors && all >= self.limits.authors => {
                *most
            }
            _ => *id,
        }
    }

    /// Makes room for an author of whom nothing is known in a topic, or only its heads. False when there
    /// is none. Those least recently active without retained runs make room, by becoming former
    /// authors; else a newcomer is expelled.
    pub(super) fn admit_author(&mut self, peer: MachineId, id: &TopicId, author: &AgentId) -> bool {
        let Some(topic) = self.topics.get(id) else { return false };
        if topic.log.key(author).is_some() {
            return true;
        }
        let limits = &self.limits;
        let in_topic = topic.log.authors() >= limits.topic_authors;
        let all: usize = self.topics.values().map(|topic| topic.log.authors()).sum();
        if in_topic || all >= limits.authors {
            let idle = |topic: &Topic| topic.log.idle_authors();
            let candidates =
                if in_topic { idle(topic) } else { self.topics.values().map(idle).sum::<usize>() };
            if candidates > 0 {
                if !self.former_room() {
                    return false;
                }
                self.forget_keys(in_topic.then_some(*id));
            }
        }
        match self.admission(peer, id) {
            Admission::Room => true,
            Admission::Displaces | Admission::Renews => self.expel_newcomer(peer, id),
            Admission::Full | Admission::Quota => false,
        }
    }

    /// Expels the newcomer of the topic that is missed least, of the link that brought most of them; of
    /// this one itself if none brought more, or while there is room for others. False when there is
    /// none.
    fn expel_newcomer(&mut self, peer: MachineId, id: &TopicId) -> bool {
        if !self.former_room() {
            return false;
        }
        let by = Some(peer);
        let displaces = self.admission(peer, id) == Admission::Displaces;
        let id = &self.crowded(id);
        let Some(topic) = self.topics.get(id) else { return false };
        let from = if displaces { topic.log.crowding(&by) } else { Some(by) };
        let Some(least) = from.and_then(|from| topic.log.least(&from)) else { return false };
        for position in topic.log.places(&least, None) {
            self.evict(id, |log| log.expel(position));
        }
        if let Some(topic) = self.topics.get_mut(id) {
            topic.log.forget_key(&least);
        }
        self.metrics.authors_expelled.inc();
        true
    }

    /// How an author comes into a log now. One that went on for so long is established, while at most
    /// half of a topic's are.
    pub(super) fn arrival(&self, by: Option<MachineId>, own: bool) -> Arrival {
        let (now, most) = (self.now, self.limits.topic_authors / 2);
        let before = Tick::ZERO + now.since(Tick::ZERO).saturating_sub(ESTABLISHED);
        Arrival { now, by, before, most, own }
    }

    /// Whether there is room for more former authors; those of whom nothing could be accepted again
    /// make room, which is looked for now and then.
    fn former_room(&mut self) -> bool {
        let former = |topics: &BTreeMap<TopicId, Topic>| -> usize {
            topics.values().map(|topic| topic.log.former_authors()).sum()
        };
        let (now, max) = (self.now, self.limits.former_authors);
        if former(&self.topics) >= max && self.former_swept.is_none_or(|at| now.since(at) >= SWEEP)
        {
            self.former_swept = Some(now);
            let before = self.oldest_known();
            self.topics.values_mut().for_each(|topic| topic.log.forget_former(before));
        }
        former(&self.topics) < max
    }

    /// Makes the least recently active idle authors of a topic, or of all, former ones: several at
    /// once, so that they are not searched for each new author.
    fn forget_keys(&mut self, within: Option<TopicId>) {
        let topics =
            self.topics.iter().filter(|(id, _)| within.is_none_or(|within| within == **id));
        let mut idle: Vec<_> = topics
            .flat_map(|(id, topic)| topic.log.idle().map(|(time, author)| (time, *id, author)))
            .collect();
        idle.sort_unstable();
        for (_, id, author) in idle.into_iter().take(FORGET) {
            if let Some(topic) = self.topics.get_mut(&id) {
                topic.log.forget_key(&author);
                self.metrics.authors_forgotten.inc();
            }
        }
    }

    /// Forgets epochs, with what is retained of them, when an author has too many, or all authors
    /// together beyond the free ones: then of the author with most in the topic with most of them.
    pub(super) fn limit_epochs(&mut self, id: &TopicId, author: &AgentId) {
        let Some(topic) = self.topics.get(id).filter(|topic| topic.log.spare() > 0) else { return };
        let epochs = topic.log.epochs(author);
        if epochs <= FREE_EPOCHS {
            return;
        }
        // What is kept for ever does not count, and is rarely so much that it has to be counted.
        let too_many = |topic: &Topic| topic.log.passing_epochs(author).0 > MAX_EPOCHS;
        if epochs > MAX_EPOCHS && too_many(topic) {
            self.forget_old(id);
            if self.topics.get(id).is_some_and(too_many) {
                self.forget_epoch(id, author);
            }
        }
        let spare: usize = self.topics.values().map(|topic| topic.log.spare()).sum();
        if spare > self.limits.spare_chains
            && let Some((id, author)) = self.most_epochs()
        {
            self.forget_epoch(&id, &author);
        }
    }

    /// The author with most epochs, in the topic with most of them, that has some to forget.
    fn most_epochs(&self) -> Option<(TopicId, AgentId)> {
        let spare = self.topics.iter().filter(|(_, topic)| topic.log.spare() > 0);
        let mut spare: Vec<_> = spare.map(|(id, topic)| (topic.log.spare(), *id)).collect();
        spare.sort_unstable();
        spare.into_iter().rev().find_map(|(_, id)| {
            let author = self.topics.get(&id)?.log.most_epochs()?;
            Some((id, author))
        })
    }

    /// Forgets the oldest epoch of an author of which nothing is kept for ever.
    fn forget_epoch(&mut self, id: &TopicId, author: &AgentId) {
        let Some(log) = self.topics.get(id).map(|topic| &topic.log) else { return };
        let Some(oldest) = log.passing_epochs(author).1 else { return };
        for position in log.places(author, Some(oldest)) {
            self.evict(id, |log| log.expel(position));
        }
        if let Some(topic) = self.topics.get_mut(id) {
            topic.log.forget_epoch(author, oldest);
            self.metrics.epochs_forgotten.inc();
        }
    }

    /// Forgets what is remembered of chains of which nothing would be accepted again, and what counts
    /// of those that are past the retention.
    pub(super) fn forget_old(&mut self, id: &TopicId) {
        let (kept, known) = (self.oldest_kept(), self.oldest_known());
        // An author's clock may be behind ours by as much as it may be ahead.
        let recent = EPHEMERAL_FOR + self.limits.clock_ahead;
        let recent = u64::try_from(recent.as_millis()).unwrap_or(u64::MAX);
        let ephemeral = self.believed.time(self.now).as_millis();
        let ephemeral = ephemeral.saturating_sub(recent.saturating_add(EXPIRY_SLACK_MS));
        if let Some(topic) = self.topics.get_mut(id) {
            topic.log.expire(kept);
            topic.log.forget_epochs(known, WallTime::from_millis(ephemeral).max(known));
        }
    }
}
