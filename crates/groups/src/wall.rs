//! The messages of a public group: who may write is judged by what the author knew, who is shown by now.

use std::collections::BTreeMap;

use crate::{
    error::ActError,
    state::{Chain, View},
    wire::{GroupId, PublicMessage},
};

/// Messages of a group that are kept; the oldest goes first.
pub const MAX_MESSAGES: usize = 512;

/// What who is banned is told.
pub(crate) const BANNED: &str = "you are banned";

/// The messages of one group.
#[derive(Debug, Clone)]
pub struct Wall {
    group: GroupId,
    messages: BTreeMap<(u64, [u8; 32]), PublicMessage>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Taken {
    /// It is here.
    New,
    /// It was here, or is older than all that are kept.
    Known,
    /// It rests on operations that are not here yet.
    NotYet,
}

/// Whether an agent may write a public message in a state.
///
/// # Errors
/// [`ActError`] with the reason.
pub fn may_write(view: &View, message: &PublicMessage) -> Result<(), ActError> {
    let policy = view.policy.filter(|policy| !policy.is_encrypted());
    let policy = policy.ok_or(ActError::Policy("group is not SignedPublic"))?;
    if view.withdrawn {
        return Err(ActError::Withdrawn);
    }
    if view.is_banned(&message.author) {
        return Err(ActError::Role(BANNED));
    }
    if !policy.may_write(view.role(&message.author)) {
        return Err(ActError::Role("the group's write policy"));
    }
    if view.rooms.get(&message.room).is_some_and(|room| room.closed) {
        return Err(ActError::Policy("the room is closed"));
    }
    Ok(())
}

impl Wall {
    /// An empty one.
    #[must_use]
    pub const fn new(group: GroupId) -> Self {
        Self { group, messages: BTreeMap::new() }
    }

    /// Takes a message that its author signed.
    ///
    /// # Errors
    /// [`ActError`] when its author may not write: the same on every member.
    pub fn take(
        &mut self,
        chain: &Chain,
        id: [u8; 32],
        message: PublicMessage,
    ) -> Result<Taken, ActError> {
        if message.group != self.group || chain.group() != self.group {
            return Err(ActError::Target("a message to another group"));
        }
        let key = (message.at.as_millis(), id);
        if self.messages.contains_key(&key) {
            return Ok(Taken::Known);
        }
        let Some(then) = chain.view_at(&message.heads) else { return Ok(Taken::NotYet) };
        may_write(&then, &message)?;
        self.messages.insert(key, message);
        if self.messages.len() > MAX_MESSAGES
            && let Some((oldest, _)) = self.messages.pop_first()
            && oldest == key
        {
            return Ok(Taken::Known);
        }
        Ok(Taken::New)
    }

    /// The messages that are shown now: of nobody who is banned, and none that is hidden.
    pub fn shown<'a>(
        &'a self,
        view: &'a View,
    ) -> impl Iterator<Item = ([u8; 32], &'a PublicMessage)> + 'a {
        let all = self.messages.iter().map(|((_, id), message)| (*id, message));
        all.filter(|(id, message)| !view.hidden.contains(id) && !view.is_banned(&message.author))
    }
}
