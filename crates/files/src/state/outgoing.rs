//! Sending: the offer, and who is served next.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
};

use x0x_core::{MachineId, Tick};
use x0x_trust::Action;

use super::{
    FilesMachine, Output, Prepared,
    peers::Claim,
    status_of,
    transfer::{Side, Transfer},
    unknown,
};
use crate::{
    config::{JOB_GROUPS, JOBS_PER_PEER, MAX_LIVE, MAX_OUTGOING, MAX_WANTED},
    error::{SendFileError, WorkError},
    id::TransferId,
    record::{Direction, FileEvent, Phase, Record},
    tree::groups,
    wire::{FrameIn, OfferIn, Standing, Status, Want},
};

impl FilesMachine {
    pub(super) fn on_send(&mut self, ticket: u64, record: Record) {
        let id = record.id;
        let sending =
            self.live.values().filter(|t| t.record.direction == Direction::Sending).count();
        let decision = self.policy.decide(&record.peer, None, Action::DirectSend);
        let result = if record.peer == record.local {
            Err(SendFileError::Own)
        } else if !decision.allowed() {
            Err(SendFileError::Forbidden(decision.reason))
        } else if sending >= MAX_OUTGOING {
            Err(SendFileError::Limit(MAX_OUTGOING))
        } else if self.live.len() >= MAX_LIVE {
            Err(SendFileError::Limit(MAX_LIVE))
        } else {
            self.outputs.push_back(Output::Save(Box::new(record.clone())));
            self.outputs.push_back(Output::Prepare(Box::new(record.clone())));
            self.live.insert(id, Transfer::new(record));
            self.gauge();
            Ok(id)
        };
        self.outputs.push_back(Output::Offered { ticket, result });
    }

