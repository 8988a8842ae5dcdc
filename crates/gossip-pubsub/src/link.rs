//! What is known of one neighbour: what it subscribes, where it is in each topic's log, how runs are
//! to reach it, and what it may bring in.
//!
//! Runs are not queued for a link. It holds a position in each log, so a slow link costs a number,
//! and loses nothing until retention passes that position.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use lru::LruCache;
use x0x_core::{AgentId, PeerAddr, Tick, TokenBucket, TopicId};

use crate::{
    config::{Limits, MAX_ANNOUNCED, MAX_CONTROL_ITEMS, MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS},
    log::TopicLog,
    missing::Key,
    wire::{
        self, Announced, DigestIn, FindPeersIn, FrameKind, GraftIn, HeadsIn, PeersFoundIn, PruneIn,
        RangesIn, SubscriptionsWire, WantIn,
    },
};

mod place;
mod pulls;
mod scan;
mod score;

pub(crate) use place::{LinkTopic, View};
pub(crate) use pulls::Pulls;
pub(crate) use scan::{Scan, Step};
pub(crate) use score::{LAZY_AT, Score, UNSERVED_AT};

/// An author's chain within a topic.
pub(crate) type ChainId = (AgentId, u64);

/// Requests that a peer may make at once, and per second. Each may bring a whole log.
const WANT_BURST: u64 = 512;
const WANT_RATE: u64 = 256;

/// Subscriptions that a peer may make at once, and per second; those of this node that it asks for
/// again count too.
const SUBSCRIBE_BURST: u64 = 4 * MAX_SUBSCRIBED_TOPICS as u64;
const SUBSCRIBE_RATE: u64 = 64;

/// What a peer's comparisons may cost at once, and per second, in parts of [`COMPARE_PART`] chains of
/// the topic compared, and one more each.
const COMPARE_BURST: u64 = 4 * MAX_SUBSCRIBED_TOPICS as u64;
const COMPARE_RATE: u64 = 128;

/// Chains that a comparison reads for one token.
const COMPARE_PART: u32 = 64;

/// New authors that a peer may bring per second, and at least at once; but as many as a topic may have.
const AUTHOR_BURST: u64 = 64;
const AUTHOR_RATE: u64 = 32;

/// Topics that this node announces at once, and per second: half of what a peer takes.
const ANNOUNCE_BURST: u64 = SUBSCRIBE_BURST / 2;
const ANNOUNCE_RATE: u64 = SUBSCRIBE_RATE / 2;

/// Heads that a peer may announce at once, and per second: one frame of them each 5 ms, which is four
/// times what an honest one sends.
const HEAD_BURST: u64 = 16_384;
const HEAD_RATE: u64 = 12_800;

/// Searches for topic peers that a peer may send at once, and per second; and answers to them.
const FIND_BURST: u64 = 64;
const FIND_RATE: u64 = 2;

/// Searches of a peer that are passed on at once, and the time for another one: a quarter of what the
/// links beyond take, so that one peer's searches do not use up what they take of this node.
const PASS_BURST: u32 = 16;
const PASS_EVERY: Duration = Duration::from_secs(2);

/// What is believed of a link's round trip until it was measured.
const FIRST_RTT: Duration = Duration::from_millis(50);

/// Longest time that is believed to pass in a link's queue.
const MAX_LAG: Duration = Duration::from_secs(30);

/// A bucket of tokens that come at a rate per second.
pub(crate) fn bucket(now: Tick, burst: u64, rate: u64) -> TokenBucket {
    let refill = Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    TokenBucket::new(u32::try_from(burst).unwrap_or(u32::MAX), refill, now)
}

/// What a sender allows itself where a receiver allows this much: a little less, since the way to it
/// is not even; but always a full run.
fn paced(now: Tick, burst: u64, rate: u64) -> TokenBucket {
    let burst = (burst - burst / 16).max(MAX_RUN_ENTRIES as u64);
    bucket(now, burst, rate - rate / 16)
}

/// A small frame that waits for a link.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    Want(WantIn),
    Prune(PruneIn),
    Graft(GraftIn),
    Digest(DigestIn),
    Heads(HeadsIn),
    Ranges(RangesIn),
    FindPeers(FindPeersIn),
    PeersFound(PeersFoundIn),
    /// The session is no link any more.
    Leave,
}

