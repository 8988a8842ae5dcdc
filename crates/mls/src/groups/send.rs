//! What this member makes: groups, commits, messages.

use bytes::Bytes;
use openmls::prelude::{
    LeafNodeIndex, MlsGroup, MlsMessageOut, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    tls_codec::Serialize as _,
};
use sha2::{Digest, Sha256};
use x0x_core::AgentId;

use super::{
    Groups, MAX_GROUPS, MAX_INLINE_TREE, MAX_MEMBERS, Slot, commit_of, header, member_key, put,
};
use crate::{
    error::GroupError,
    handle::{CommitFacts, Committed, Intent, Invitation, Outgoing},
    journal::Pending,
    leaf::VerifiedKeyPackage,
    live::{self, Live},
    ordering::{CommitId, Facts, Link, Ordering},
    provider::{OsRandom, Provider},
    seal,
    storage::EpochStorage,
    store::{MlsStore, Space},
    suite::Suite,
    wire::{EntryWire, FrameIn, FrameKind, GroupId, MAX_AAD, MAX_PAYLOAD},
};
use openmls_traits::random::OpenMlsRand;

/// A commit that was made and not written yet.
pub(super) struct Made {
    pub(super) live: Live,
    pub(super) message: Vec<u8>,
    pub(super) welcome: Option<MlsMessageOut>,
}

pub(super) fn bytes(message: &MlsMessageOut) -> Result<Vec<u8>, GroupError> {
    message.to_bytes().map_err(GroupError::internal)
}

/// The ratchet tree, and its hash.
pub(super) fn tree_of(group: &MlsGroup) -> Result<(Bytes, Bytes), GroupError> {
    let tree = group.export_ratchet_tree().tls_serialize_detached();
    let tree = Bytes::from(tree.map_err(GroupError::internal)?);
    let hash = Bytes::copy_from_slice(&Sha256::digest(&tree));
    Ok((tree, hash))
}

/// What those who were added need: the welcome, and the tree if that does not carry it.
fn welcome_of(
    made: &Made,
    commit: &CommitId,
) -> Result<(Option<Bytes>, Option<Bytes>), GroupError> {
    let Some(welcome) = &made.welcome else { return Ok((None, None)) };
    let inline = made.live.group.members().count() <= MAX_INLINE_TREE;
    let tree = if inline { None } else { Some(tree_of(&made.live.group)?) };
    let entry = EntryWire {
        message: bytes(welcome)?.into(),
        tree_hash: tree.as_ref().map(|(_, hash)| hash.clone()).unwrap_or_default(),
        commit: Bytes::copy_from_slice(commit),
    };
    let entry = Bytes::from(prost::Message::encode_to_vec(&entry));
    Ok((Some(entry), tree.map(|(tree, _)| tree)))
}

impl<S: MlsStore> Groups<S> {
    pub(super) fn make_group(&mut self, suite: Suite) -> Result<GroupId, GroupError> {
        if self.slots.len() >= MAX_GROUPS {
            return Err(GroupError::Limit("groups"));
        }
        let id = GroupId(OsRandom.random_array().map_err(GroupError::internal)?);
        let storage = EpochStorage::default();
        let leaf = self.leaf(suite)?;
        let group = MlsGroup::builder()
            .with_group_id(openmls::prelude::GroupId::from_slice(&id.0))
            .ciphersuite(suite.to_openmls())
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .max_past_epochs(0)
            .number_of_resumption_psks(0)
            .use_ratchet_tree_extension(false)
            .sender_ratchet_configuration(live::ratchets())
            .with_capabilities(live::capabilities(suite))
            .lifetime(crate::leaf::endless())
            .build(&Provider { crypto: &self.crypto, storage: &storage }, leaf, leaf.with_key())
            .map_err(GroupError::internal)?;
        let live = Live::new(group, storage, &self.crypto)?;
        let start = Link::start(live.state, live.epoch(), None);
        self.enter(id, Slot::new(suite, Ordering::new(&start)), live, true, None)?;
        Ok(id)
    }

    /// Writes a group that begins here in this state, and a frame to be sent if there is one.
    pub(super) fn enter(
        &mut self,
        id: GroupId,
        mut slot: Slot,
        live: Live,
        fresh: bool,
        frame: Option<Bytes>,
    ) -> Result<Option<Outgoing>, GroupError> {
        let mut batch = Vec::new();
        // Who comes back by an own commit was thought to be in the group all the time: a side that removed it
        // may be one that fell.
        let stays = frame.is_some() || self.is_inside(id);
        if let Some(old) = self.slots.get(&id) {
            // What was written where this member was is still to be read.
            slot.older = old.older.clone();
            let states: Vec<_> =
                old.ordering.links().map(|link| (link.state, link.epoch)).collect();
            let gone = slot.older.keep_all(&self.store, states)?;
            batch.extend(gone.into_iter().map(|s| crate::store::Change::Drop(Space::Epoch(s))));
            if stays {
                slot.began = slot.began.min(old.began);
            }
        }
        batch.extend(live.storage.changes(Space::Epoch(live.state)));
        batch.push(put(
            member_key(super::GROUP_KEY, &id.0),
            slot.record(&slot.ordering, &slot.older),
        ));
        batch.extend(self.member.changes(Space::Member));
        let outgoing = frame.map(|frame| Pending::Outgoing { group: id, frame });
        let journalled = outgoing.map(|o| (self.journal.write(&o, &mut batch), o));
        if let Err(error) = self.store.commit(batch) {
            self.metrics.store_failures.inc();
            // What the key packages' storage let go is still in the store.
            self.packages.clear();
            self.load_member()?;
            return Err(error.into());
        }
        if fresh {
            slot.fresh.insert(live.state);
        }
        slot.live = Some(live);
        self.slots.insert(id, slot);
        Ok(journalled.map(|(id, pending)| self.journalled(id, pending)))
    }

