//! The groups of one agent over a store.
//!
//! Whatever changes is written first and returned second. When the store fails, what is in memory is
//! thrown away and the next call goes on from what was committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use x0x_core::{AgentId, WallTime};
use x0x_identity::SecretKey;
use zeroize::Zeroizing;

use crate::{
    error::GroupError,
    handle::{
        CommitPolicy, Committed, Event, Intent, Invitation, MembersOnly, MlsGroups, Outgoing,
    },
    journal::{Journal, Pending},
    leaf::{self, Leaf, LeafRecord, VerifiedKeyPackage},
    live::Live,
    metrics::MlsMetrics,
    ordering::{Commit, CommitId, Facts, Link, MAX_LOST, Ordering, Standing, StateId},
    provider::{AeadProbe, Crypto, Provider},
    storage::EpochStorage,
    store::{Batch, Change, Entry, MlsStore, Space},
    suite::Suite,
    wire::{FrameIn, GroupId, MAX_AAD},
};

mod join;
mod older;
mod process;
mod send;

pub use older::{MAX_OLDER, MAX_OLDER_BYTES};
use older::{Older, OlderRecord};

/// Groups that one agent can be in.
pub const MAX_GROUPS: usize = 1024;
/// Groups whose state is kept loaded; the one longest unused is put down first.
pub const MAX_LOADED: usize = 64;
/// Members of a group.
pub const MAX_MEMBERS: usize = 4096;
/// Members up to which a welcome carries the ratchet tree; above, it is fetched by its hash.
pub const MAX_INLINE_TREE: usize = 30;
/// Key packages that may be unused at a time.
pub const MAX_KEY_PACKAGES: usize = 256;
/// Commits of a group that wait for what its policy does not know yet; the oldest epoch goes first.
pub const MAX_DEFERRED: usize = 64;
/// Bytes of commits that are kept of one group because they may stand one day; the oldest epoch goes
/// first.
pub const MAX_COMMIT_BYTES: usize = 64 * 1024 * 1024;

const LEAF_KEY: u8 = 100;
const GROUP_KEY: u8 = 101;
const PACKAGE_KEY: u8 = 102;

#[derive(Clone, PartialEq, Message)]
struct GroupRecord {
    #[prost(uint32, tag = "1")]
    suite: u32,
    #[prost(message, repeated, tag = "2")]
    links: Vec<LinkRecord>,
    #[prost(message, repeated, tag = "3")]
    older: Vec<OlderRecord>,
    /// The first epoch of which a restart knows what was missed; none where it cannot.
    #[prost(uint64, optional, tag = "4")]
    began: Option<u64>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    fell: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct LinkRecord {
    #[prost(bytes = "vec", tag = "1")]
    state: Vec<u8>,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "3")]
    by: Vec<u8>,
    /// Of the commit that led here; no author where this member began.
    #[prost(uint32, tag = "4")]
    rank: u32,
    #[prost(bytes = "vec", tag = "5")]
    author: Vec<u8>,
    #[prost(uint32, tag = "6")]
    seat: u32,
    #[prost(bytes = "vec", repeated, tag = "7")]
    removes: Vec<Vec<u8>>,
}

impl LinkRecord {
    fn of(link: Link) -> Self {
        let mut record = Self {
            state: link.state.to_vec(),
            epoch: link.epoch,
            by: link.by.map(|id| id.to_vec()).unwrap_or_default(),
            ..Self::default()
        };
        if let Some((rank, facts)) = link.facts {
            record.rank = rank;
            record.author = facts.author.as_bytes().to_vec();
            record.seat = facts.seat;
            record.removes = facts.removes.iter().map(|agent| agent.as_bytes().to_vec()).collect();
        }
        record
    }

    fn read(self) -> Option<Link> {
        let agent = |bytes: Vec<u8>| bytes.try_into().ok().map(AgentId::new);
        let by = if self.by.is_empty() { None } else { Some(self.by.try_into().ok()?) };
        let facts = if self.author.is_empty() {
            None
        } else {
            let removes: Option<Vec<AgentId>> = self.removes.into_iter().map(agent).collect();
            Some((self.rank, Facts::new(agent(self.author)?, self.seat, removes?)))
        };
        Some(Link { state: self.state.try_into().ok()?, epoch: self.epoch, by, facts })
    }
}

