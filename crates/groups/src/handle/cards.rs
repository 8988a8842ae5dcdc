//! Finding groups by their cards.

use bytes::Bytes;

use super::GroupsHandle;
use crate::{
    directory::{ShardKind, Subscribed},
    driver::{CardFrom, subscribed},
    error::{ActError, GroupsError},
    wire::{GroupId, SignedCard},
};

impl GroupsHandle {
    /// Cards known here whose name or a tag has a text in it, or whose id it is; all without one.
    #[must_use]
    pub fn cards(&self, text: &str) -> Vec<SignedCard> {
        let now = self.inner.clock.wall();
        self.inner.cards.directory().search(text, now).cloned().collect()
    }

    /// Cards that the agents know that there are sessions with.
    pub async fn nearby(&self) -> Vec<SignedCard> {
        self.inner.near().await
    }

    /// The card of a group, if one is known here or may be made.
    ///
    /// # Errors
    /// [`GroupsError`] when it is here and cannot be told of.
    pub async fn card(&self, group: GroupId) -> Result<Option<SignedCard>, GroupsError> {
        let now = self.inner.clock.wall();
        let known = self.inner.cards.directory().get(&group, now).cloned();
        if known.is_some() || !self.is_open() {
            return Ok(known);
        }
        let made = self.inner.worker.run(move |owned| {
            if owned.groups.ids().contains(&group) {
                Ok(owned.groups.card(group, now)?)
            } else {
                Ok(None)
            }
        });
        made.await
    }

    /// Makes the card of a group anew and publishes it where it may be; nothing of one that has none.
    ///
    /// # Errors
    /// [`GroupsError`] when the group is not here.
    pub async fn announce(&self, group: GroupId) -> Result<(), GroupsError> {
        self.inner.announce(group).await
    }

    /// Takes a card that the user brings.
    ///
    /// # Errors
    /// [`GroupsError::Session`] when it does not verify, or is of a hidden group.
    pub fn import_card(&self, card: &Bytes) -> Result<SignedCard, GroupsError> {
        self.inner.take_card(card, CardFrom::User)
    }

    /// Reads the cards of a shard from now on, over restarts too; `key` is what was looked for. Whether it is new.
    ///
    /// # Errors
    /// [`ActError::Limit`] when too many are read, [`GroupsError`] when it cannot be stored.
    pub async fn subscribe_cards(
        &self,
        kind: ShardKind,
        shard: u32,
        key: Option<String>,
    ) -> Result<bool, GroupsError> {
        let now = self.inner.clock.wall();
        let taken = self.inner.cards.directory().subscribe(kind, shard, key, now);
        let (new, subscribed) = taken.ok_or(ActError::Limit("subscriptions"))?;
        let change = subscribed::put(&subscribed);
        if let Err(error) = self.inner.worker.run(move |owned| owned.commit(change)).await {
            if new {
                self.inner.cards.directory().unsubscribe(kind, shard);
            }
            return Err(error);
        }
        self.inner.watch((kind, shard), false);
        Ok(new)
    }

    /// Does not read them any more. Whether it did.
    ///
    /// # Errors
    /// [`GroupsError`] when it cannot be stored; it is read on then.
    pub async fn unsubscribe_cards(
        &self,
        kind: ShardKind,
        shard: u32,
    ) -> Result<bool, GroupsError> {
        let known = self.card_subscriptions();
        if !known.iter().any(|known| (known.kind, known.shard) == (kind, shard)) {
            return Ok(false);
        }
        let change = subscribed::cut(kind, shard);
        self.inner.worker.run(move |owned| owned.commit(change)).await?;
        let existed = self.inner.cards.directory().unsubscribe(kind, shard);
        if existed {
            self.inner.unwatch((kind, shard));
        }
        Ok(existed)
    }

    /// The shards that are read because somebody wanted it.
    #[must_use]
    pub fn card_subscriptions(&self) -> Vec<Subscribed> {
        self.inner.cards.directory().subscriptions().collect()
    }
}
