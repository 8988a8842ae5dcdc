//! What trust counts.

use x0x_core::{Counter, Gauge, Metric};

use crate::policy::{Decision, Verdict};

/// Counters of trust.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct TrustMetrics {
    /// Decisions that let something happen.
    pub allowed: Counter,
    /// Decisions that refused openly.
    pub denied: Counter,
    /// Decisions that refused without a sign.
    pub silenced: Counter,
    /// Agents that moved to another machine.
    pub moved: Counter,
    /// Bindings of machines that their agent had left.
    pub superseded: Counter,
    /// Bindings of machines that their agent is not pinned to.
    pub refused_pin: Counter,
    /// Revocations that were new here.
    pub revoked: Counter,
    /// Revocations for which there was no room.
    pub refused_full: Counter,
    /// Times that the contacts were written to disk.
    pub saved: Counter,
    /// Times that they could not be.
    pub save_failed: Counter,
    /// Contacts.
    pub contacts: Gauge,
    /// Contacts that are blocked.
    pub blocked: Gauge,
    /// Revocations on record.
    pub revocations: Gauge,
    /// Agents that are no contacts and whose whereabouts are kept.
    pub strangers: Gauge,
}

impl TrustMetrics {
    pub(crate) fn count(&self, decision: Decision) {
        match decision.verdict {
            Verdict::Allow => self.allowed.inc(),
            Verdict::Deny => self.denied.inc(),
            Verdict::Silent => self.silenced.inc(),
        }
    }

    /// All values now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Metric> {
        vec![
            self.allowed.metric("trust_allowed", "Decisions that let something happen"),
            self.denied.metric("trust_denied", "Decisions that refused openly"),
            self.silenced.metric("trust_silenced", "Decisions that refused without a sign"),
            self.moved.metric("trust_moved", "Agents that moved to another machine"),
            self.superseded.metric("trust_superseded", "Bindings of machines that were left"),
            self.refused_pin.metric("trust_refused_pin", "Bindings against a pin"),
            self.revoked.metric("trust_revoked", "Revocations that were new here"),
            self.refused_full.metric("trust_refused_full", "Revocations without room"),
            self.saved.metric("trust_saved", "Times that contacts were written to disk"),
            self.save_failed.metric("trust_save_failed", "Times that they could not be"),
            self.contacts.metric("trust_contacts", "Contacts"),
            self.blocked.metric("trust_blocked", "Contacts that are blocked"),
            self.revocations.metric("trust_revocations", "Revocations on record"),
            self.strangers.metric("trust_strangers", "Strangers whose whereabouts are kept"),
        ]
    }
}