    pub(super) fn on_prepared(
        &mut self,
        now: Tick,
        id: TransferId,
        result: Result<Prepared, WorkError>,
    ) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        if transfer.record.phase != Phase::Preparing {
            return;
        }
        let prepared = match result {
            Ok(prepared) => prepared,
            Err(error) => {
                self.end(id, Phase::Failed, Some(error.to_string()), false);
                return;
            }
        };
        let record = &mut transfer.record;
        if record.sha256.is_some_and(|stated| stated != prepared.sha256) {
            self.end(id, Phase::Failed, Some(WorkError::BadSha256.to_string()), false);
            return;
        }
        record.size = prepared.size;
        record.root = Some(prepared.root);
        record.sha256 = Some(prepared.sha256);
        record.modified = prepared.modified;
        record.phase = Phase::Offered;
        let agent = record.peer;
        self.save(id);
        if !self.offer_around(id) {
            self.outputs.push_back(Output::Seek(agent));
        }
        self.show(id);
        self.schedule(now, id);
    }

    /// Offers a file to the machine that has accepted it, or to all of the agent; false when none is there.
    pub(super) fn offer_around(&mut self, id: TransferId) -> bool {
        let Some(record) = self.live.get(&id).map(|transfer| &transfer.record) else {
            return false;
        };
        let here = |peer: &MachineId| self.owns(*peer, record) && !self.is_elsewhere(*peer, record);
        let peers: Vec<_> = self.sessions.keys().copied().filter(here).collect();
        peers.iter().for_each(|peer| self.offer(id, *peer));
        !peers.is_empty()
    }

    /// Offers a file, once it is prepared.
    pub(super) fn offer(&mut self, id: TransferId, peer: MachineId) {
        let Some(transfer) = self.live.get(&id) else { return };
        let record = &transfer.record;
        let prepared = record.root.filter(|_| record.phase != Phase::Preparing);
        let Some(root) = prepared else { return };
        let offer = OfferIn {
            id,
            from: record.local,
            to: record.peer,
            name: record.name.clone(),
            size: record.size,
            root,
            sha256: record.sha256,
            media_type: record.media_type.clone(),
        };
        let paused = (record.phase == Phase::Paused).then(|| status_of(record, transfer.verified));
        self.transmit(peer, FrameIn::Offer(offer));
        if let Some(status) = paused {
            self.send_status(peer, status);
        }
    }

    pub(super) fn on_want(&mut self, now: Tick, peer: MachineId, want: Want) {
        let id = want.id;
        let known = match self.claim(peer, &id) {
            Claim::Denied => {
                self.metrics.refused_trust.inc();
                self.end_denied(id);
                return;
            }
            claim => claim == Claim::Own,
        };
        if known && self.history.contains_key(&id) {
            return self.answer_ended(peer, &id);
        }
        let record = self.live.get(&id).map(|transfer| &transfer.record).filter(|record| {
            known && record.direction == Direction::Sending && record.root.is_some()
        });
        let Some(record) = record else {
            self.metrics.refused_stranger.inc();
            return self.send_status(peer, unknown(id));
        };
        if self.is_elsewhere(peer, record) {
            self.metrics.refused_machine.inc();
            return self.answer_elsewhere(peer, id);
        }
        if record.phase == Phase::Paused {
            let status = status_of(record, 0);
            return self.send_status(peer, status);
        }
        self.accepted(now, peer, id, want.verified);
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.stalled = false;
        }
        self.serve_due = true;
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let end = groups(transfer.record.size);
        let Some(outgoing) = transfer.outgoing() else { return };
        if outgoing.via != Some(peer) {
            outgoing.wanted.clear();
            outgoing.via = Some(peer);
        }
        outgoing.peer_paused = false;
        let mut refused = false;
        for (first, count) in want.ranges {
            let room = MAX_WANTED.saturating_sub(outgoing.wanted.len());
            refused |= first + count > end || count > room;
            let wanted = first..(first + count.min(room)).min(end);
            outgoing.wanted.insert(wanted);
        }
        if refused {
            self.metrics.refused_wants.inc();
        }
        self.show_progress(now, id);
    }

    /// The recipient has accepted on some machine, if that was not known, and has this much.
    fn accepted(&mut self, now: Tick, peer: MachineId, id: TransferId, verified: u64) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        transfer.verified = verified.min(transfer.record.size);
        let moved = transfer.record.machine.replace(peer) != Some(peer);
        let first = transfer.record.phase == Phase::Offered;
        if first {
            transfer.record.phase = Phase::Active;
        }
        if first || moved {
            self.save(id);
            self.show(id);
            self.schedule(now, id);
        }
    }

    pub(super) fn heard_of_outgoing(&mut self, now: Tick, peer: MachineId, status: Status) {
        let id = status.id;
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let prepared = transfer.record.root.is_some();
        let paused_here = transfer.record.phase == Phase::Paused;
        let is_over =
            matches!(status.standing, Standing::Rejected | Standing::Cancelled | Standing::Failed);
        if is_over && transfer.record.machine.is_some_and(|machine| machine != peer) {
            // It was over for that machine when another one took the file, which is only away for now.
            return self.metrics.refused_machine.inc();
        }
        let reason = (!status.reason.is_empty()).then_some(status.reason);
        match status.standing {
            Standing::Active | Standing::Paused if prepared => {
                let paused = status.standing == Standing::Paused;
                let verified = status.verified.min(transfer.record.size);
                let mut news = transfer.verified != verified;
                if let Some(outgoing) = transfer.outgoing() {
                    news |= std::mem::replace(&mut outgoing.peer_paused, paused) != paused;
                    if paused {
                        outgoing.wanted.clear();
                    }
                }
                if paused_here {
                    transfer.verified = verified;
                } else {
                    self.accepted(now, peer, id, verified);
                }
                if news {
                    self.show_progress(now, id);
                }
            }
            Standing::Complete if prepared => {
                self.metrics.sent.inc();
                self.end(id, Phase::Complete, None, false);
            }
            Standing::Rejected => {
                self.end(id, Phase::Rejected, reason, false);
            }
            Standing::Cancelled => {
                self.end(id, Phase::Cancelled, reason, false);
            }
            Standing::Failed => {
                self.end(id, Phase::Failed, reason, false);
            }
            _ => {}
        }
    }

    /// A job is done, or not, for a session that may be over.
    pub(super) fn on_served(
        &mut self,
        now: Tick,
        (peer, number): (MachineId, u64),
        id: TransferId,
        left: Range<u64>,
        result: Result<(), WorkError>,
    ) {
        self.serve_due = true;
        let session = self.sessions.get_mut(&peer).filter(|session| session.number == number);
        let in_session = session.is_some();
        if let Some(session) = session {
            session.jobs = session.jobs.saturating_sub(1);
            session.stalled |= result == Err(WorkError::Stalled);
        }
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let active = transfer.record.phase == Phase::Active;
        let Some(outgoing) = transfer.outgoing() else { return };
        // What did not go is still wanted, unless that end asks again anyhow.
        if active && in_session && outgoing.via == Some(peer) && !outgoing.peer_paused {
            outgoing.wanted.insert(left);
        }
        match result {
            Ok(()) => {
                transfer.tries = 0;
                transfer.record.reason = None;
            }
            Err(WorkError::Stalled) => self.metrics.peer_stalled.inc(),
            Err(WorkError::Disconnected) => {}
            Err(
                error @ (WorkError::SourceChanged
                | WorkError::SourceGone(_)
                | WorkError::SourceProtected(_)),
            ) => {
                self.end(id, Phase::Failed, Some(error.to_string()), true);
            }
            Err(error) => {
                let again = std::mem::replace(&mut outgoing.held, true);
                transfer.record.reason = Some(error.to_string());
                self.metrics.disk_failed.inc();
                if !again {
                    self.show(id);
                }
                self.schedule(now, id);
            }
        }
    }

    pub(super) fn on_writable(&mut self, peer: MachineId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.stalled = false;
            self.serve_due = true;
        }
    }

    /// Gives out jobs to every machine that wants something, of its transfers in turn. What is read for one
    /// that is slow does not hinder another.
    pub(super) fn serve(&mut self) {
        let mut wanted: BTreeMap<MachineId, BTreeSet<TransferId>> = BTreeMap::new();
        for (id, transfer) in &self.live {
            if let Side::Out(outgoing) = &transfer.side
                && transfer.record.phase == Phase::Active
                && !outgoing.held
                && !outgoing.wanted.is_empty()
                && let Some(peer) = outgoing.via
            {
                wanted.entry(peer).or_default().insert(*id);
            }
        }
        for (peer, ids) in wanted {
            self.serve_peer(peer, ids);
        }
    }

    fn serve_peer(&mut self, peer: MachineId, mut ids: BTreeSet<TransferId>) {
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| !session.stalled) else {
            return;
        };
        while session.jobs < JOBS_PER_PEER {
            let after = session.turn.map_or(Bound::Unbounded, Bound::Excluded);
            let next = ids.range((after, Bound::Unbounded)).next().or_else(|| ids.first());
            let Some(id) = next.copied() else { return };
            let transfer = self.live.get_mut(&id);
            let job = transfer.and_then(|transfer| {
                let record = Box::new(transfer.record.clone());
                let groups = transfer.outgoing()?.wanted.take_first(JOB_GROUPS)?;
                Some((record, groups))
            });
            let Some((record, groups)) = job else {
                ids.remove(&id);
                continue;
            };
            session.turn = Some(id);
            session.jobs += 1;
            let session = session.number;
            self.outputs.push_back(Output::Serve { peer, session, record, groups });
        }
    }
}

impl FilesMachine {
    /// Shows an offer that came in.
    pub(super) fn show_offer(&mut self, id: TransferId) {
        if let Some(info) = self.info(&id) {
            self.outputs.push_back(Output::Event(Box::new(FileEvent::Offered(info))));
        }
    }
}
