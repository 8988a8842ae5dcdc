//! When something is to be done about a transfer, and what.

use std::time::Duration;

use x0x_core::Tick;

use super::{
    FilesMachine, MAX_DOUBLINGS, Output,
    transfer::{Held, Incoming, Outgoing, Side},
};
use crate::{config::FilesConfig, id::TransferId, record::Phase};

impl FilesMachine {
    /// When something is to be done about a transfer next, as it stands now.
    pub(super) fn schedule(&mut self, now: Tick, id: TransferId) {
        let Some(transfer) = self.live.get(&id) else { return };
        let config = &self.config;
        let routed = self.route(&transfer.record).is_some();
        let again = |first: Duration| first * (1 << transfer.tries.min(MAX_DOUBLINGS));
        let idle = || match transfer.moved {
            _ if !transfer.needs_peer() || transfer.record.phase != Phase::Active => None,
            Some((_, at)) => Some(config.idle_ttl.saturating_sub(now.since(at))),
            None => Some(config.idle_ttl),
        };
        let pause = match &transfer.side {
            Side::In(Incoming { held: Some(Held::Space), .. }) => Some(config.space_interval),
            Side::In(Incoming { held: Some(Held::Disk), .. })
            | Side::Out(Outgoing { held: true, .. }) => Some(again(config.space_interval)),
            Side::In(_) if transfer.record.phase == Phase::Offered => {
                let age = self.wall.as_millis().saturating_sub(transfer.record.started.as_millis());
                let left = config.offer_ttl.saturating_sub(Duration::from_millis(age));
                let waits = transfer.waits_for_disk().then(|| again(config.space_interval));
                Some(waits.map_or(left, |pause| pause.min(left)))
            }
            _ if !transfer.needs_peer() => None,
            _ if !routed => Some(seek(config, transfer.tries)),
            Side::In(incoming) if !incoming.asked.is_empty() => Some(again(config.stall_after)),
            _ => None,
        };
        let pause = pause.into_iter().chain(idle()).min();
        if let Some(transfer) = self.live.get_mut(&id) {
            transfer.moved.get_or_insert((transfer.verified, now));
            transfer.due = pause.map(|pause| now + pause);
        }
    }

    pub(super) fn due(&mut self, now: Tick, id: TransferId) {
        let waits = self.waits_behind(now, id);
        let Some(transfer) = self.live.get_mut(&id) else { return };
        transfer.due = waits;
        if waits.is_some() {
            return;
        }
        if transfer.is_given_up(now, self.config.idle_ttl) {
            self.end(id, Phase::Failed, Some("nothing came or went for too long".into()), true);
            return;
        }
        transfer.tries += 1;
        let record = transfer.record.clone();
        let routed = self.route(&record).is_some();
        match self.live.get_mut(&id).map(|transfer| &mut transfer.side) {
            Some(Side::In(Incoming { held: Some(Held::Space), .. })) => {
                let folder = record.folder;
                self.outputs.push_back(Output::LookForSpace { id, folder });
            }
            Some(Side::In(incoming)) if incoming.held.is_some() => {
                incoming.held = None;
                self.turn_due = true;
            }
            Some(Side::Out(outgoing)) if outgoing.held => {
                outgoing.held = false;
                self.serve_due = true;
            }
            Some(Side::In(incoming)) if record.phase == Phase::Offered => {
                let age = self.wall.as_millis().saturating_sub(record.started.as_millis());
                if Duration::from_millis(age) >= self.config.offer_ttl || !incoming.waits_for_disk {
                    self.end(id, Phase::Rejected, Some("nobody answered".into()), true);
                    return;
                }
                // A rule is to accept it, and looks at the disk again.
                incoming.waits_for_disk = false;
                self.turn_due = true;
            }
            Some(_) if !routed => {
                if self.end_denied(id) {
                    return;
                }
                self.outputs.push_back(Output::Seek(record.peer));
            }
            Some(Side::In(incoming)) => {
                self.metrics.stalled.inc();
                incoming.give_up_asked();
                self.ask_again(id);
                // Another may have its place meanwhile.
                self.turn_due = true;
            }
            _ => {}
        }
        self.schedule(now, id);
    }
}

/// The pause before an agent is looked for again.
fn seek(config: &FilesConfig, tries: u32) -> Duration {
    let doubled = config.seek_min.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX));
    doubled.min(config.seek_max)
}
