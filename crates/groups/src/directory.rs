//! The cards that this agent knows, and to whom one may be handed on.

use std::collections::{BTreeMap, BTreeSet};

use x0x_core::{AgentId, WallTime};

use crate::{
    policy::Discoverability,
    wire::{Card, GroupId, SignedCard, hash},
};

/// Cards that are kept; an expired one goes first, then the one made longest ago.
pub const MAX_CARDS: usize = 4096;
/// Shards that are subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 512;
/// Shards of each kind.
pub const SHARDS: u32 = 65_536;
/// Words of a name by which a card is found.
pub const MAX_NAME_WORDS: usize = 8;

/// By what a card is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ShardKind {
    /// By one of its tags.
    Tag,
    /// By a word of its name.
    Name,
    /// By its id.
    Id,
}

impl ShardKind {
    /// The word in the API and in the topic's name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Name => "name",
            Self::Id => "id",
        }
    }

    /// What a word in the API means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Tag, Self::Name, Self::Id].into_iter().find(|kind| kind.word() == word)
    }

    /// The shard of a key; case does not matter.
    #[must_use]
    pub fn shard(self, key: &str) -> u32 {
        let key = key.trim().to_lowercase();
        let hash = hash("x0x.groups.shard.1", &[self.word().as_bytes(), b"|", key.as_bytes()]);
        u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]) % SHARDS
    }

    /// The topic of a shard.
    #[must_use]
    pub fn topic(self, shard: u32) -> String {
        format!("x0x.directory.{}.{shard}", self.word())
    }
}

/// Where a card came from, or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Anybody.
    Public,
    /// An agent that is a contact, directly.
    Contact,
}

/// Whether a group's card may go there, and may be taken from there.
#[must_use]
pub const fn may_reach(discoverability: Discoverability, reach: Reach) -> bool {
    match discoverability {
        Discoverability::Hidden => false,
        Discoverability::ListedToContacts => matches!(reach, Reach::Contact),
        Discoverability::PublicDirectory => true,
    }
}

/// The shards that a public card is published in.
#[must_use]
pub fn shards_of(card: &Card) -> BTreeSet<(ShardKind, u32)> {
    if !may_reach(card.policy.discoverability, Reach::Public) {
        return BTreeSet::new();
    }
    let tags = card.profile.tags.iter().map(|tag| (ShardKind::Tag, ShardKind::Tag.shard(tag)));
    let words = card.profile.name.split_whitespace().filter(|word| word.chars().count() >= 2);
    let words =
        words.take(MAX_NAME_WORDS).map(|word| (ShardKind::Name, ShardKind::Name.shard(word)));
    let id = (ShardKind::Id, ShardKind::Id.shard(&card.group.to_string()));
    tags.chain(words).chain([id]).collect()
}

/// The cards that this agent knows.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    cards: BTreeMap<GroupId, (Reach, SignedCard)>,
    subscriptions: BTreeMap<(ShardKind, u32), (Option<String>, WallTime)>,
}

/// A shard that is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// By what its cards are found.
    pub kind: ShardKind,
    /// Its number.
    pub shard: u32,
    /// What was looked for, if it was said.
    pub key: Option<String>,
    /// Since when.
    pub since: WallTime,
}

impl Directory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a verified card. Whether it is news: not when it came where it must not have been, or when
    /// a later one is here.
    pub fn take(&mut self, card: SignedCard, from: Reach, now: WallTime) -> bool {
        let new = &card.card;
        if !may_reach(new.policy.discoverability, from) || new.expires <= now {
            return false;
        }
        let order = |card: &Card| (card.withdrawn, card.revision, card.issued);
        if self.cards.get(&new.group).is_some_and(|(_, old)| order(&old.card) >= order(new)) {
            return false;
        }
        self.cards.insert(new.group, (from, card));
        if self.cards.len() > MAX_CARDS {
            let last = self.cards.values().min_by_key(|(_, card)| {
                (card.card.expires > now, card.card.issued, card.card.group)
            });
            if let Some(id) = last.map(|(_, card)| card.card.group) {
                self.cards.remove(&id);
            }
        }
        true
    }

    /// The card of a group.
    #[must_use]
    pub fn get(&self, group: &GroupId, now: WallTime) -> Option<&SignedCard> {
        self.cards.get(group).map(|(_, card)| card).filter(|card| card.card.expires > now)
    }

    /// Cards of groups that go on, whose name or tag has a text in it, or whose id it is; all without.
    pub fn search<'a>(
        &'a self,
        text: &str,
        now: WallTime,
    ) -> impl Iterator<Item = &'a SignedCard> + 'a {
        let text = text.trim().to_lowercase();
        let fits = move |card: &Card| {
            text.is_empty()
                || card.profile.name.to_lowercase().contains(&text)
                || card.profile.tags.iter().any(|tag| tag.to_lowercase().contains(&text))
                || card.group.to_string() == text
        };
        let current = self.cards.values().map(|(_, card)| card);
        current
            .filter(move |card| card.card.expires > now && !card.card.withdrawn && fits(&card.card))
    }

    /// Public cards that may be handed on.
    pub fn public(&self, now: WallTime) -> impl Iterator<Item = &SignedCard> {
        let all = self.cards.values().map(|(_, card)| card);
        all.filter(move |card| {
            card.card.expires > now && may_reach(card.card.policy.discoverability, Reach::Public)
        })
    }

    /// Cards of this agent's own making that are for contacts.
    pub fn listed_by(&self, agent: &AgentId, now: WallTime) -> impl Iterator<Item = &SignedCard> {
        let agent = *agent;
        let all = self.cards.values().map(|(_, signed)| signed);
        all.filter(move |SignedCard { card, .. }| {
            let listed = card.policy.discoverability == Discoverability::ListedToContacts;
            listed && card.authority == agent && card.expires > now
        })
    }

    /// Subscribes to a shard. Whether it is new, and what it is now; none when there are too many.
    pub fn subscribe(
        &mut self,
        kind: ShardKind,
        shard: u32,
        key: Option<String>,
        now: WallTime,
    ) -> Option<(bool, Subscribed)> {
        let known = self.subscriptions.get(&(kind, shard)).map(|(_, since)| *since);
        if known.is_none() && self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return None;
        }
        let since = known.unwrap_or(now);
        self.subscriptions.insert((kind, shard), (key.clone(), since));
        Some((known.is_none(), Subscribed { kind, shard, key, since }))
    }

    /// Ends a subscription. Whether there was one.
    pub fn unsubscribe(&mut self, kind: ShardKind, shard: u32) -> bool {
        self.subscriptions.remove(&(kind, shard)).is_some()
    }

    /// The shards that are subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscribed> {
        self.subscriptions.iter().map(|((kind, shard), (key, since))| Subscribed {
            kind: *kind,
            shard: *shard,
            key: key.clone(),
            since: *since,
        })
    }
}
