//! Sending: the offer, and who is served next.

use std::ops::Bound;

use x0x_core::{MachineId, Tick};
use x0x_trust::Action;

use super::{FilesMachine, Output, Prepared, status_of, transfer::Transfer, unknown};
use crate::{
    config::{JOB_GROUPS, JOBS_PER_PEER, MAX_JOBS, MAX_LIVE, MAX_OUTGOING, MAX_WANTED},
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
        if !self.offer(id) {
            self.outputs.push_back(Output::Seek(agent));
        }
        self.show(id);
        self.schedule(now, id);
    }

    /// Offers a file to whoever is there; false when nobody is.
    pub(super) fn offer(&mut self, id: TransferId) -> bool {
        let Some(transfer) = self.live.get(&id) else { return false };
        let record = &transfer.record;
        let offered = !matches!(record.phase, Phase::Preparing);
        let (Some(peer), Some(root)) = (self.route(&record.peer).filter(|_| offered), record.root)
        else {
            return false;
        };
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
        true
    }

    pub(super) fn on_want(&mut self, now: Tick, peer: MachineId, want: Want) {
        let id = want.id;
        let record = self.live.get(&id).map(|transfer| &transfer.record);
        let record = record.filter(|record| {
            record.direction == Direction::Sending
                && self.owns(peer, record)
                && record.root.is_some()
        });
        let Some(record) = record else {
            let ended = self.history.get(&id).filter(|record| self.owns(peer, record));
            let answer = ended.map_or_else(|| unknown(id), |record| status_of(record, 0));
            self.metrics.refused_stranger.inc();
            self.send_status(peer, answer);
            return;
        };
        if record.phase == Phase::Paused {
            let status = status_of(record, 0);
            self.send_status(peer, status);
            return;
        }
        if !self.policy.decide(&record.peer, Some(&peer), Action::DirectSend).allowed() {
            self.metrics.refused_trust.inc();
            return;
        }
        self.accepted(now, id, want.verified);
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

    /// The recipient has accepted, if that was not known, and has this much.
    fn accepted(&mut self, now: Tick, id: TransferId, verified: u64) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        transfer.verified = verified.min(transfer.record.size);
        if transfer.record.phase == Phase::Offered {
            transfer.record.phase = Phase::Active;
            self.save(id);
            self.show(id);
            self.schedule(now, id);
        }
    }

    pub(super) fn heard_of_outgoing(&mut self, now: Tick, status: Status) {
        let id = status.id;
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let prepared = transfer.record.root.is_some();
        let paused_here = transfer.record.phase == Phase::Paused;
        let reason = (!status.reason.is_empty()).then_some(status.reason);
        match status.standing {
            Standing::Active | Standing::Paused if prepared => {
                if let Some(outgoing) = transfer.outgoing() {
                    outgoing.peer_paused = status.standing == Standing::Paused;
                    if outgoing.peer_paused {
                        outgoing.wanted.clear();
                    }
                }
                if paused_here {
                    transfer.verified = status.verified.min(transfer.record.size);
                } else {
                    self.accepted(now, id, status.verified);
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

    pub(super) fn on_served(
        &mut self,
        peer: MachineId,
        number: u64,
        id: TransferId,
        result: Result<u64, WorkError>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        if let Some(session) = self.sessions.get_mut(&peer)
            && session.number == number
        {
            session.jobs = session.jobs.saturating_sub(1);
        }
        match result {
            Ok(bytes) => self.metrics.bytes_sent.add(bytes),
            // What did not go is asked for again.
            Err(WorkError::Disconnected) => {}
            Err(error) => {
                self.end(id, Phase::Failed, Some(error.to_string()), true);
            }
        }
    }

    /// Gives work to the jobs that are free: to the machines in turn, and to each machine's transfers
    /// in turn.
    pub(super) fn serve(&mut self) {
        while self.jobs < MAX_JOBS
            && let Some(peer) = self.next_peer()
        {
            self.turn = Some(peer);
            let Some(id) = self.next_transfer(peer) else { return };
            let Some(transfer) = self.live.get_mut(&id) else { return };
            let record = Box::new(transfer.record.clone());
            let wanted = transfer.outgoing().and_then(|out| out.wanted.take_first(JOB_GROUPS));
            let (Some(groups), Some(session)) = (wanted, self.sessions.get_mut(&peer)) else {
                return;
            };
            session.turn = Some(id);
            session.jobs += 1;
            self.jobs += 1;
            let session = session.number;
            self.outputs.push_back(Output::Serve { peer, session, record, groups });
        }
    }

    /// The machine after the one served last that can be served.
    fn next_peer(&self) -> Option<MachineId> {
        let ready = |peer: &&MachineId| {
            self.sessions.get(*peer).is_some_and(|session| session.jobs < JOBS_PER_PEER)
                && self.next_transfer(**peer).is_some()
        };
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.sessions.range((after, Bound::Unbounded));
        let all = rest.chain(self.sessions.iter());
        all.map(|(peer, _)| peer).find(ready).copied()
    }

    /// The transfer after the one served last of which the machine wants something.
    fn next_transfer(&self, peer: MachineId) -> Option<TransferId> {
        let ready = |transfer: &Transfer| {
            let super::Side::Out(outgoing) = &transfer.side else { return false };
            transfer.record.phase == Phase::Active
                && outgoing.via == Some(peer)
                && !outgoing.wanted.is_empty()
        };
        let turn = self.sessions.get(&peer)?.turn;
        let after = turn.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.live.range((after, Bound::Unbounded));
        let all = rest.chain(self.live.iter());
        all.filter(|(_, transfer)| ready(transfer)).map(|(id, _)| *id).next()
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
