//! Cards: those of this agent's groups are published, those of others are read in the shards that are watched,
//! and what one knows is handed to who asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, WallTime};
use x0x_gossip_pubsub::{Delivery, PubSub, Retention, Start, topic_id};

use super::Inner;
use crate::{
    directory::{Directory, Reach, ShardKind, shards_of},
    error::{GroupsError, SignedError},
    policy::Discoverability,
    wire::{Answer, CardIn, GroupId, MAX_CARDS_HANDED, Question, SignedCard},
};

/// How old a card is renewed: a shard's log keeps a day, which is a card's life, so that there always is one.
pub(super) const RENEW: Duration = Duration::from_secs(6 * 3600);
/// Shards that are read because own cards are there: who publishes in a topic is found by being one of its
/// subscribers. Cards in more are published, and reach who is near.
pub const MAX_OWN_SHARDS: usize = 128;
/// Cards taken from a shard's log in one turn.
const TURN: usize = 16;
/// Agents that are asked for the cards that they know, and how long they may take.
const NEAR: usize = 16;
const NEAR_PATIENCE: Duration = Duration::from_secs(3);

type Shard = (ShardKind, u32);

/// What is known of groups, and where more is read.
#[derive(Debug, Default)]
pub(crate) struct Cards {
    directory: Mutex<Directory>,
    watched: Mutex<BTreeMap<Shard, Watched>>,
}

#[derive(Debug)]
struct Watched {
    /// Because of an own card, too.
    own: bool,
    stop: CancellationToken,
}

impl Cards {
    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Shard, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a card is to be made of a group that is at this revision.
    pub(super) fn is_due(
        &self,
        group: &GroupId,
        (revision, withdrawn): (u64, bool),
        now: WallTime,
    ) -> bool {
        let directory = self.directory();
        let known = directory.get(group, now).map(|known| &known.card);
        known.is_none_or(|card| {
            card.revision < revision || card.withdrawn != withdrawn || card.issued + RENEW <= now
        })
    }
}

impl Inner {
    /// Makes a card of a group and publishes it where it may be, if this agent may and it may have one.
    pub(crate) async fn announce(self: &Arc<Self>, group: GroupId) -> Result<(), GroupsError> {
        let made = self.worker.run(move |owned| {
            let now = owned.now();
            Ok((owned.groups.card(group, now)?, now))
        });
        let (Some(card), now) = made.await? else { return Ok(()) };
        let shards = shards_of(&card.card);
        let encoded = card.encoded().clone();
        self.metrics.cards_made.inc();
        self.cards.directory().take(card, Reach::Contact, now);
        for (kind, shard) in shards {
            self.watch((kind, shard), true);
            let topic = topic_id(&kind.topic(shard));
            let accepted = self.pubsub.accept_as(topic, Retention::Standard, encoded.clone()).await;
            if let Err(error) = accepted {
                tracing::debug!(%group, %error, "a card is not published");
            }
        }
        Ok(())
    }

    /// Reads the cards of a shard from now on.
    pub(crate) fn watch(self: &Arc<Self>, shard: Shard, own: bool) {
        let mut watched = self.cards.watched();
        if let Some(known) = watched.get_mut(&shard) {
            known.own |= own;
            return;
        }
        let full = own && watched.values().filter(|known| known.own).count() >= MAX_OWN_SHARDS;
        if full || self.stop.is_cancelled() {
            return;
        }
        let stop = self.stop.child_token();
        watched.insert(shard, Watched { own, stop: stop.clone() });
        drop(watched);
        let reader = read(Arc::downgrade(self), Arc::clone(&self.pubsub), shard);
        self.tasks.spawn(async move { stop.run_until_cancelled(reader).await });
    }

    /// Does not read a shard any more, unless own cards are there.
    pub(crate) fn unwatch(&self, shard: Shard) {
        let mut watched = self.cards.watched();
        if watched.get(&shard).is_some_and(|known| !known.own)
            && let Some(known) = watched.remove(&shard)
        {
            known.stop.cancel();
        }
    }