    fn journalled(&mut self, id: u64, pending: Pending) -> Outgoing {
        let frame = match &pending {
            Pending::Outgoing { frame, .. } => frame.clone(),
            Pending::Received { .. } => Bytes::new(),
        };
        self.journal.committed(id, pending);
        Outgoing { id, frame }
    }

    pub(super) fn make_commit(
        &mut self,
        group: GroupId,
        add: Vec<VerifiedKeyPackage>,
        remove: &[AgentId],
        path: bool,
    ) -> Result<Committed, GroupError> {
        self.journal.check_room()?;
        let live = self.take(group)?;
        let checked = self.check_membership(group, &live, &add, remove);
        let removed = match checked {
            Ok(removed) => removed,
            Err(error) => {
                self.slot(group)?.live = Some(live);
                return Err(error);
            }
        };
        let intent =
            Intent { added: add.iter().map(|p| p.agent).collect(), removed: remove.to_vec() };
        let (state, epoch, key) = (live.state, live.epoch(), live.handshake.clone());
        let seat = live.group.own_leaf_index().u32();
        let facts = Facts::new(self.agent_id(), seat, remove.iter().copied());
        let members: Vec<AgentId> = live.members().map(|(_, agent)| agent).collect();
        let stamp = self.slot(group)?.stamp.clone();
        let rank = self.rank(&CommitFacts {
            group,
            epoch,
            by: facts.author,
            joins: false,
            members: &members,
            added: &intent.added,
            removed: remove,
            stamp: &stamp,
        });
        let path = path || !self.slot(group)?.fresh.contains(&state);
        // From here on a failure leaves nothing in memory, and the next call loads what is stored.
        let made = self.build_commit(group, live, add, removed, path)?;
        let child = made.live.state;
        let (kind, body) = (FrameKind::Commit, Bytes::new());
        let mut frame = FrameIn { kind, group, epoch, state, child, rank, body };
        frame.body = seal::seal(&key, &header(&frame), &made.message)
            .ok_or(GroupError::Limit("size of a commit"))?
            .into();
        let commit = commit_of(&frame);
        let (welcome, tree) = welcome_of(&made, &commit.id)?;
        let pending = Pending::Outgoing { group, frame: frame.encode() };
        let (_, id) = self
            .advance(group, made.live, &commit, facts, path, Some(&pending))?
            .ok_or_else(|| GroupError::internal("a rival waits to be tried"))?;
        let slot = self.slot(group)?;
        // Should it fall and come back, it cannot be applied again: who made it joins again.
        slot.bodies.insert((commit.epoch, commit.id), frame);
        let chain: Vec<_> = slot.ordering.links().filter_map(|link| link.by).collect();
        slot.own.retain(|id, _| chain.contains(id));
        slot.own.insert(commit.id, intent);
        self.metrics.committed.inc();
        let id = id.ok_or_else(|| GroupError::internal("not journalled"))?;
        Ok(Committed { commit: self.journalled(id, pending), welcome, tree })
    }

    fn check_membership(
        &self,
        group: GroupId,
        live: &Live,
        add: &[VerifiedKeyPackage],
        remove: &[AgentId],
    ) -> Result<Vec<LeafNodeIndex>, GroupError> {
        let suite = self.slots.get(&group).ok_or(GroupError::Unknown)?.suite;
        let mut removed = Vec::with_capacity(remove.len());
        for agent in remove {
            if *agent == self.agent_id() {
                return Err(GroupError::Membership("a member leaves by asking the others"));
            }
            let leaf = live.leaf_of(*agent);
            removed.push(leaf.ok_or(GroupError::Membership("not a member"))?);
        }
        if live.group.members().count() + add.len() > MAX_MEMBERS + removed.len() {
            return Err(GroupError::Limit("members"));
        }
        for (n, package) in add.iter().enumerate() {
            if package.suite != suite {
                return Err(crate::error::KeyPackageError::Suite.into());
            }
            let twice = add[..n].iter().any(|other| other.agent == package.agent);
            let stays = live.leaf_of(package.agent).is_some() && !remove.contains(&package.agent);
            if twice || stays {
                return Err(GroupError::Membership("a member already"));
            }
        }
        Ok(removed)
    }