impl Control {
    /// Items that it holds.
    fn items(&self) -> usize {
        match self {
            Self::Heads(frame) => frame.heads.len(),
            Self::Ranges(frame) => frame.items(),
            Self::PeersFound(frame) => frame.peers.len(),
            _ => 0,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Want(frame) => frame.encode(),
            Self::Prune(frame) => frame.encode(),
            Self::Graft(frame) => frame.encode(),
            Self::Digest(frame) => frame.encode(),
            Self::Heads(frame) => frame.encode(),
            Self::Ranges(frame) => frame.encode(),
            Self::FindPeers(frame) => frame.encode(),
            Self::PeersFound(frame) => frame.encode(),
            Self::Leave => {
                let leave = SubscriptionsWire { leave: true, ..SubscriptionsWire::default() };
                wire::encode(FrameKind::Subscriptions(leave))
            }
        }
    }
}

/// The frame handed out last, in case it is refused.
#[derive(Debug)]
pub(crate) enum Offer {
    Subscriptions { set: bool, again: bool, added: Vec<TopicId>, removed: Vec<TopicId> },
    Control(Control),
    Heads(Vec<(TopicId, Announced)>),
    Run { topic: TopicId, cursor: u64, chain: ChainId, had: View, key: Option<AgentId> },
    Pulled { topic: TopicId, chain: ChainId, next: u64, had: View, key: Option<AgentId> },
}

/// A message for a link, with what must be undone if it is refused.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) offer: Offer,
}

/// What a peer may bring in.
#[derive(Debug)]
pub(crate) struct Allowance {
    pub(crate) entries: TokenBucket,
    pub(crate) runs: TokenBucket,
    /// Signatures that are checked for this link even when all links together exceed their budget.
    pub(crate) checks: TokenBucket,
    /// Authors that are new here.
    pub(crate) authors: TokenBucket,
    pub(crate) requests: TokenBucket,
    pub(crate) topics: TokenBucket,
    pub(crate) compares: TokenBucket,
    pub(crate) heads: TokenBucket,
    pub(crate) searches: TokenBucket,
    /// Searches that are passed on for it.
    pub(crate) passed: TokenBucket,
    /// Answers to searches.
    pub(crate) found: TokenBucket,
}

impl Allowance {
    /// Whether the peer may have a topic of so many chains compared.
    pub(crate) fn compare(&mut self, now: Tick, chains: u32) -> bool {
        let most = u32::try_from(COMPARE_BURST / 2).unwrap_or(u32::MAX);
        self.compares.take_many(now, (1 + chains / COMPARE_PART).min(most))
    }
}

/// One neighbour.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its queue is full; nothing is sent until it is writable.
    pub(crate) paused: bool,
    /// It misbehaved and is being disconnected.
    pub(crate) banned: bool,
    /// Its subscriptions arrived.
    pub(crate) heard: bool,
    /// It is a neighbour of the membership layer's; else a stranger: a topic peer.
    pub(crate) neighbor: bool,
    /// Its session is needed here though it is no neighbour.
    pub(crate) held: bool,
    /// Whether it is in the machine's queue of links with something to send.
    pub(crate) queued: bool,
    pub(crate) topics: BTreeMap<TopicId, LinkTopic>,
    ready: VecDeque<TopicId>,
    /// The next announcement of subscriptions replaces all before it.
    pub(crate) announce_set: bool,
    /// It asks for the peer's too, which were not heard.
    pub(crate) announce_again: bool,
    pub(crate) announce: BTreeSet<TopicId>,
    /// A part of `announced`.
    pub(crate) retract: BTreeSet<TopicId>,
    /// What the peer was told; at most what is subscribed, and what is to be retracted.
    pub(crate) announced: BTreeSet<TopicId>,
    /// At most twice [`Limits::link_wants`].
    control: VecDeque<Control>,
    /// Items in them; at most [`MAX_CONTROL_ITEMS`], and those of the one that was refused.
    items: usize,
    /// Heads to be announced, at most [`MAX_ANNOUNCED`].
    pub(crate) heads: BTreeMap<(TopicId, ChainId), Announced>,
    /// When they are sent.
    pub(crate) heads_at: Option<Tick>,
    /// When heads were sent last.
    pub(crate) heads_sent: Option<Tick>,
    pub(crate) pulls: Pulls,
    /// Whether it is the pulls' turn.
    pub(crate) pulls_turn: bool,
    pub(crate) keys_sent: LruCache<AgentId, ()>,
    pub(crate) offer: Option<Offer>,
    pub(crate) allowed: Allowance,
    /// What this node sends.
    paced_entries: TokenBucket,
    paced_runs: TokenBucket,
    pub(crate) paced_topics: TokenBucket,
    /// It sent as many runs, or announced as many topics, as it may; until the next timer.
    pub(crate) runs_throttled: bool,
    pub(crate) topics_throttled: bool,
    /// When that timer runs.
    pub(crate) throttle_at: Option<Tick>,
    /// When it last brought something that it was asked for, and had not brought before.
    pub(crate) answered_at: Option<Tick>,
    pub(crate) rtt: Duration,
    /// How much longer than its round trip what it brings takes lately: what waits in its queue.
    pub(crate) lag: Duration,
    pub(crate) score: Score,
    pub(crate) address: Option<PeerAddr>,
    /// Views in all topics, at most [`Limits::link_heads`].
    views: usize,
    /// Chains that are gone at the peer, in all topics, at most as many.
    gone: usize,
}

