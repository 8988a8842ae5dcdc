//! What comes from the group's log.

use bytes::Bytes;
use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, ProcessMessageError, ProcessedMessageContent, Proposal,
    ProtocolMessage, Sender, StageCommitError, StagedCommit, tls_codec::Deserialize as _,
};
use x0x_core::AgentId;

use super::{Groups, MAX_COMMIT_BYTES, MAX_DEFERRED, commit_of, header, member_key, put};
use crate::{
    credential,
    error::GroupError,
    handle::{CommitFacts, Event, Intent, Verdict},
    journal::Pending,
    live::{self, Live},
    ordering::{Commit, Facts, Fallen, Offered, RANK_LAST, RANK_OTHER},
    provider::Provider,
    seal,
    store::{Change, MlsStore, Space},
    suite::Suite,
    wire::{FrameIn, FrameKind, GroupId},
};

/// What a commit that verified does.
struct Effect {
    seat: u32,
    by: AgentId,
    added: Vec<AgentId>,
    removed: Vec<AgentId>,
    self_removed: bool,
}

/// Why a commit does not stand.
enum Refusal {
    Invalid,
    /// This member made it and does not remember.
    Own,
    Credential,
    Policy,
    /// It claims a rank that it has not.
    Rank,
    /// It rests on something that is not known here yet.
    NotYet,
}

/// A commit that was refused, and the state it was tried in if that is as it was.
type Failed = (Option<Box<Live>>, Refusal);

fn parse(message: &[u8]) -> Option<ProtocolMessage> {
    let message = MlsMessageIn::tls_deserialize_exact(message).ok()?;
    match message.extract() {
        MlsMessageBodyIn::PublicMessage(public) => Some(public.into()),
        MlsMessageBodyIn::PrivateMessage(private) => Some(private.into()),
        _ => None,
    }
}

impl<S: MlsStore> Groups<S> {
    pub(super) fn take_frame(&mut self, bytes: &[u8]) -> Result<Vec<Event>, GroupError> {
        let Ok(frame) = FrameIn::decode(bytes) else {
            self.metrics.malformed.inc();
            return Err(GroupError::Refused("a malformed frame"));
        };
        if !self.slots.contains_key(&frame.group) {
            return Err(GroupError::Unknown);
        }
        match frame.kind {
            FrameKind::Application => self.take_message(&frame).map(|event| vec![event]),
            FrameKind::Leave => self.take_leave(&frame).map(|event| vec![event]),
            FrameKind::Commit | FrameKind::External => self.take_commit(frame),
        }
    }

    /// The state that a frame was made in; none if it is not known here.
    fn state_of(&mut self, frame: &FrameIn) -> Result<Option<Live>, GroupError> {
        let slot = self.load(frame.group)?;
        let tip = slot.ordering.tip().state;
        if frame.state == tip {
            return Ok(slot.live.take());
        }
        if !slot.ordering.knows(&frame.state) && !slot.older.contains(&frame.state) {
            return Ok(None);
        }
        match slot.past.take().filter(|past| past.state == frame.state) {
            Some(past) => Ok(Some(past)),
            None => Live::load(&self.store, &self.crypto, frame.group, frame.state).map(Some),
        }
    }

    fn give_back(&mut self, group: GroupId, live: Live) {
        let Some(slot) = self.slots.get_mut(&group) else { return };
        if live.state == slot.ordering.tip().state {
            slot.live = Some(live);
        } else {
            slot.past = Some(live);
        }
    }

