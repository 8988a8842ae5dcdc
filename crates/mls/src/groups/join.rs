//! Coming in: by a welcome, or by an own commit.

use openmls::prelude::{
    MlsGroup, MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, RatchetTreeIn,
    tls_codec::Deserialize as _,
};
use sha2::{Digest, Sha256};

use super::{Groups, MAX_GROUPS, MAX_MEMBERS, Slot, commit_of, member_key, send};
use crate::{
    credential,
    error::GroupError,
    handle::Outgoing,
    live::{self, Live},
    ordering::{Link, Ordering, RANK_LAST, Standing, StateId},
    provider::{OsRandom, Provider},
    storage::EpochStorage,
    store::{Change, MlsStore, Space},
    suite::Suite,
    wire::{EntryWire, FrameIn, FrameKind, GroupId, MAX_AAD, MAX_WELCOME},
};

/// What a welcome or an info carries, and the tree that it names.
fn read(
    bytes: &[u8],
    tree: Option<&[u8]>,
) -> Result<(EntryWire, MlsMessageBodyIn, Option<RatchetTreeIn>), GroupError> {
    let entry = EntryWire::read(bytes).map_err(|_| GroupError::Refused("malformed"))?;
    let message = MlsMessageIn::tls_deserialize_exact(&entry.message)
        .map_err(|_| GroupError::Refused("malformed"))?
        .extract();
    if entry.tree_hash.is_empty() {
        return Ok((entry, message, None));
    }
    let fits =
        |tree: &&[u8]| tree.len() <= MAX_WELCOME && *Sha256::digest(tree) == *entry.tree_hash;
    let tree = tree.filter(fits).ok_or(GroupError::TreeMissing)?;
    let tree =
        RatchetTreeIn::tls_deserialize_exact(tree).map_err(|_| GroupError::Refused("tree"))?;
    Ok((entry, message, Some(tree)))
}

fn id_of(group: &openmls::prelude::GroupId) -> Result<GroupId, GroupError> {
    let id = group.as_slice().try_into();
    id.map(GroupId).map_err(|_| GroupError::Refused("the group's id"))
}

/// Verifies the credential of every member, and that no agent has two leaves.
fn verify_members(group: &MlsGroup, suite: Suite) -> Result<(), GroupError> {
    let mut agents = std::collections::BTreeSet::new();
    for member in group.members() {
        let key = &member.signature_key;
        let verified = credential::verify(&member.credential, suite, key, None)?;
        if !agents.insert(verified.agent) || agents.len() > MAX_MEMBERS {
            return Err(GroupError::Refused("members"));
        }
    }
    Ok(())
}

impl<S: MlsStore> Groups<S> {
    pub(super) fn welcome(
        &mut self,
        bytes: &[u8],
        tree: Option<&[u8]>,
    ) -> Result<GroupId, GroupError> {
        let (entry, message, tree) = read(bytes, tree)?;
        let MlsMessageBodyIn::Welcome(welcome) = message else {
            return Err(GroupError::Refused("not a welcome"));
        };
        let suite =
            Suite::from_openmls(welcome.ciphersuite()).ok_or(GroupError::Refused("suite"))?;
        let storage = EpochStorage::default();
        storage.borrow_key_packages(&self.member);
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        let refused = |_| GroupError::Refused("the welcome does not verify");
        let processed =
            ProcessedWelcome::new_from_welcome(&provider, &live::join_config(), welcome)
                .map_err(refused)?;
        let staged = processed.into_staged_welcome(&provider, tree).map_err(refused)?;
        let group = staged.into_group(&provider).map_err(refused)?;
        let id = id_of(group.group_id())?;
        self.check_entry(id, group.epoch().as_u64())?;
        verify_members(&group, suite)?;
        // Only now the key package is used up: a welcome that is refused costs none.
        storage.return_key_packages(&self.member);
        let live = Live::new(group, storage, &self.crypto)?;
        let by = entry.commit.as_ref().try_into().ok();
        let start = Link::start(live.state, live.epoch(), by);
        self.enter(id, Slot::new(suite, Ordering::new(&start)), live, false, None)?;
        self.forget_used_packages()?;
        Ok(id)
    }

