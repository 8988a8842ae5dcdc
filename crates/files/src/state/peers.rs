//! Who is at the other end: which machine a transfer belongs to, and what trust allows with it.

use x0x_core::{AgentId, MachineId};
use x0x_trust::Action;

use super::{
    FilesMachine, status_of,
    transfer::{Side, Transfer},
    verified_of,
};
use crate::{
    id::TransferId,
    record::{Direction, Phase, Record},
    wire::{Standing, Status},
};

/// What a machine that speaks of a transfer has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// One of its agents is at the other end, and may be.
    Own,
    /// It is not known, or another agent's: it is told that the transfer is unknown.
    Stranger,
    /// Nothing is answered: trust denies the agent on this machine.
    Denied,
}

/// What is asked of trust about the other end of a transfer.
const fn action(direction: Direction) -> Action {
    match direction {
        Direction::Sending => Action::DirectSend,
        Direction::Receiving => Action::FileOffer,
    }
}

impl FilesMachine {
    /// Whether a machine has proven the agent of a transfer.
    fn proves(&self, peer: MachineId, record: &Record) -> bool {
        self.sessions.get(&peer).is_some_and(|session| session.agents.contains(&record.peer))
    }

    /// Whether a transfer is one of the agents of this session, and trust allows that agent there.
    pub(super) fn owns(&self, peer: MachineId, record: &Record) -> bool {
        self.proves(peer, record)
            && self.policy.decide(&record.peer, Some(&peer), action(record.direction)).allowed()
    }

    /// How a machine stands to a transfer, known or not.
    pub(super) fn claim(&self, peer: MachineId, id: &TransferId) -> Claim {
        let live = self.live.get(id).map(|transfer| &transfer.record);
        let record = live.or_else(|| self.history.get(id));
        if let Some(record) = record.filter(|record| self.proves(peer, record)) {
            return if self.owns(peer, record) { Claim::Own } else { Claim::Denied };
        }
        Claim::Stranger
    }

    /// Where the other end of a transfer is met: on the machine that it belongs to. An outgoing one whose
    /// machine is away may go on with any other of the agent.
    pub(super) fn route(&self, record: &Record) -> Option<MachineId> {
        let bound = record.machine.filter(|machine| self.owns(*machine, record));
        match (record.direction, record.machine) {
            (Direction::Receiving, Some(_)) => bound,
            _ => bound
                .or_else(|| self.sessions.keys().copied().find(|peer| self.owns(*peer, record))),
        }
    }

    /// Whether a transfer is carried on with another machine of the agent than this one.
    pub(super) fn is_elsewhere(&self, peer: MachineId, record: &Record) -> bool {
        let other = record.machine.filter(|machine| *machine != peer);
        other.is_some_and(|other| {
            record.direction == Direction::Receiving || self.owns(other, record)
        })
    }

    /// Tells the other end of a transfer how it stands here; false when it cannot be told now. An offer that
    /// nobody has accepted went to every machine of the agent.
    pub(super) fn tell(&mut self, record: &Record, verified: u64) -> bool {
        let everywhere = record.direction == Direction::Sending && record.machine.is_none();
        let peers: Vec<_> = if everywhere {
            self.sessions.keys().copied().filter(|peer| self.owns(*peer, record)).collect()
        } else {
            self.route(record).into_iter().collect()
        };
        for peer in &peers {
            self.send_status(*peer, status_of(record, verified));
        }
        !peers.is_empty()
    }

    /// Answers a question about a transfer that ended; nothing when it is not known.
    pub(super) fn answer_ended(&mut self, peer: MachineId, id: &TransferId) {
        if let Some(record) = self.history.get(id) {
            let status = status_of(record, verified_of(record));
            self.send_status(peer, status);
        }
    }

    /// Tells a machine that another one of its agent has accepted the file.
    pub(super) fn answer_elsewhere(&mut self, peer: MachineId, id: TransferId) {
        let reason = "another machine of the agent takes the file".to_owned();
        self.send_status(peer, Status { id, standing: Standing::Cancelled, verified: 0, reason });
    }

    /// Ends the transfers of an agent, or of any, that trust does not allow any more, and stops those that
    /// it does not allow where they are.
    pub(super) fn reconsider(&mut self, agent: Option<AgentId>) {
        let concerned = |record: &Record| agent.is_none_or(|agent| agent == record.peer);
        let records = self.live.values().map(|transfer| &transfer.record);
        let concerned: Vec<_> =
            records.filter(|record| concerned(record)).map(|record| record.id).collect();
        for id in concerned {
            if self.end_denied(id) {
                continue;
            }
            let Some(transfer) = self.live.get(&id) else { continue };
            let denied = match &transfer.side {
                Side::Out(outgoing) => {
                    outgoing.via.is_some_and(|via| !self.owns(via, &transfer.record))
                }
                Side::In(_) => false,
            };
            if let Some(outgoing) = self.live.get_mut(&id).and_then(Transfer::outgoing)
                && denied
            {
                outgoing.wanted.clear();
                outgoing.via = None;
            }
        }
        self.turn_due = true;
    }

    /// Ends a transfer with an agent that is denied wherever it is; true when it did. One that is denied
    /// on some machine only may go on with another.
    pub(super) fn end_denied(&mut self, id: TransferId) -> bool {
        let Some(transfer) = self.live.get(&id).filter(|transfer| !transfer.is_finishing()) else {
            return false;
        };
        let record = &transfer.record;
        let decision = self.policy.decide(&record.peer, None, action(record.direction));
        if decision.allowed() {
            return false;
        }
        self.metrics.refused_trust.inc();
        self.end(id, Phase::Failed, Some(format!("the agent is {}", decision.reason)), true);
        true
    }
}