impl Link {
    /// Bytes that what is noted of a chain takes, in a tree of which half may be empty.
    pub(crate) const VIEW_PLACE: usize = 2 * size_of::<(ChainId, View)>();
    /// Bytes that a chain takes which is gone at the peer.
    pub(crate) const GONE_PLACE: usize = 2 * size_of::<(ChainId, u64)>();

    pub(crate) fn new(now: Tick, limits: &Limits) -> Self {
        Self {
            paused: false,
            banned: false,
            heard: false,
            neighbor: true,
            held: false,
            queued: false,
            topics: BTreeMap::new(),
            ready: VecDeque::new(),
            announce_set: true,
            announce_again: false,
            announce: BTreeSet::new(),
            retract: BTreeSet::new(),
            announced: BTreeSet::new(),
            control: VecDeque::new(),
            items: 0,
            heads: BTreeMap::new(),
            heads_at: None,
            heads_sent: None,
            pulls: Pulls::default(),
            pulls_turn: false,
            keys_sent: LruCache::unbounded(),
            offer: None,
            allowed: Allowance {
                entries: bucket(now, limits.link_burst, limits.link_rate),
                runs: bucket(now, limits.link_run_burst, limits.link_run_rate),
                checks: bucket(now, limits.link_check_burst, limits.link_check_rate),
                authors: bucket(now, AUTHOR_BURST.max(limits.topic_authors as u64), AUTHOR_RATE),
                requests: bucket(now, WANT_BURST, WANT_RATE),
                topics: bucket(now, SUBSCRIBE_BURST, SUBSCRIBE_RATE),
                compares: bucket(now, COMPARE_BURST, COMPARE_RATE),
                heads: bucket(now, HEAD_BURST, HEAD_RATE),
                searches: bucket(now, FIND_BURST, FIND_RATE),
                passed: TokenBucket::new(PASS_BURST, PASS_EVERY, now),
                found: bucket(now, FIND_BURST, FIND_RATE),
            },
            paced_entries: paced(now, limits.link_burst, limits.link_rate),
            paced_runs: paced(now, limits.link_run_burst, limits.link_run_rate),
            paced_topics: bucket(now, ANNOUNCE_BURST, ANNOUNCE_RATE),
            runs_throttled: false,
            topics_throttled: false,
            throttle_at: None,
            answered_at: None,
            rtt: FIRST_RTT,
            lag: Duration::ZERO,
            score: Score::new(now),
            address: None,
            views: 0,
            gone: 0,
        }
    }

    /// Whether it can be handed a frame now.
    pub(crate) const fn can_send(&self) -> bool {
        !self.paused && !self.banned
    }

    /// Notes that a topic has runs that may concern this link. False when it does not subscribe it.
    pub(crate) fn wake(&mut self, topic: TopicId) -> bool {
        let Some(state) = self.topics.get_mut(&topic) else { return false };
        if !state.queued {
            state.queued = true;
            self.ready.push_back(topic);
        }
        true
    }

