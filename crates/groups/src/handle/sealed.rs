//! Groups by their keys, and content that is sealed to their members.

use bytes::Bytes;
use prost::Message;
use x0x_core::AgentId;

use super::{GroupState, GroupsHandle, random, state};
use crate::{
    error::{ActError, GroupsError},
    session::Sealed,
    wire::GroupId,
};

impl GroupsHandle {
    /// Encrypts content to the members of a group as it is now. It is not sent anywhere.
    ///
    /// # Errors
    /// [`GroupsError`] when this agent may not.
    pub async fn seal(&self, group: GroupId, content: Bytes) -> Result<Sealed, GroupsError> {
        let nonce = random()?;
        self.inner.worker.run(move |owned| Ok(owned.groups.seal(group, nonce, &content)?)).await
    }

    /// Decrypts what a member sealed in the epoch that the group is in.
    ///
    /// # Errors
    /// [`GroupsError`] when it is of another epoch, or does not open.
    pub async fn unseal(&self, group: GroupId, sealed: Sealed) -> Result<Bytes, GroupsError> {
        self.inner.worker.run(move |owned| Ok(owned.groups.unseal(group, &sealed)?)).await
    }

    /// The group whose keys have this id.
    ///
    /// # Errors
    /// [`ActError::Target`] when it is not here.
    pub async fn by_keys(&self, keys: [u8; 32]) -> Result<GroupState, GroupsError> {
        let found = self.inner.worker.run(move |owned| {
            let group = owned.groups.named(x0x_mls::GroupId(keys));
            state(&mut owned.groups, group.ok_or(ActError::Target("group not found"))?)
        });
        found.await
    }

    /// What a member of a group needs to come in by an own commit, as bytes: a `Handover`.
    ///
    /// # Errors
    /// [`GroupsError`] when the agent is not in the group.
    pub async fn welcome(&self, group: GroupId, agent: AgentId) -> Result<Bytes, GroupsError> {
        let made = self.inner.worker.run(move |owned| Ok(owned.groups.invitation(group, agent)?));
        Ok(made.await?.encode_to_vec().into())
    }
}