/// One group.
struct Slot {
    suite: Suite,
    ordering: Ordering,
    older: Older,
    /// The first epoch of which messages are missed when they cannot be read. What came before was either read,
    /// or never for this member.
    began: u64,
    /// States that fell before a restart: what was said there was said again.
    fell: BTreeSet<StateId>,
    live: Option<Live>,
    past: Option<Live>,
    used: u64,
    /// States that descend from a commit that this process made: only there nothing was ever encrypted
    /// that this member may have forgotten.
    fresh: BTreeSet<StateId>,
    bodies: BTreeMap<(u64, CommitId), FrameIn>,
    own: BTreeMap<CommitId, Intent>,
    /// Goes with each commit that is made here.
    stamp: Bytes,
    /// Commits of which the policy cannot judge yet; their frames stay among the bodies.
    deferred: BTreeSet<Commit>,
    /// A commit of this member's own came that it does not remember: its state is a backup.
    forgot: bool,
}

impl Slot {
    fn new(suite: Suite, ordering: Ordering) -> Self {
        Self {
            suite,
            began: ordering.oldest(),
            ordering,
            older: Older::default(),
            fell: BTreeSet::new(),
            live: None,
            past: None,
            used: 0,
            fresh: BTreeSet::new(),
            bodies: BTreeMap::new(),
            own: BTreeMap::new(),
            stamp: Bytes::new(),
            deferred: BTreeSet::new(),
            forgot: false,
        }
    }

    fn record(&self, ordering: &Ordering, older: &Older) -> Vec<u8> {
        let links = ordering.links().map(LinkRecord::of).collect();
        let suite = u32::from(self.suite.code());
        // The log says everything again to a new process. What was read in a state that gave way is not missed.
        let began = Some(self.began.max(older.whole_from()));
        let fell = ordering.lost().chain(self.fell.iter().copied()).take(MAX_LOST);
        let fell = fell.map(|state| state.to_vec()).collect();
        GroupRecord { suite, links, older: older.record(), began, fell }.encode_to_vec()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let record = GroupRecord::decode(bytes).ok()?;
        let suite = Suite::from_code(u16::try_from(record.suite).ok()?)?;
        let links: Option<Vec<Link>> = record.links.into_iter().map(LinkRecord::read).collect();
        let older = Older::read(record.older)?;
        let new = Self::new(suite, Ordering::resume(&links?)?);
        let began = record.began.unwrap_or(new.began);
        let fell = record.fell.into_iter().map(|state| state.try_into().ok());
        let fell = fell.collect::<Option<_>>()?;
        Some(Self { older, began, fell, ..new })
    }

    /// Nothing in memory is to be believed any more.
    fn distrust(&mut self) {
        self.live = None;
        self.past = None;
        self.fresh.clear();
    }
}

/// The groups of one agent. Synchronous; it is meant to be owned by one task or thread.
pub struct Groups<S> {
    store: S,
    crypto: Crypto,
    agent: Arc<SecretKey>,
    policy: Box<dyn CommitPolicy>,
    leaves: BTreeMap<Suite, Leaf>,
    /// Key packages' secrets.
    member: EpochStorage,
    /// Unused key packages by reference, with the end of their lifetime and whether of last resort.
    packages: BTreeMap<Vec<u8>, (WallTime, bool)>,
    slots: BTreeMap<GroupId, Slot>,
    journal: Journal,
    metrics: Arc<MlsMetrics>,
    uses: u64,
}

impl<S> fmt::Debug for Groups<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("groups", &self.slots.len()).finish_non_exhaustive()
    }
}