    /// Takes the next topic with something to send; a topic that is not done is put back by
    /// [`wake`](Self::wake), behind the others.
    pub(crate) fn next_topic(&mut self) -> Option<TopicId> {
        while let Some(topic) = self.ready.pop_front() {
            if let Some(state) = self.topics.get_mut(&topic) {
                state.queued = false;
                return Some(topic);
            }
        }
        None
    }

    /// Queues a small frame; the oldest of its kind of answer comes again, so a full queue drops it.
    /// False when it was dropped.
    pub(crate) fn push(&mut self, control: Control, limits: &Limits) -> bool {
        let items = control.items();
        let room = self.control.len() < limits.link_wants * 2
            && (items == 0 || self.items + items <= MAX_CONTROL_ITEMS);
        if room {
            self.items += items;
            self.control.push_back(control);
        }
        room
    }

    /// Small frames that wait for the link, and the items in them.
    pub(crate) fn controls(&self) -> (usize, usize) {
        (self.control.len(), self.items)
    }

    /// Chains of which something is noted.
    pub(crate) const fn views(&self) -> usize {
        self.views
    }

    pub(crate) fn next_control(&mut self) -> Option<Control> {
        let control = self.control.pop_front()?;
        self.items = self.items.saturating_sub(control.items());
        Some(control)
    }

    /// The peer subscribes a topic from here on.
    pub(crate) fn add_topic(&mut self, topic: TopicId, place: LinkTopic) {
        self.drop_topic(&topic);
        self.topics.insert(topic, place);
    }

    /// The peer no longer subscribes a topic.
    pub(crate) fn drop_topic(&mut self, topic: &TopicId) {
        if let Some(state) = self.topics.remove(topic) {
            self.views = self.views.saturating_sub(state.views.len());
            self.gone = self.gone.saturating_sub(state.gone.len());
            self.ready.retain(|queued| queued != topic);
            self.heads.retain(|(of, _), _| of != topic);
            self.pulls.drop_topic(topic);
        }
    }