    fn take_message(&mut self, frame: &FrameIn) -> Result<Event, GroupError> {
        self.journal.check_room()?;
        let Some(mut live) = self.state_of(frame)? else { return Ok(self.unknown_state(frame)) };
        let read = self.decrypt(&mut live, frame);
        let (author, aad, payload) = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.give_back(frame.group, live);
                return Ok(Event::Nothing);
            }
            Err(error) => {
                self.metrics.undecryptable.inc();
                self.give_back(frame.group, live);
                return Err(error);
            }
        };
        let (group, epoch) = (frame.group, frame.epoch);
        let mut batch = live.storage.changes(Space::Epoch(live.state));
        let pending =
            Pending::Received { group, author, aad: aad.clone(), payload: payload.clone() };
        let id = self.journal.write(&pending, &mut batch);
        // A state in memory whose write failed is dropped here, and loaded again when it is needed.
        self.write(group, batch)?;
        self.give_back(group, live);
        self.journal.committed(id, pending);
        self.metrics.decrypted.inc();
        Ok(Event::Message { id, author, epoch, aad, payload })
    }

    fn decrypt(
        &self,
        live: &mut Live,
        frame: &FrameIn,
    ) -> Result<Option<(AgentId, Bytes, Bytes)>, GroupError> {
        let refused = GroupError::Refused("a message that does not decrypt, or came before");
        let Some(message @ ProtocolMessage::PrivateMessage(_)) = parse(&frame.body) else {
            return Err(refused);
        };
        if !live.group.is_active() {
            return Ok(None);
        }
        let provider = Provider { crypto: &self.crypto, storage: &live.storage };
        let Ok(processed) = live.group.process_message(&provider, message) else {
            return Err(refused);
        };
        let Sender::Member(leaf) = *processed.sender() else { return Err(refused) };
        let author = live.agent_at(leaf).ok_or(GroupError::Refused("an author"))?;
        let aad = Bytes::copy_from_slice(processed.aad());
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                Ok(Some((author, aad, message.into_bytes().into())))
            }
            ProcessedMessageContent::OwnPrivateMessage => Ok(None),
            _ => Err(refused),
        }
    }

    fn take_leave(&mut self, frame: &FrameIn) -> Result<Event, GroupError> {
        let Some(mut live) = self.state_of(frame)? else {
            self.metrics.not_yet.inc();
            return Ok(Event::NotYet);
        };
        let agent = self.read_leave(&mut live, frame);
        self.give_back(frame.group, live);
        match agent? {
            Some(agent) => Ok(Event::LeaveRequested { agent }),
            None => Ok(Event::Nothing),
        }
    }

    fn read_leave(&self, live: &mut Live, frame: &FrameIn) -> Result<Option<AgentId>, GroupError> {
        let refused = || GroupError::Refused("a request to leave");
        if !live.group.is_active() {
            return Ok(None);
        }
        let message =
            seal::open(&live.handshake, &header(frame), &frame.body).ok_or_else(refused)?;
        let message = parse(&message).ok_or_else(refused)?;
        let storage = live.storage.fork();
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        let processed = live.group.process_message(&provider, message).map_err(|_| refused())?;
        let Sender::Member(leaf) = *processed.sender() else { return Err(refused()) };
        let ProcessedMessageContent::ProposalMessage(proposal) = processed.into_content() else {
            return Err(refused());
        };
        let Proposal::Remove(remove) = proposal.proposal() else { return Err(refused()) };
        if remove.removed() != leaf {
            return Err(refused());
        }
        Ok(live.agent_at(leaf))
    }

    fn take_commit(&mut self, frame: FrameIn) -> Result<Vec<Event>, GroupError> {
        let (group, commit) = (frame.group, commit_of(&frame));
        let slot = self.slot(group)?;
        let offered = slot.ordering.offer(commit);
        match offered {
            Offered::Lost => {
                self.metrics.commits_lost.inc();
                return Ok(vec![Event::Nothing]);
            }
            // It may still wait to be tried, after the store failed.
            Offered::Duplicate => {}
            Offered::Rival | Offered::Waiting => {
                slot.bodies.insert((commit.epoch, commit.id), frame);
            }
        }
        let mut size: usize = slot.bodies.values().map(|frame| frame.body.len()).sum();
        while size > MAX_COMMIT_BYTES {
            let Some((_, dropped)) = slot.bodies.pop_first() else { break };
            size -= dropped.body.len();
        }
        self.try_rivals(group, &commit, offered)
    }

    /// Offers those again that the policy could not judge.
    pub(super) fn try_deferred(&mut self, group: GroupId) -> Result<Vec<Event>, GroupError> {
        let mut events = Vec::new();
        for commit in std::mem::take(&mut self.slot(group)?.deferred) {
            let offered = self.slot(group)?.ordering.offer(commit);
            match self.try_rivals(group, &commit, offered) {
                Ok(more) => events.extend(more),
                Err(GroupError::Refused(_)) => {}
                Err(error) if events.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        events.retain(|event| !matches!(event, Event::Nothing | Event::NotYet));
        Ok(events)
    }

    /// Tries what may stand, after `commit` was offered.
    fn try_rivals(
        &mut self,
        group: GroupId,
        commit: &Commit,
        offered: Offered,
    ) -> Result<Vec<Event>, GroupError> {
        let mut events = Vec::new();
        let mut refused = false;
        while let Some(next) = self.slot(group)?.ordering.try_next() {
            match self.try_commit(group, &next, &mut events) {
                Ok(stands) => refused |= !stands && next.id == commit.id,
                Err(error) if events.is_empty() => return Err(error),
                // What stood before the store failed is told; the rest is tried with the next frame.
                Err(_) => break,
            }
        }
        let deferred = self.slot(group)?.deferred.contains(commit);
        if refused && !deferred && events.is_empty() {
            return Err(GroupError::Refused("a commit that does not verify"));
        }
        if events.is_empty() && offered != Offered::Waiting && !deferred {
            events.push(Event::Nothing);
        } else if events.is_empty() {
            self.metrics.not_yet.inc();
            events.push(Event::NotYet);
        }
        Ok(events)
    }

    /// Tries a commit that may stand if it verifies. Whether it did.
    fn try_commit(
        &mut self,
        group: GroupId,
        commit: &Commit,
        events: &mut Vec<Event>,
    ) -> Result<bool, GroupError> {
        let slot = self.load(group)?;
        let Some(frame) = slot.bodies.get(&(commit.epoch, commit.id)).cloned() else {
            slot.ordering.forget(commit);
            return Ok(false);
        };
        let suite = slot.suite;
        let at_tip = slot.ordering.tip().state == commit.parent;
        let base = match slot.live.take().filter(|_| at_tip) {
            Some(live) => live,
            None => Live::load(&self.store, &self.crypto, group, commit.parent)?,
        };
        match self.verify_commit(base, suite, &frame, commit) {
            Ok((live, effect)) => {
                let epoch = live.epoch();
                let facts = Facts::new(effect.by, effect.seat, effect.removed.iter().copied());
                // What the store refuses is tried again with the next frame.
                let Some((fallen, _)) = self.advance(group, live, commit, facts, false, None)?
                else {
                    self.metrics.commits_lost.inc();
                    return Ok(true);
                };
                self.metrics.commits_stand.inc();
                self.report(group, &fallen, events)?;
                let Effect { by, added, removed, self_removed, .. } = effect;
                events.push(Event::Epoch { epoch, by, added, removed, self_removed });
                Ok(true)
            }
            Err((base, Refusal::NotYet)) => {
                let slot = self.slot(group)?;
                slot.ordering.forget(commit);
                slot.deferred.insert(*commit);
                if slot.deferred.len() > MAX_DEFERRED
                    && let Some(first) = slot.deferred.pop_first()
                {
                    slot.bodies.remove(&(first.epoch, first.id));
                }
                if let Some(base) = base.filter(|_| at_tip) {
                    slot.live = Some(*base);
                }
                Ok(false)
            }
            Err((base, refusal)) => {
                match refusal {
                    Refusal::Invalid | Refusal::Own => self.metrics.commits_invalid.inc(),
                    Refusal::Credential => self.metrics.commits_credential.inc(),
                    Refusal::Policy => self.metrics.commits_policy.inc(),
                    Refusal::Rank => self.metrics.commits_rank.inc(),
                    Refusal::NotYet => {}
                }
                let slot = self.slot(group)?;
                slot.forgot |= matches!(refusal, Refusal::Own);
                slot.ordering.refused(commit);
                slot.bodies.remove(&(commit.epoch, commit.id));
                if let Some(base) = base.filter(|_| at_tip) {
                    slot.live = Some(*base);
                }
                Ok(false)
            }
        }
    }

    fn report(
        &mut self,
        group: GroupId,
        fallen: &Fallen,
        events: &mut Vec<Event>,
    ) -> Result<(), GroupError> {
        let Some(first) = fallen.fallen.first() else { return Ok(()) };
        self.metrics.epochs_reverted.add(fallen.fallen.len() as u64);
        let slot = self.slot(group)?;
        let lost = fallen.fallen.iter().filter_map(|link| link.by);
        let intents: Vec<Intent> = lost.filter_map(|by| slot.own.remove(&by)).collect();
        events.push(Event::Reverted { from_epoch: first.epoch, intents });
        Ok(())
    }

    fn verify_commit(
        &self,
        mut base: Live,
        suite: Suite,
        frame: &FrameIn,
        commit: &Commit,
    ) -> Result<(Live, Effect), Failed> {
        let storage = base.storage.fork();
        let provider = Provider { crypto: &self.crypto, storage: &storage };
        let staged = match self.stage(&mut base, &provider, suite, frame) {
            Ok(staged) => staged,
            Err(refusal) => return Err((Some(Box::new(base)), refusal)),
        };
        let (staged, facts) = staged;
        // Who is removed cannot follow into the next state, so that its own view of it is no proof.
        let reached = live::state_id(staged.group_context()).ok();
        if !facts.self_removed && reached != Some(commit.child) {
            return Err((Some(Box::new(base)), Refusal::Invalid));
        }
        let Live { mut group, .. } = base;
        let merged = group.merge_staged_commit(&provider, staged);
        let live = merged.ok().and_then(|()| Live::new(group, storage, &self.crypto).ok());
        live.map(|live| (Live { state: commit.child, ..live }, facts))
            .ok_or((None, Refusal::Invalid))
    }

    fn stage(
        &self,
        base: &mut Live,
        provider: &Provider<'_>,
        suite: Suite,
        frame: &FrameIn,
    ) -> Result<(StagedCommit, Effect), Refusal> {
        if !base.group.is_active() || frame.epoch != base.epoch() {
            return Err(Refusal::Invalid);
        }
        let joins = frame.kind == FrameKind::External;
        let message = if joins {
            parse(&frame.body)
        } else {
            seal::open(&base.handshake, &header(frame), &frame.body)
                .and_then(|message| parse(&message))
        };
        let Some(message @ ProtocolMessage::PublicMessage(_)) = message else {
            return Err(Refusal::Invalid);
        };
        let processed =
            base.group.process_message(provider, message).map_err(|error| match error {
                ProcessMessageError::InvalidCommit(StageCommitError::OwnCommitMismatch) => {
                    Refusal::Own
                }
                _ => Refusal::Invalid,
            })?;
        let sender = processed.sender().clone();
        let stamp = processed.aad().to_vec();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(Refusal::Invalid);
        };
        let (before, seat) = match (&sender, joins) {
            (Sender::Member(leaf), false) => (base.agent_at(*leaf), leaf.u32()),
            (Sender::NewMemberCommit, true) => (None, u32::MAX),
            _ => return Err(Refusal::Invalid),
        };
        let facts = Effect { seat, ..judge(base, suite, &staged, before, joins)? };
        let members: Vec<AgentId> = base.members().map(|(_, agent)| agent).collect();
        let asked = CommitFacts {
            group: frame.group,
            epoch: frame.epoch,
            by: facts.by,
            joins,
            members: &members,
            added: &facts.added,
            removed: &facts.removed,
            stamp: &stamp,
        };
        match self.policy.judge(&asked) {
            Verdict::Refuse => Err(Refusal::Policy),
            Verdict::NotYet => Err(Refusal::NotYet),
            Verdict::Allow if self.rank(&asked) != frame.rank => Err(Refusal::Rank),
            Verdict::Allow => Ok((*staged, facts)),
        }
    }

    /// The rank of a commit.
    pub(super) fn rank(&self, commit: &CommitFacts<'_>) -> u32 {
        if commit.joins {
            return RANK_LAST;
        }
        let class = if commit.removed.is_empty() { RANK_OTHER } else { 0 };
        class + u32::from(self.policy.seniority(commit))
    }

    /// Goes to the state that a commit leads to if it stands, in one transaction with `journal`.
    pub(super) fn advance(
        &mut self,
        group: GroupId,
        live: Live,
        commit: &Commit,
        facts: Facts,
        own_path: bool,
        journal: Option<&Pending>,
    ) -> Result<Option<(Fallen, Option<u64>)>, GroupError> {
        let slot = self.slots.get_mut(&group).ok_or(GroupError::Unknown)?;
        let mut ordering = slot.ordering.clone();
        let Some(fallen) = ordering.verified(commit, facts) else {
            slot.ordering = ordering;
            return Ok(None);
        };
        let mut older = slot.older.clone();
        let expired = older.keep_all(&self.store, fallen.expired.iter().copied())?;
        let gone = fallen.fallen.iter().map(|link| link.state).chain(expired);
        let mut batch: Vec<Change> = gone.map(|state| Change::Drop(Space::Epoch(state))).collect();
        batch.extend(live.storage.changes(Space::Epoch(live.state)));
        batch.push(put(member_key(super::GROUP_KEY, &group.0), slot.record(&ordering, &older)));
        let id = journal.map(|pending| self.journal.write(pending, &mut batch));
        self.write(group, batch)?;
        let slot = self.slot(group)?;
        let fresh = own_path || slot.fresh.contains(&commit.parent);
        (slot.ordering, slot.older) = (ordering, older);
        slot.fresh.retain(|state| slot.ordering.knows(state));
        if fresh {
            slot.fresh.insert(live.state);
        }
        let oldest = slot.ordering.links().next().map_or(0, |link| link.epoch);
        slot.bodies = slot.bodies.split_off(&(oldest, [0; 32]));
        slot.past = None;
        slot.live = Some(live);
        Ok(Some((fallen, id)))
    }
}