fn member_key(kind: u8, of: &[u8]) -> Vec<u8> {
    [&[kind], of].concat()
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Change {
    Change::Put(Space::Member, Entry { key, chunk: 0, value: Zeroizing::new(value) })
}

/// The header that a sealed handshake is bound to.
fn header(frame: &FrameIn) -> Vec<u8> {
    FrameIn { body: Bytes::new(), ..frame.clone() }.encode().to_vec()
}

/// The id of a commit: the hash of all of its frame, so that an altered one is another commit.
fn commit_of(frame: &FrameIn) -> Commit {
    let id = Sha256::new()
        .chain_update("x0x.mls.commit.1")
        .chain_update(header(frame))
        .chain_update(&frame.body)
        .finalize();
    let FrameIn { epoch, rank, state, child, .. } = *frame;
    Commit { epoch, rank, parent: state, id: id.into(), child }
}

impl<S: MlsStore> Groups<S> {
    /// Opens what the store holds; leaf keys are made where there are none.
    ///
    /// # Errors
    /// [`GroupError::Store`] when it cannot be read or written, [`GroupError::Internal`] when what is
    /// there is not of this crate.
    pub fn open(store: S, agent: Arc<SecretKey>, now: WallTime) -> Result<Self, GroupError> {
        Self::open_probed(store, agent, now, None)
    }

    /// As [`open`](Self::open), with a probe of every AEAD encryption.
    ///
    /// # Errors
    /// As there.
    pub fn open_probed(
        store: S,
        agent: Arc<SecretKey>,
        now: WallTime,
        probe: Option<Arc<dyn AeadProbe>>,
    ) -> Result<Self, GroupError> {
        let journal = Journal::load(&store)?;
        let mut groups = Self {
            crypto: Crypto::new(probe),
            agent,
            policy: Box::new(MembersOnly),
            leaves: BTreeMap::new(),
            member: EpochStorage::default(),
            packages: BTreeMap::new(),
            slots: BTreeMap::new(),
            journal,
            metrics: Arc::default(),
            uses: 0,
            store,
        };
        groups.load_member()?;
        groups.make_leaves(now)?;
        Ok(groups)
    }

    /// Asks another policy about commits than [`MembersOnly`].
    pub fn set_policy(&mut self, policy: Box<dyn CommitPolicy>) {
        self.policy = policy;
    }

    /// What happened, by cause.
    #[must_use]
    pub fn metrics(&self) -> Arc<MlsMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.slots.keys().copied()
    }

    fn load_member(&mut self) -> Result<(), GroupError> {
        let mut values = Vec::new();
        let broken = || GroupError::internal("an entry of the member");
        for entry in self.store.load(Space::Member)? {
            let (kind, of) = entry.key.split_first().ok_or_else(broken)?;
            match *kind {
                LEAF_KEY => {
                    let code = of.try_into().map(u16::from_be_bytes).ok();
                    let suite = code.and_then(Suite::from_code).ok_or_else(broken)?;
                    let record =
                        LeafRecord::decode(entry.value.as_slice()).map_err(|_| broken())?;
                    self.leaves.insert(suite, Leaf::new(record, suite)?);
                }
                GROUP_KEY => {
                    let group = GroupId(of.try_into().map_err(|_| broken())?);
                    self.slots.insert(group, Slot::read(&entry.value).ok_or_else(broken)?);
                }
                PACKAGE_KEY => {
                    let (last, end) = entry.value.split_first().ok_or_else(broken)?;
                    let end = end.try_into().map(u64::from_be_bytes).map_err(|_| broken())?;
                    let end = WallTime::from_millis(end);
                    self.packages.insert(of.to_vec(), (end, *last != 0));
                }
                _ => values.push(entry),
            }
        }
        self.member = EpochStorage::from_entries(values);
        Ok(())
    }

    fn make_leaves(&mut self, now: WallTime) -> Result<(), GroupError> {
        let mut batch = Batch::new();
        for suite in Suite::ALL {
            if !self.leaves.contains_key(&suite) {
                let record = LeafRecord::generate(&self.crypto, &self.agent, suite, now)?;
                let key = member_key(LEAF_KEY, &suite.code().to_be_bytes());
                batch.push(put(key, record.encode_to_vec()));
                self.leaves.insert(suite, Leaf::new(record, suite)?);
            }
        }
        if !batch.is_empty() {
            self.store.commit(batch)?;
        }
        Ok(())
    }

    fn make_packages(
        &mut self,
        suite: Suite,
        count: usize,
        now: WallTime,
    ) -> Result<Vec<Bytes>, GroupError> {
        let mut batch = Batch::new();
        let expired: Vec<_> = self
            .packages
            .iter()
            .filter(|(_, (end, _))| *end <= now)
            .map(|(k, _)| k.clone())
            .collect();
        if self.packages.len() - expired.len() + count + 1 > MAX_KEY_PACKAGES {
            return Err(GroupError::Limit("unused key packages"));
        }
        let leaf = self.leaf(suite)?;
        let provider = Provider { crypto: &self.crypto, storage: &self.member };
        let credential = leaf.package_credential(&self.agent, now);
        let end = now + leaf::KEY_PACKAGE_LIFETIME;
        let (mut published, mut made) = (Vec::new(), Vec::new());
        for n in 0..=count {
            let last_resort = n == count;
            let bundle = leaf.key_package(&provider, &credential, last_resort)?;
            published.push(Bytes::from(leaf::publish(&bundle)?));
            let reference = bundle.key_package().hash_ref(&self.crypto);
            let reference = reference.map_err(GroupError::internal)?.as_slice().to_vec();
            let value =
                [&[u8::from(last_resort)], end.as_millis().to_be_bytes().as_slice()].concat();
            batch.push(put(member_key(PACKAGE_KEY, &reference), value));
            made.push((reference, (end, last_resort)));
        }
        for reference in &expired {
            self.member.drop_key_package(reference);
            batch.push(Change::Cut(Space::Member, member_key(PACKAGE_KEY, reference), 0));
        }
        batch.extend(self.member.changes(Space::Member));
        self.store.commit(batch)?;
        self.packages.retain(|reference, _| !expired.contains(reference));
        self.packages.extend(made);
        Ok(published)
    }

    fn leaf(&self, suite: Suite) -> Result<&Leaf, GroupError> {
        self.leaves.get(&suite).ok_or_else(|| GroupError::internal("no leaf key"))
    }

    fn agent_id(&self) -> AgentId {
        self.agent.public_key().agent_id()
    }

    fn slot(&mut self, group: GroupId) -> Result<&mut Slot, GroupError> {
        self.slots.get_mut(&group).ok_or(GroupError::Unknown)
    }

    /// The group's current state, loaded.
    fn load(&mut self, group: GroupId) -> Result<&mut Slot, GroupError> {
        self.uses += 1;
        let uses = self.uses;
        let loaded = self.slots.values().filter(|slot| slot.live.is_some()).count();
        let slot = self.slots.get_mut(&group).ok_or(GroupError::Unknown)?;
        slot.used = uses;
        if slot.live.is_none() {
            let tip = slot.ordering.tip().state;
            slot.live = Some(Live::load(&self.store, &self.crypto, group, tip)?);
            if loaded >= MAX_LOADED {
                let others = self.slots.iter_mut().filter(|(id, _)| **id != group);
                let oldest = others.filter(|(_, s)| s.live.is_some()).min_by_key(|(_, s)| s.used);
                if let Some((_, oldest)) = oldest {
                    oldest.live = None;
                    oldest.past = None;
                }
            }
        }
        self.slot(group)
    }

    /// The state, taken out of its slot so that the rest can be used beside it.
    fn take(&mut self, group: GroupId) -> Result<Live, GroupError> {
        let live = self.load(group)?.live.take().ok_or(GroupError::Unknown)?;
        if live.group.is_active() {
            return Ok(live);
        }
        self.slot(group)?.live = Some(live);
        Err(GroupError::NotMember)
    }

    /// Writes a batch; when that fails, nothing of the group in memory is believed.
    fn write(&mut self, group: GroupId, batch: Batch) -> Result<(), GroupError> {
        let written = self.store.commit(batch);
        if let Err(error) = written {
            self.metrics.store_failures.inc();
            if let Some(slot) = self.slots.get_mut(&group) {
                slot.distrust();
            }
            return Err(error.into());
        }
        Ok(())
    }
}

