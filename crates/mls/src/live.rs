//! One epoch of one group, loaded: openmls' group, its values, and what is derived from them.

use openmls::prelude::{Capabilities, CredentialType, GroupContext};
use openmls::prelude::{
    LeafNodeIndex, MlsGroup, MlsGroupJoinConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    SenderRatchetConfiguration, tls_codec::Serialize as _,
};
use sha2::{Digest, Sha256};
use x0x_core::AgentId;
use zeroize::Zeroizing;

use crate::{
    credential::{self, CREDENTIAL_TYPE},
    error::GroupError,
    ordering::StateId,
    provider::Crypto,
    seal,
    storage::EpochStorage,
    store::{MlsStore, Space},
    suite::Suite,
    wire::GroupId,
};

/// Messages of a sender that may be overtaken by later ones and still be read. Logs deliver an author's
/// entries in order, so that few are.
const OUT_OF_ORDER: u32 = 32;
/// Messages of a sender that may be missing before one that is read.
const MAX_FORWARD: u32 = 10_000;
const HANDSHAKE_LABEL: &str = "x0x.mls.handshake.1";

pub(crate) struct Live {
    pub(crate) group: MlsGroup,
    pub(crate) storage: EpochStorage,
    pub(crate) state: StateId,
    /// Seals the handshakes of this epoch.
    pub(crate) handshake: Zeroizing<[u8; seal::KEY_LEN]>,
}

/// The id of a state: its group context holds the epoch, the tree and the transcript.
pub(crate) fn state_id(context: &GroupContext) -> Result<StateId, GroupError> {
    let context = context.tls_serialize_detached().map_err(GroupError::internal)?;
    Ok(Sha256::new().chain_update("x0x.mls.state.1").chain_update(context).finalize().into())
}

pub(crate) fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER, MAX_FORWARD)
}

pub(crate) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(false)
        .sender_ratchet_configuration(ratchets())
        .build()
}

pub(crate) fn capabilities(suite: Suite) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![suite.to_openmls()])
        .credentials(vec![CredentialType::Other(CREDENTIAL_TYPE)])
        .build()
}

impl Live {
    pub(crate) fn new(
        group: MlsGroup,
        storage: EpochStorage,
        crypto: &Crypto,
    ) -> Result<Self, GroupError> {
        let state = state_id(group.public_group().group_context())?;
        let mut handshake = Zeroizing::new([0; seal::KEY_LEN]);
        if group.is_active() {
            let secret = group.export_secret(crypto, HANDSHAKE_LABEL, &[], seal::KEY_LEN);
            let secret = Zeroizing::new(secret.map_err(GroupError::internal)?);
            handshake.copy_from_slice(&secret);
        }
        Ok(Self { group, storage, state, handshake })
    }

    /// The state as it was committed.
    pub(crate) fn load<S: MlsStore + ?Sized>(
        store: &S,
        crypto: &Crypto,
        group: GroupId,
        state: StateId,
    ) -> Result<Self, GroupError> {
        let storage = EpochStorage::from_entries(store.load(Space::Epoch(state))?);
        let id = openmls::prelude::GroupId::from_slice(&group.0);
        let group = MlsGroup::load(&storage, &id)?
            .ok_or_else(|| GroupError::Internal("a state of the chain is not stored".into()))?;
        let mut live = Self::new(group, storage, crypto)?;
        if !live.group.is_active() {
            live.state = state;
        }
        if live.state == state { Ok(live) } else { Err(GroupError::internal("another state")) }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.group.epoch().as_u64()
    }

    /// The members and their leaves, in the order of the tree.
    pub(crate) fn members(&self) -> impl Iterator<Item = (LeafNodeIndex, AgentId)> + '_ {
        let members = self.group.members();
        members.filter_map(|m| Some((m.index, credential::agent_of(&m.credential)?)))
    }

    pub(crate) fn leaf_of(&self, agent: AgentId) -> Option<LeafNodeIndex> {
        self.members().find(|(_, member)| *member == agent).map(|(leaf, _)| leaf)
    }

    pub(crate) fn agent_at(&self, leaf: LeafNodeIndex) -> Option<AgentId> {
        self.group.member(leaf).and_then(credential::agent_of)
    }
}