    /// What is noted of a chain, to be changed; none when the peer does not subscribe the topic.
    /// When there are too many, all are forgotten, which costs duplicates.
    pub(crate) fn view_mut(
        &mut self,
        topic: &TopicId,
        chain: ChainId,
        limits: &Limits,
    ) -> Option<&mut View> {
        if self.views >= limits.link_heads {
            self.topics.values_mut().for_each(|state| state.views.clear());
            self.views = 0;
        }
        let views = &mut self.topics.get_mut(topic)?.views;
        Some(match views.entry(chain) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                self.views += 1;
                entry.insert(View::default())
            }
        })
    }

    /// Chains that are gone at the peer.
    pub(crate) const fn gone(&self) -> usize {
        self.gone
    }

    /// Notes whether the peer retains nothing of a chain that has more entries there than here. When
    /// there are too many, all are forgotten, which costs comparisons.
    pub(crate) fn note_gone(
        &mut self,
        topic: &TopicId,
        chain: ChainId,
        seq: Option<u64>,
        limits: &Limits,
    ) {
        if seq.is_some() && self.gone >= limits.link_heads {
            self.topics.values_mut().for_each(|state| state.gone.clear());
            self.gone = 0;
        }
        let Some(place) = self.topics.get_mut(topic) else { return };
        let before = place.gone.len();
        match seq {
            Some(seq) => drop(place.gone.insert(chain, seq)),
            None => drop(place.gone.remove(&chain)),
        }
        self.gone = self.gone - before + place.gone.len();
    }

    /// Forgets what is gone between two chains, since the peer told all that it has there.
    pub(crate) fn forget_gone(&mut self, topic: &TopicId, from: ChainId, to: Option<ChainId>) {
        let Some(place) = self.topics.get_mut(topic).filter(|place| !place.gone.is_empty()) else {
            return;
        };
        let before = place.gone.len();
        place.gone.retain(|chain, _| *chain < from || to.is_some_and(|to| *chain >= to));
        self.gone = self.gone - before + place.gone.len();
    }

    /// What is noted of a chain.
    pub(crate) fn view(&self, topic: &TopicId, chain: ChainId) -> View {
        let state = self.topics.get(topic);
        state.and_then(|state| state.views.get(&chain)).copied().unwrap_or_default()
    }

    /// Notes that the peer has an author's entries up to `seq`.
    pub(crate) fn note_have(&mut self, topic: &TopicId, chain: ChainId, seq: u64, limits: &Limits) {
        if let Some(view) = self.view_mut(topic, chain, limits) {
            view.have = view.have.max(seq);
        }
    }

    /// The peer asks for what it never had: until that is sent it holds nobody back.
    pub(crate) fn catches_up(&mut self, key: &Key, from: u64) {
        let never_had = self.view(&key.0, key.1).have < from;
        if let Some(place) = self.topics.get_mut(&key.0) {
            place.live &= !never_had;
        }
    }

    /// Takes the heads to be announced, without those that the peer announced meanwhile. One that it
    /// sent is an answer to that.
    pub(crate) fn take_heads(&mut self) -> Vec<(TopicId, Announced)> {
        self.heads_at = None;
        let heads = std::mem::take(&mut self.heads).into_iter();
        heads
            .filter(|((topic, chain), head)| {
                let view = self.view(topic, *chain);
                view.have < head.seq || view.brought >= head.seq
            })
            .map(|((topic, _), head)| (topic, head))
            .collect()
    }

    /// Adds a head to those to be announced; false when there is no room until they are sent.
    pub(crate) fn add_head(&mut self, topic: TopicId, head: Announced) -> bool {
        let key = (topic, (head.author, head.epoch));
        if self.heads.len() >= MAX_ANNOUNCED && !self.heads.contains_key(&key) {
            return false;
        }
        self.heads.insert(key, head);
        true
    }

    /// Notes that an author's key goes out with the next frame.
    pub(crate) fn note_key(&mut self, author: AgentId, limits: &Limits) {
        if self.keys_sent.len() >= limits.keys {
            self.keys_sent.pop_lru();
        }
        self.keys_sent.put(author, ());
    }

    /// Undoes the frame handed out last: the peer's queue is full.
    pub(crate) fn refuse_offer(&mut self, now: Tick, limits: &Limits) {
        self.paused = true;
        match self.offer.take() {
            Some(Offer::Subscriptions { set, again, added, removed }) => {
                self.announce_set |= set;
                self.announce_again |= again;
                added.iter().for_each(|topic| {
                    self.announced.remove(topic);
                });
                self.announce.extend(added);
                self.announced.extend(removed.iter().copied());
                self.retract.extend(removed);
            }
            Some(Offer::Control(control)) => {
                self.items += control.items();
                self.control.push_front(control);
            }
            Some(Offer::Heads(heads)) => {
                self.heads_at = Some(now);
                heads.into_iter().for_each(|(topic, head)| {
                    self.add_head(topic, head);
                });
            }
            Some(Offer::Run { topic, cursor, chain, had, key }) => {
                if let Some(view) = self.view_mut(&topic, chain, limits) {
                    *view = had;
                }
                if let Some(state) = self.topics.get_mut(&topic) {
                    state.cursor = cursor;
                }
                self.forget_key(key);
                self.wake(topic);
            }
            Some(Offer::Pulled { topic, chain, next, had, key }) => {
                if let Some(view) = self.view_mut(&topic, chain, limits) {
                    *view = had;
                }
                self.forget_key(key);
                self.pulls.put_back((topic, chain), next);
            }
            None => {}
        }
    }

    fn forget_key(&mut self, key: Option<AgentId>) {
        if let Some(key) = key {
            self.keys_sent.pop(&key);
        }
    }

    /// Something came over the link this much later than its round trip explains.
    pub(crate) fn came_late(&mut self, by: Duration) {
        self.lag = (self.lag + by.min(MAX_LAG)) / 2;
    }

    /// Sorts links that may be asked, the best first: those that behave, then those that are fast.
    pub(crate) fn rank(&self, now: Tick) -> (u32, u32, u32) {
        let (behaviour, credit) = self.score.rank(now);
        // In powers of two of a quarter of a second.
        let slow = (self.lag.as_millis() / 250 + 1).ilog2();
        (behaviour, slow, credit)
    }

    /// Whether the peer lacks something of a topic that it subscribes.
    pub(crate) fn lacks(&self, topic: &TopicId, log: &TopicLog) -> bool {
        let behind = self.topics.get(topic).is_some_and(|state| state.cursor < log.end());
        !self.banned && (behind || self.pulls.any_of(topic))
    }
}