impl<S: MlsStore> MlsGroups for Groups<S> {
    fn key_packages(
        &mut self,
        suite: Suite,
        count: usize,
        now: WallTime,
    ) -> Result<Vec<Bytes>, GroupError> {
        self.make_packages(suite, count, now)
    }

    fn create(&mut self, suite: Suite) -> Result<GroupId, GroupError> {
        self.make_group(suite)
    }

    fn join(&mut self, welcome: &[u8], tree: Option<&[u8]>) -> Result<GroupId, GroupError> {
        let joined = self.welcome(welcome, tree);
        if joined.is_err() {
            self.metrics.welcomes_refused.inc();
        }
        joined
    }

    fn join_external_stamped(
        &mut self,
        info: &[u8],
        tree: Option<&[u8]>,
        stamp: &[u8],
    ) -> Result<(GroupId, Outgoing), GroupError> {
        self.external(info, tree, stamp)
    }

    fn stamp(&mut self, group: GroupId, stamp: &[u8]) -> Result<(), GroupError> {
        if stamp.len() > MAX_AAD {
            return Err(GroupError::Limit("size of a stamp"));
        }
        self.slot(group)?.stamp = Bytes::copy_from_slice(stamp);
        Ok(())
    }

    fn retry(&mut self, group: GroupId) -> Result<Vec<Event>, GroupError> {
        self.try_deferred(group)
    }

