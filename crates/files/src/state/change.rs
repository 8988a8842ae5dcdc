//! What the user changes: accept, reject, cancel, pause, resume.

use x0x_core::Tick;

use super::{
    Change, Changed, FilesMachine, Output,
    transfer::{Incoming, Side, Stage, Transfer},
};
use crate::{
    error::ChangeTransferError,
    id::TransferId,
    record::{Direction, Phase},
};

impl FilesMachine {
    pub(super) fn change(&mut self, now: Tick, ticket: u64, id: TransferId, change: Change) {
        let result = match (self.live.get(&id), self.history.get(&id)) {
            (None, None) => Err(ChangeTransferError::NotFound),
            (None, Some(record)) => Err(ChangeTransferError::NotPossible(record.phase)),
            (Some(transfer), _) => {
                let (phase, direction) = (transfer.record.phase, transfer.record.direction);
                match change {
                    Change::Accept { folder } => {
                        match self.accept(id, phase, direction, Some(ticket), folder) {
                            // The answer comes after a look at the disk.
                            Ok(()) => return,
                            Err(error) => Err(error),
                        }
                    }
                    Change::Reject { reason } if phase == Phase::Offered => {
                        Ok(self.end(id, Phase::Rejected, Some(reason), true))
                    }
                    Change::Cancel if self.is_finishing(&id) => {
                        match self.cancel_finishing(id, ticket) {
                            // The answer comes when it is known which came first.
                            Ok(()) => return,
                            Err(error) => Err(error),
                        }
                    }
                    Change::Cancel => {
                        Ok(self.end(id, Phase::Cancelled, Some("cancelled here".into()), true))
                    }
                    Change::Pause => self.pause(id, phase, direction),
                    Change::Resume if phase == Phase::Paused => Ok(self.resume(now, id, direction)),
                    _ => Err(ChangeTransferError::NotPossible(phase)),
                }
            }
        };
        let result = result.map(|told| Changed { told });
        self.outputs.push_back(Output::Changed { ticket, result });
    }

    fn is_finishing(&self, id: &TransferId) -> bool {
        self.live.get(id).is_some_and(Transfer::is_finishing)
    }

    /// The file is getting its name: either that is stopped, or the file is there.
    fn cancel_finishing(&mut self, id: TransferId, ticket: u64) -> Result<(), ChangeTransferError> {
        let incoming = self.live.get_mut(&id).and_then(Transfer::incoming);
        let Some(incoming) = incoming.filter(|incoming| incoming.cancelling.is_none()) else {
            return Err(ChangeTransferError::NotPossible(Phase::Active));
        };
        incoming.cancelling = Some(ticket);
        self.outputs.push_back(Output::Close(id));
        Ok(())
    }

    fn pause(
        &mut self,
        id: TransferId,
        phase: Phase,
        direction: Direction,
    ) -> Result<bool, ChangeTransferError> {
        let possible = match direction {
            Direction::Sending => matches!(phase, Phase::Offered | Phase::Active),
            Direction::Receiving => phase == Phase::Active,
        };
        let Some(transfer) = self.live.get_mut(&id).filter(|_| possible) else {
            return Err(ChangeTransferError::NotPossible(phase));
        };
        match &mut transfer.side {
            // It is whole: what is left takes no time.
            Side::In(Incoming { stage: Stage::Finishing, .. }) => {
                return Err(ChangeTransferError::NotPossible(phase));
            }
            Side::In(incoming) => {
                if incoming.stage != Stage::Shut {
                    self.outputs.push_back(Output::Close(id));
                }
                incoming.shut();
                incoming.held = None;
                self.turn_due = true;
            }
            Side::Out(outgoing) => {
                outgoing.wanted.clear();
                outgoing.held = false;
            }
        }
        transfer.record.phase = Phase::Paused;
        transfer.due = None;
        let (record, verified) = (transfer.record.clone(), transfer.verified);
        self.save(id);
        self.show(id);
        Ok(self.tell(&record, verified))
    }

    fn resume(&mut self, now: Tick, id: TransferId, direction: Direction) -> bool {
        let Some(transfer) = self.live.get_mut(&id) else { return false };
        transfer.tries = 0;
        // Whether the recipient has accepted, it says in answer to the offer.
        transfer.record.phase = match direction {
            Direction::Sending => Phase::Offered,
            Direction::Receiving => Phase::Active,
        };
        let (record, verified) = (transfer.record.clone(), transfer.verified);
        self.save(id);
        self.queue(id);
        self.show(id);
        self.schedule(now, id);
        match direction {
            Direction::Sending => self.offer_around(id),
            Direction::Receiving => self.tell(&record, verified),
        }
    }
}