    /// Verifies a card and takes it into the directory.
    pub(crate) fn take_card(&self, card: &Bytes, from: From) -> Result<SignedCard, GroupsError> {
        let now = self.clock.wall();
        let taken = CardIn::decode(card)
            .map_err(GroupsError::from)
            .and_then(|read| Ok(read.verify(now)?))
            .and_then(|card| from.check(card));
        match &taken {
            Ok(card) => {
                if self.cards.directory().take(card.clone(), from.reach(), now) {
                    self.metrics.cards_taken.inc();
                }
            }
            Err(_) => self.metrics.cards_refused.inc(),
        }
        taken
    }

    /// The cards that are handed to an agent that asks.
    pub(super) fn handed(&self, to: &AgentId) -> Answer {
        let now = self.clock.wall();
        let directory = self.cards.directory();
        // Whoever is no contact does not learn of groups that are for contacts.
        let listed = directory.listed_by(&self.me, now).filter(|_| self.admittance.may_bring(to));
        let all = listed.chain(directory.public(now)).map(|card| card.encoded().clone());
        Answer::Cards(all.take(MAX_CARDS_HANDED).collect())
    }

    /// Asks the agents that there are sessions with for the cards that they know.
    pub(crate) async fn near(self: &Arc<Self>) -> Vec<SignedCard> {
        let mut asked = JoinSet::new();
        for agent in self.courier.near().into_iter().filter(|a| *a != self.me).take(NEAR) {
            let inner = Arc::clone(self);
            asked.spawn(async move {
                let asked = inner.courier.ask(agent, Question::Cards);
                match timeout(NEAR_PATIENCE, asked).await {
                    Ok(Ok(Answer::Cards(cards))) => inner.take_handed(agent, &cards),
                    _ => Vec::new(),
                }
            });
        }
        let mut found: BTreeSet<GroupId> = BTreeSet::new();
        while let Some(groups) = asked.join_next().await {
            found.extend(groups.unwrap_or_default());
        }
        // A later card than the one that was handed may be here.
        let (now, directory) = (self.clock.wall(), self.cards.directory());
        let cards = found.iter().filter_map(|group| directory.get(group, now));
        cards.filter(|signed| !signed.card.withdrawn).cloned().collect()
    }

    /// Takes cards that an agent handed over; the groups that they are of.
    fn take_handed(&self, by: AgentId, cards: &[Bytes]) -> Vec<GroupId> {
        let from = From::Agent { contact: self.admittance.may_bring(&by) };
        let cards = cards.iter().take(MAX_CARDS_HANDED);
        cards.filter_map(|card| Some(self.take_card(card, from).ok()?.card.group)).collect()
    }
}

/// Where a card came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    /// The topic of a shard.
    Shard(ShardKind, u32),
    /// An agent, directly.
    Agent {
        /// Which is a contact.
        contact: bool,
    },
    /// The user of this one.
    User,
}

impl From {
    const fn reach(self) -> Reach {
        match self {
            Self::User | Self::Agent { contact: true } => Reach::Contact,
            Self::Shard(..) | Self::Agent { contact: false } => Reach::Public,
        }
    }

    /// That a card may be where it was found.
    fn check(self, card: SignedCard) -> Result<SignedCard, GroupsError> {
        let listed = card.card.policy.discoverability == Discoverability::ListedToContacts;
        if listed && matches!(self.reach(), Reach::Public) {
            return Err(SignedError::Content("a card that is for contacts").into());
        }
        match self {
            Self::Shard(kind, shard) if !shards_of(&card.card).contains(&(kind, shard)) => {
                Err(SignedError::Content("a card in another's shard").into())
            }
            _ => Ok(card),
        }
    }
}

async fn read(inner: Weak<Inner>, pubsub: Arc<dyn PubSub>, (kind, shard): Shard) {
    let topic = topic_id(&kind.topic(shard));
    let mut subscription = match pubsub.subscribe(topic, Start::Retained).await {
        Ok(subscription) => subscription,
        Err(error) => {
            tracing::warn!(kind = kind.word(), shard, %error, "a shard of cards is not read");
            return;
        }
    };
    loop {
        let batch = subscription.next_batch(TURN).await;
        let Some(inner) = inner.upgrade().filter(|_| !batch.is_empty()) else { return };
        for delivery in batch {
            if let Delivery::Message(message) = delivery
                && let Err(error) = inner.take_card(&message.payload, From::Shard(kind, shard))
            {
                tracing::debug!(author = %message.author.short(), %error, "a card is refused");
            }
        }
    }
}