    fn invitation(&mut self, group: GroupId) -> Result<Invitation, GroupError> {
        self.make_invitation(group)
    }

    fn commit(
        &mut self,
        group: GroupId,
        add: Vec<VerifiedKeyPackage>,
        remove: &[AgentId],
    ) -> Result<Committed, GroupError> {
        self.make_commit(group, add, remove, false)
    }

    fn refresh(&mut self, group: GroupId) -> Result<Outgoing, GroupError> {
        self.make_commit(group, Vec::new(), &[], true).map(|made| made.commit)
    }

    fn must_refresh(&self, group: GroupId) -> Result<bool, GroupError> {
        let slot = self.slots.get(&group).ok_or(GroupError::Unknown)?;
        Ok(!slot.fresh.contains(&slot.ordering.tip().state))
    }

    fn leave(&mut self, group: GroupId) -> Result<Outgoing, GroupError> {
        self.make_leave(group)
    }

    fn encrypt(
        &mut self,
        group: GroupId,
        aad: &[u8],
        payload: &[u8],
    ) -> Result<Outgoing, GroupError> {
        self.make_message(group, aad, payload)
    }

    fn process(&mut self, frame: &[u8]) -> Result<Vec<Event>, GroupError> {
        self.take_frame(frame)
    }

    fn export(
        &mut self,
        group: GroupId,
        label: &str,
        context: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, GroupError> {
        let live = self.take(group)?;
        // Others' labels are apart from those of this crate.
        let label = format!("x0x.mls.export.{label}");
        let secret = live.group.export_secret(&self.crypto, &label, context, len);
        self.slot(group)?.live = Some(live);
        secret.map(Zeroizing::new).map_err(GroupError::internal)
    }

    fn members(&mut self, group: GroupId) -> Result<(u64, Vec<AgentId>), GroupError> {
        let slot = self.load(group)?;
        let live = slot.live.as_ref().ok_or(GroupError::Unknown)?;
        Ok((live.epoch(), live.members().map(|(_, agent)| agent).collect()))
    }

    fn state(&self, group: GroupId) -> Result<StateId, GroupError> {
        let slot = self.slots.get(&group).ok_or(GroupError::Unknown)?;
        Ok(slot.ordering.tip().state)
    }

    fn stands(&self, group: GroupId, state: &StateId) -> Result<bool, GroupError> {
        let slot = self.slots.get(&group).ok_or(GroupError::Unknown)?;
        Ok(slot.ordering.knows(state))
    }

    fn standing(&self, group: GroupId) -> Result<Standing, GroupError> {
        let slot = self.slots.get(&group).ok_or(GroupError::Unknown)?;
        Ok(if self.behind(slot) { Standing::Behind } else { Standing::Current })
    }

    fn ids(&self) -> Vec<GroupId> {
        self.slots.keys().copied().collect()
    }

    fn forget(&mut self, group: GroupId) -> Result<(), GroupError> {
        self.forget_group(group)
    }

    fn pending(&self) -> Vec<(u64, Pending)> {
        self.journal.pending()
    }

    fn acknowledge(&mut self, ids: &[u64]) -> Result<(), GroupError> {
        self.store.commit(Journal::acknowledge(ids))?;
        self.journal.forget(ids);
        Ok(())
    }
}
