//! Whose turn it is: which accepted files are open, which give their place away, and what rules accept.

use std::collections::BTreeMap;

use x0x_core::{AgentId, Tick};
use x0x_trust::Action;

use super::{
    FilesMachine, Output,
    transfer::{Held, Incoming, Side, Stage, Transfer},
};
use crate::{
    config::{MAX_ACCEPTED_BY_RULE, MAX_RECEIVING, MAX_RULES},
    error::WorkError,
    id::TransferId,
    record::{Direction, Phase},
};

impl FilesMachine {
    /// Puts a transfer behind all that wait to be opened.
    pub(super) fn queue(&mut self, id: TransferId) {
        self.next_turn += 1;
        let turn = self.next_turn;
        if let Some(incoming) = self.live.get_mut(&id).and_then(Transfer::incoming) {
            incoming.turn = turn;
        }
        self.turn_due = true;
    }

    /// Whether the other end is there and sends.
    fn can_move(&self, transfer: &Transfer) -> bool {
        matches!(&transfer.side, Side::In(incoming) if !incoming.peer_paused)
            && self.route(&transfer.record).is_some()
    }

    /// Whether a transfer has a place that it makes no use of.
    fn is_idle(&self, transfer: &Transfer) -> bool {
        let Side::In(incoming) = &transfer.side else { return false };
        incoming.stage == Stage::Open
            && incoming.writing.is_empty()
            && (incoming.held.is_some() || transfer.tries > 0 || !self.can_move(transfer))
    }

    /// Opens the accepted files that wait for their turn, as far as there are places: first those that can
    /// move, for which others that do not give their places away.
    pub(super) fn open_waiting(&mut self) {
        let waits = |transfer: &&Transfer| {
            transfer.record.phase == Phase::Active
                && matches!(
                    &transfer.side,
                    Side::In(Incoming { stage: Stage::Shut, held: None, .. })
                )
        };
        let place = |transfer: &Transfer| match &transfer.side {
            Side::In(incoming) => (!self.can_move(transfer), incoming.turn, transfer.record.id),
            Side::Out(_) => (true, u64::MAX, transfer.record.id),
        };
        let mut waiting: Vec<_> = self.live.values().filter(waits).map(place).collect();
        if waiting.is_empty() {
            return;
        }
        waiting.sort_unstable();
        let receiving = self.live.values().filter(|transfer| transfer.is_receiving()).count();
        let mut free = MAX_RECEIVING.saturating_sub(receiving);
        let ready = waiting.iter().filter(|(stuck, ..)| !stuck).count();
        if ready > free {
            let idle = self.live.values().filter(|transfer| self.is_idle(transfer));
            let idle: Vec<_> = idle.map(|t| t.record.id).take(ready - free).collect();
            free += idle.len();
            idle.into_iter().for_each(|id| self.give_way(id));
        }
        for (_, _, id) in waiting.into_iter().take(free) {
            self.open(id);
        }
    }

    fn give_way(&mut self, id: TransferId) {
        self.metrics.gave_way.inc();
        self.outputs.push_back(Output::Close(id));
        if let Some(transfer) = self.live.get_mut(&id) {
            transfer.tries = 0;
            transfer.due = None;
            if let Some(incoming) = transfer.incoming() {
                incoming.shut();
            }
        }
        self.queue(id);
        self.show(id);
    }

    fn open(&mut self, id: TransferId) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let record = Box::new(transfer.record.clone());
        if let Some(incoming) = transfer.incoming() {
            incoming.stage = Stage::Opening;
            self.outputs.push_back(Output::Open(record));
        }
    }

    /// Accepts what rules accept, up to a number for each agent; the rest when there are fewer of it.
    pub(super) fn accept_by_rules(&mut self) {
        if self.config.accept.is_empty() {
            return;
        }
        let mut accepted: BTreeMap<AgentId, usize> = BTreeMap::new();
        let mut offered = Vec::new();
        for transfer in self.live.values() {
            let Side::In(incoming) = &transfer.side else { continue };
            let record = &transfer.record;
            if record.phase != Phase::Offered || incoming.accepting.is_some() {
                *accepted.entry(record.peer).or_default() += 1;
            } else if !incoming.waits_for_disk {
                offered.push((record.started, record.id, record.peer, record.machine, record.size));
            }
        }
        offered.sort_unstable();
        for (_, id, agent, machine, size) in offered {
            let decision = self.policy.decide(&agent, machine.as_ref(), Action::FileOffer);
            let mut rules = self.config.accept.iter().take(MAX_RULES);
            let rule = rules.find(|rule| decision.allowed() && rule.holds(decision.reason, size));
            let Some(folder) = rule.map(|rule| rule.folder.clone()) else { continue };
            let of_agent = accepted.entry(agent).or_default();
            if *of_agent >= MAX_ACCEPTED_BY_RULE {
                continue;
            }
            *of_agent += 1;
            // An offer that nobody has answered can be accepted.
            let _ = self.accept(id, Phase::Offered, Direction::Receiving, None, folder);
        }
    }

    /// The disk failed: the file is opened anew after a pause, and what it has is kept.
    pub(super) fn disk_failed(&mut self, now: Tick, id: TransferId, error: &WorkError) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let Side::In(incoming) = &mut transfer.side else { return };
        if incoming.stage != Stage::Shut {
            self.outputs.push_back(Output::Close(id));
        }
        incoming.shut();
        let again = incoming.held.replace(Held::Disk) == Some(Held::Disk);
        transfer.record.reason = Some(error.to_string());
        self.metrics.disk_failed.inc();
        if !again {
            self.show(id);
        }
        self.queue(id);
        self.schedule(now, id);
    }
}