/// Verifies the credentials of all leaves that a commit brings, and says what it does.
fn judge(
    base: &Live,
    suite: Suite,
    staged: &StagedCommit,
    before: Option<AgentId>,
    joins: bool,
) -> Result<Effect, Refusal> {
    let endless = crate::leaf::endless();
    if staged.add_proposals().any(|q| *q.add_proposal().key_package().life_time() != endless) {
        return Err(Refusal::Invalid);
    }
    let only_what_we_do = staged.queued_proposals().all(|queued| {
        matches!(
            queued.proposal(),
            Proposal::Add(_) | Proposal::Remove(_) | Proposal::ExternalInit(_)
        )
    });
    if !only_what_we_do {
        return Err(Refusal::Invalid);
    }
    let check = |leaf: &openmls::prelude::LeafNode| {
        let key = leaf.signature_key().as_slice();
        let verified = credential::verify(leaf.credential(), suite, key, None);
        verified.map(|c| c.agent).map_err(|_| Refusal::Credential)
    };
    let path = staged.update_path_leaf_node().map(check).transpose()?;
    let by = match (before, path) {
        // A member does not become another agent.
        (Some(before), Some(path)) if before != path => return Err(Refusal::Credential),
        (Some(before), _) => before,
        (None, Some(path)) => path,
        (None, None) => return Err(Refusal::Invalid),
    };
    let removed: Vec<AgentId> = staged
        .remove_proposals()
        .filter_map(|queued| base.agent_at(queued.remove_proposal().removed()))
        .collect();
    let adds = staged.add_proposals();
    let mut added: Vec<AgentId> = adds
        .map(|queued| check(queued.add_proposal().key_package().leaf_node()))
        .collect::<Result<_, _>>()?;
    if joins {
        added.push(by);
        // Whoever joins by itself takes no other's place.
        if removed.iter().any(|agent| *agent != by) {
            return Err(Refusal::Invalid);
        }
    }
    let stays = |agent: &AgentId| base.leaf_of(*agent).is_some() && !removed.contains(agent);
    let twice = added.iter().enumerate().any(|(n, agent)| added[..n].contains(agent));
    if twice || added.iter().any(stays) {
        return Err(Refusal::Credential);
    }
    let self_removed = staged.self_removed();
    Ok(Effect { seat: u32::MAX, by, added, removed, self_removed })
}