    /// Whether this member may begin (again) in a group at this epoch: never in one where it has been.
    fn check_entry(&self, id: GroupId, epoch: u64) -> Result<(), GroupError> {
        match self.slots.get(&id) {
            None if self.slots.len() >= MAX_GROUPS => Err(GroupError::Limit("groups")),
            Some(slot) if epoch <= slot.ordering.tip().epoch && !self.behind(slot) => {
                Err(GroupError::Exists)
            }
            _ => Ok(()),
        }
    }

    /// That a member does not come in again where it is: that it is behind is a suspicion, which anybody who
    /// writes in the log can cause, and each coming in costs all members a commit.
    fn check_elsewhere(&mut self, id: GroupId, state: StateId) -> Result<(), GroupError> {
        let here = |slot: &Slot| !slot.forgot && slot.ordering.tip().state == state;
        if self.slots.get(&id).is_some_and(here) && self.is_inside(id) {
            return Err(GroupError::Exists);
        }
        Ok(())
    }

    pub(super) fn behind(&self, slot: &Slot) -> bool {
        slot.forgot || slot.ordering.standing() == Standing::Behind
    }

    fn forget_used_packages(&mut self) -> Result<(), GroupError> {
        let kept = self.member.key_package_keys();
        let used: Vec<_> = self
            .packages
            .keys()
            .filter(|reference| !kept.iter().any(|key| key.ends_with(reference)))
            .cloned()
            .collect();
        let cut = |r: &Vec<u8>| Change::Cut(Space::Member, member_key(super::PACKAGE_KEY, r), 0);
        self.store.commit(used.iter().map(cut).collect())?;
        self.packages.retain(|reference, _| !used.contains(reference));
        Ok(())
    }

    pub(super) fn external(
        &mut self,
        bytes: &[u8],
        tree: Option<&[u8]>,
        stamp: &[u8],
    ) -> Result<(GroupId, Outgoing), GroupError> {
        if stamp.len() > MAX_AAD {
            return Err(GroupError::Limit("size of a stamp"));
        }
        self.journal.check_room()?;
        let (_, message, tree) = read(bytes, tree)?;
        let MlsMessageBodyIn::GroupInfo(info) = message else {
            return Err(GroupError::Refused("not a group info"));
        };
        let suite = Suite::from_openmls(info.ciphersuite()).ok_or(GroupError::Refused("suite"))?;
        let (id, epoch) = (id_of(info.group_id())?, info.epoch().as_u64());
        let parent = live::state_id(info.group_context())?;
        // Who has no keys where it stands, on a side that nobody else is on, may find the others at an earlier epoch.
        let stranded = self.slots.contains_key(&id) && !self.is_inside(id);
        if !stranded {
            self.check_entry(id, epoch + 1)?;
        }
        self.check_elsewhere(id, parent)?;
        let storage = EpochStorage::default();
        let leaf = self.leaf(suite)?;
        let refused = "the group info does not verify";
        let mut builder = MlsGroup::external_commit_builder()
            .with_config(live::join_config())
            .with_aad(stamp.to_vec())
            .skip_lifetime_validation();
        if let Some(tree) = tree {
            builder = builder.with_ratchet_tree(tree);
        }
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        let (group, bundle) = builder
            .build_group(&provider, info, leaf.with_key())
            .map_err(|_| GroupError::Refused(refused))?
            .leaf_node_parameters(
                openmls::prelude::LeafNodeParameters::builder()
                    .with_capabilities(live::capabilities(suite))
                    .build(),
            )
            .load_psks(&storage)
            .map_err(GroupError::internal)?
            .build(&OsRandom, &self.crypto, leaf, |_| true)
            .map_err(|_| GroupError::Refused(refused))?
            .finalize(&provider)
            .map_err(GroupError::internal)?;
        verify_members(&group, suite)?;
        let live = Live::new(group, storage, &self.crypto)?;
        let (child, kind) = (live.state, FrameKind::External);
        let body = send::bytes(bundle.commit())?.into();
        let rank = RANK_LAST;
        let frame = FrameIn { kind, group: id, epoch, state: parent, child, rank, body };
        let start = Link::start(child, epoch + 1, Some(commit_of(&frame).id));
        let slot = Slot::new(suite, Ordering::new(&start));
        let sent = self.enter(id, slot, live, true, Some(frame.encode()))?;
        Ok((id, sent.ok_or_else(|| GroupError::internal("not journalled"))?))
    }
}