    fn build_commit(
        &self,
        group: GroupId,
        mut live: Live,
        add: Vec<VerifiedKeyPackage>,
        removed: Vec<LeafNodeIndex>,
        path: bool,
    ) -> Result<Made, GroupError> {
        let suite = self.slots.get(&group).ok_or(GroupError::Unknown)?.suite;
        let leaf = self.leaf(suite)?;
        let members = live.group.members().count() + add.len() - removed.len();
        let storage = live.storage.fork();
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        live.group.set_aad(self.slots.get(&group).map(|s| s.stamp.to_vec()).unwrap_or_default());
        let bundle = live
            .group
            .commit_builder()
            .consume_proposal_store(false)
            .propose_adds(add.into_iter().map(|package| package.package))
            .propose_removals(removed)
            .force_self_update(path)
            .load_psks(&storage)
            .map_err(GroupError::internal)?
            .use_ratchet_tree_extension(members <= MAX_INLINE_TREE)
            .build(&OsRandom, &self.crypto, leaf, |_| true)
            .map_err(GroupError::internal)?
            .stage_commit(&provider)
            .map_err(GroupError::internal)?;
        live.group.merge_pending_commit(&provider).map_err(GroupError::internal)?;
        let (message, welcome, _) = bundle.into_messages();
        let message = bytes(&message)?;
        let live = Live::new(live.group, storage, &self.crypto)?;
        Ok(Made { live, message, welcome })
    }

    pub(super) fn make_message(
        &mut self,
        group: GroupId,
        aad: &[u8],
        payload: &[u8],
    ) -> Result<Outgoing, GroupError> {
        if payload.len() > MAX_PAYLOAD || aad.len() > MAX_AAD {
            return Err(GroupError::Limit("size of a message"));
        }
        self.journal.check_room()?;
        let mut live = self.take(group)?;
        let (state, epoch) = (live.state, live.epoch());
        if !self.slot(group)?.fresh.contains(&state) {
            self.slot(group)?.live = Some(live);
            return Err(GroupError::RefreshFirst);
        }
        let suite = self.slot(group)?.suite;
        live.group.set_aad(aad.to_vec());
        let message = live
            .group
            .create_message(
                &Provider { crypto: &self.crypto, storage: &live.storage },
                self.leaf(suite)?,
                payload,
            )
            .map_err(GroupError::internal)?;
        let body = bytes(&message)?.into();
        let kind = FrameKind::Application;
        let frame = FrameIn { kind, group, epoch, state, child: [0; 32], rank: 0, body }.encode();
        let mut batch = live.storage.changes(Space::Epoch(state));
        let pending = Pending::Outgoing { group, frame };
        let id = self.journal.write(&pending, &mut batch);
        self.write(group, batch)?;
        self.slot(group)?.live = Some(live);
        self.metrics.encrypted.inc();
        Ok(self.journalled(id, pending))
    }

    pub(super) fn make_leave(&mut self, group: GroupId) -> Result<Outgoing, GroupError> {
        self.journal.check_room()?;
        let mut live = self.take(group)?;
        let suite = self.slot(group)?.suite;
        // The request needs no state of its own: what openmls would keep of it is thrown away.
        let storage = live.storage.fork();
        let own = live.group.own_leaf_index();
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        let proposed = live.group.propose_remove_member(&provider, self.leaf(suite)?, own);
        let (message, reference) = proposed.map_err(GroupError::internal)?;
        let forgotten = live.group.remove_pending_proposal(&storage, &reference);
        forgotten.map_err(GroupError::internal)?;
        let (epoch, state, kind) = (live.epoch(), live.state, FrameKind::Leave);
        let (child, rank) = ([0; 32], 0);
        let mut frame = FrameIn { kind, group, epoch, state, child, rank, body: Bytes::new() };
        let body = seal::seal(&live.handshake, &header(&frame), &bytes(&message)?);
        frame.body = body.ok_or(GroupError::Limit("size of a message"))?.into();
        let frame = frame.encode();
        self.slot(group)?.live = Some(live);
        let mut batch = Vec::new();
        let pending = Pending::Outgoing { group, frame };
        let id = self.journal.write(&pending, &mut batch);
        self.write(group, batch)?;
        Ok(self.journalled(id, pending))
    }

    pub(super) fn make_invitation(&mut self, group: GroupId) -> Result<Invitation, GroupError> {
        let live = self.take(group)?;
        let suite = self.slot(group)?.suite;
        let inline = live.group.members().count() <= MAX_INLINE_TREE;
        let info = live.group.export_group_info(&self.crypto, self.leaf(suite)?, inline);
        let info = bytes(&info.map_err(GroupError::internal)?)?;
        let tree = if inline { None } else { Some(tree_of(&live.group)?) };
        let by = self.slot(group)?.ordering.tip().by;
        let entry = EntryWire {
            message: info.into(),
            tree_hash: tree.as_ref().map(|(_, hash)| hash.clone()).unwrap_or_default(),
            commit: by.map(|by| Bytes::copy_from_slice(&by)).unwrap_or_default(),
        };
        self.slot(group)?.live = Some(live);
        let info = prost::Message::encode_to_vec(&entry).into();
        Ok(Invitation { info, tree: tree.map(|(tree, _)| tree) })
    }
}
