//! Which holders have copies of what, and until when.

use std::collections::BTreeMap;

use x0x_core::{MachineId, Tick};

use super::{Deposit, Depositor, DepositorOutput, HeldOut, lane::SOON};
use crate::wire::MessageId;

impl Depositor {
    pub(super) fn note(&mut self, deposit: Deposit) -> &mut HeldOut {
        let Deposit { id, to, holder, until, .. } = deposit;
        let fresh = HeldOut { to, after: None, copies: BTreeMap::new() };
        let held = self.held_out.entry(id).or_insert(fresh);
        if let Some(before) = held.copies.insert(holder, deposit) {
            self.lapses.remove(&(before.until, id, holder));
        }
        self.lapses.insert((until, id, holder));
        held
    }

    /// A holder keeps a copy no longer. If its message waits still, it is left anew.
    pub(super) fn lapsed(&mut self, now: Tick, id: MessageId, holder: MachineId) {
        let Some(held) = self.held_out.get_mut(&id) else { return };
        let to = held.to;
        held.copies.remove(&holder);
        if held.copies.is_empty() {
            self.held_out.remove(&id);
        }
        self.metrics.copies_lapsed.inc();
        self.outputs.push_back(DepositorOutput::Lapsed { id, holder });
        self.unreachable(now, to);
        self.hurry(to, now + SOON);
    }

    /// A message will never come: the letter that names it is left anew, without that.
    pub(super) fn skipped(&mut self, now: Tick, id: &MessageId) {
        let behind = self.held_out.iter().find(|(_, held)| held.after == Some(*id));
        let Some((behind, to)) = behind.map(|(behind, held)| (*behind, held.to)) else { return };
        self.settled(&behind);
        self.hurry(to, now + SOON);
    }

    /// Copies of a message are of no use any more.
    pub(super) fn settled(&mut self, id: &MessageId) {
        let Some(HeldOut { copies, .. }) = self.held_out.remove(id) else { return };
        self.outputs.push_back(DepositorOutput::Forget(*id));
        for (peer, Deposit { digest, pickup, until, .. }) in copies {
            self.lapses.remove(&(until, *id, peer));
            if self.peers.contains_key(&peer) {
                self.outputs.push_back(DepositorOutput::Withdraw { peer, pickup, digest });
            }
        }
    }
}
