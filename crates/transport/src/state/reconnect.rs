//! Reopening sessions that were lost, not ended.

use x0x_core::{MachineId, PeerAddr, Tick};

use super::{LinkState, Session, Sessions, Timer};
use crate::{
    config::MAX_RECONNECTS,
    error::DialError,
    link::{LinkClosed, Side},
    wire::CloseCode,
};

/// A lost session that is tried again until it is back or given up.
#[derive(Debug)]
pub(super) struct Reconnect {
    to: PeerAddr,
    attempts: u32,
    give_up: Tick,
}

/// Whether the session may come back. A peer that left on purpose, that has no room, or that speaks
/// another protocol is the business of the layers above.
fn is_loss(reason: &LinkClosed) -> bool {
    match reason {
        LinkClosed::TimedOut | LinkClosed::Failed(_) => true,
        LinkClosed::Peer(code) => matches!(code, CloseCode::Duplicate | CloseCode::Timeout),
        LinkClosed::Local => false,
    }
}

impl Sessions {
    pub(super) fn plan_reconnect(
        &mut self,
        now: Tick,
        link: &LinkState,
        session: &Session,
        reason: &LinkClosed,
    ) {
        let seen = (link.side == Side::Dialer).then_some(link.address);
        let listening = session.listen_addresses.iter().copied();
        let to = PeerAddr::known(link.peer, seen.into_iter().chain(listening));
        if !is_loss(reason) || to.addresses.is_empty() {
            return;
        }
        if self.reconnects.len() >= MAX_RECONNECTS {
            self.metrics.reconnects_given_up.inc();
            return;
        }
        let delay = match link.side {
            Side::Dialer => self.config.backoff_min,
            Side::Acceptor => self.config.acceptor_reconnect_delay,
        };
        let give_up = now + self.config.reconnect_for;
        self.reconnects.insert(link.peer, Reconnect { to, attempts: 0, give_up });
        let jitter = delay * u32::try_from(self.rng.range(0, 64)).unwrap_or(0) / 256;
        self.timers.set(Timer::Reconnect(link.peer), now + delay + jitter);
    }

    pub(super) fn forget_reconnect(&mut self, peer: MachineId) {
        self.reconnects.remove(&peer);
        self.timers.cancel(Timer::Reconnect(peer));
    }

    pub(super) fn on_reconnect(&mut self, now: Tick, peer: MachineId) {
        let Some(reconnect) = self.reconnects.get(&peer) else { return };
        if now >= reconnect.give_up {
            self.metrics.reconnects_given_up.inc();
            return self.forget_reconnect(peer);
        }
        let to = reconnect.to.clone();
        self.metrics.reconnects.inc();
        if let Err(error) = self.dial(now, None, &to) {
            self.retry_reconnect(now, peer, &error);
        }
    }

    /// A dial to the peer failed, whoever asked for it.
    pub(super) fn reconnect_failed(&mut self, now: Tick, peer: MachineId, error: &DialError) {
        let limit = self.config.reconnect_attempts;
        let Some(reconnect) = self.reconnects.get_mut(&peer) else { return };
        reconnect.attempts += 1;
        if reconnect.attempts >= limit {
            self.metrics.reconnects_given_up.inc();
            self.forget_reconnect(peer);
        } else {
            self.retry_reconnect(now, peer, error);
        }
    }

    fn retry_reconnect(&mut self, now: Tick, peer: MachineId, error: &DialError) {
        let Some(reconnect) = self.reconnects.get(&peer) else { return };
        let blocked = reconnect
            .to
            .addresses
            .iter()
            .filter_map(|address| self.backoff.blocked_until(now, Some(peer), *address))
            .min();
        let next = match error {
            // No dial was made: its turn comes when others are done.
            DialError::Limit { .. } => now + self.config.dial_deadline,
            _ => blocked.unwrap_or(now + self.config.backoff_min),
        };
        self.timers.set(Timer::Reconnect(peer), next);
    }
}
