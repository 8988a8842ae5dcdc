//! What becomes of letters that a holder does not give as it listed them, and who is blamed for it.

use std::time::Duration;

use x0x_core::{MachineId, Tick};

use super::{super::wire::Digest, Collector, Key, Mailbox, Stage};

/// After so many changed letters a holder is not asked any more, for this time.
pub(super) const MAX_LIES: u32 = 3;
const SHUNNED_FOR: Duration = Duration::from_secs(3600);
/// So many listed letters that it has not are forgiven a holder between two questions: others may
/// delete what was just listed.
pub(super) const MAX_MISSING: u32 = 32;
/// After so many letters in one mailbox that do not open, the rest of what a holder lists in it is
/// ignored: the holder or the mailbox's sender is at fault, no other sender.
pub(super) const MAX_BROKEN: u32 = 3;
/// Mailboxes remembered in which a holder had letters that do not open; the first is forgotten.
const MAX_BLAMED: usize = 64;

impl Collector {
    pub(super) fn tampered(&mut self, now: Tick, peer: MachineId, digest: Digest) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.tampered.inc();
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.lies += 1;
            if holder.lies >= MAX_LIES {
                self.shun(now, peer);
            }
        }
        self.lost(now, peer, key);
    }

    pub(super) fn missing(&mut self, now: Tick, peer: MachineId, digest: Digest) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.withheld.inc();
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.missing += 1;
            if holder.missing >= MAX_MISSING {
                self.shun(now, peer);
            }
        }
        self.lost(now, peer, key);
    }

    /// A holder does not answer: its queue or the way to it may be full.
    pub(super) fn late(&mut self, now: Tick, peer: MachineId, digest: Digest) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.withheld.inc();
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.more = true;
        }
        self.lost(now, peer, key);
    }

    pub(super) fn broken(&mut self, now: Tick, peer: MachineId, digest: Digest) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.refused_letters.inc();
        self.settle(now, key);
        self.unlane(now, &key);
        let mailbox: Mailbox = key.0;
        if let Some(holder) = self.holders.get_mut(&peer) {
            if holder.broken.len() >= MAX_BLAMED && !holder.broken.contains_key(&mailbox) {
                holder.broken.pop_first();
            }
            let broken = holder.broken.entry(mailbox).or_default();
            *broken += 1;
            if *broken >= MAX_BROKEN {
                self.forget(now, peer, |(of, _)| *of == mailbox);
            }
        }
        self.fetch(now);
        self.ask_for_more(now, peer);
    }

    /// The clock here may be wrong: nobody is to blame, and nothing is to be deleted. It is listed again
    /// to who asks again.
    pub(super) fn untimely(&mut self, now: Tick, peer: MachineId, digest: Digest) {
        let Some(key) = self.fetched(peer, digest) else { return };
        self.metrics.untimely.inc();
        self.unknown(now, &key);
        self.fetch(now);
        self.ask_for_more(now, peer);
    }

    /// Asks a holder nothing for a while.
    fn shun(&mut self, now: Tick, peer: MachineId) {
        let Some(holder) = self.holders.get_mut(&peer) else { return };
        let until = now + SHUNNED_FOR;
        (holder.shunned_until, holder.ask_at) = (Some(until), Some(until));
        (holder.lies, holder.missing, holder.more) = (0, 0, false);
        self.forget(now, peer, |_| true);
    }

    /// Takes a holder off what it listed, but for what it is giving just now.
    fn forget(&mut self, now: Tick, peer: MachineId, which: impl Fn(&Key) -> bool) {
        for (_, item) in self.items.iter_mut().filter(|(key, _)| which(key)) {
            if !matches!(item.stage, Stage::Fetching(from, _) if from == peer) {
                item.holders.remove(&peer);
            }
        }
        self.drop_orphans(now);
    }
}
