//! Sessions that nobody uses: they are closed when they are too many, or when others need their place.

use x0x_core::{MachineId, Tick};

use super::{Sessions, Usage};
use crate::wire::CloseCode;

impl Sessions {
    /// Whether a further session needs the place of another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sessions.len() >= self.config.max_sessions
    }

    /// Notes how sessions are used, and closes those idle for longest beyond the soft cap.
    pub(super) fn on_usage(&mut self, now: Tick, usage: &[Usage]) {
        for usage in usage {
            if let Some(session) = self.sessions.get_mut(&usage.peer) {
                session.used = session.used.max(usage.used);
                session.held = usage.held;
            }
        }
        let idle = self.idle(now, |_| true);
        let excess = idle.len().saturating_sub(self.config.idle_soft_cap);
        for peer in idle.into_iter().take(excess) {
            self.metrics.sessions_idle_closed.inc();
            self.on_disconnect(now, peer, CloseCode::Disconnected);
        }
    }

    /// Closes the session among `candidates` that is idle for longest; false when none is.
    pub(super) fn evict_idle(&mut self, now: Tick, candidates: impl Fn(MachineId) -> bool) -> bool {
        let Some(peer) = self.idle(now, candidates).first().copied() else { return false };
        self.evict(now, peer);
        true
    }

    /// Closes a session for another.
    pub(super) fn evict(&mut self, now: Tick, peer: MachineId) {
        self.metrics.sessions_evicted.inc();
        if let Some(link) = self.sessions.get(&peer).map(|session| session.link) {
            self.refuse(now, link, CloseCode::Disconnected);
        }
    }

    /// Idle peers, the one used least recently first.
    pub(super) fn idle(&self, now: Tick, candidates: impl Fn(MachineId) -> bool) -> Vec<MachineId> {
        let idle_after = self.config.idle_after;
        let idle = self.sessions.iter().filter(|(peer, session)| {
            !session.held && now.since(session.used) >= idle_after && candidates(**peer)
        });
        let mut idle: Vec<(Tick, MachineId)> =
            idle.map(|(peer, session)| (session.used, *peer)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, peer)| peer).collect()
    }
}
