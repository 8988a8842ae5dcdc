//! Reopening sessions that were lost, not ended.

use std::{net::SocketAddr, time::Duration};

use x0x_core::{MachineId, PeerAddr, Tick};

use super::{LinkState, Session, Sessions, Timer, dial::Caller};
use crate::{
    config::MAX_RECONNECTS,
    error::DialError,
    link::{LinkClosed, Side},
    sock::table::is_virtual,
    wire::CloseCode,
};

/// A session that is replaced at the peer sooner is contested: another process has the same machine
/// key, and without a growing delay the two would replace each other for ever.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// A lost session that is tried again until it is back or given up.
#[derive(Debug)]
pub(super) struct Reconnect {
    to: PeerAddr,
    /// The session was wanted or held.
    wanted: bool,
    attempts: u32,
    give_up: Tick,
    /// Sessions in a row that were soon replaced at the peer, the one before this among them.
    contested: u32,
}

/// Whether the session may come back. A peer that left on purpose, that has no room, or that speaks
/// another protocol is the business of the layers above.
fn is_loss(reason: &LinkClosed) -> bool {
    match reason {
        LinkClosed::TimedOut | LinkClosed::Failed(_) => true,
        LinkClosed::Peer(code) => matches!(code, CloseCode::Duplicate | CloseCode::Timeout),
        LinkClosed::Local | LinkClosed::Stream(_) => false,
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
        let relayed = is_virtual(link.address);
        let seen = (link.side == Side::Dialer && !is_virtual(link.dialled)).then_some(link.dialled);
        let listening = session.listen_addresses.iter().copied();
        let to = PeerAddr::known(link.peer, seen.into_iter().chain(listening));
        // Others may reach a peer that was reached by them before.
        let nowhere = to.addresses.is_empty() && !(relayed && self.helped);
        if !is_loss(reason) || nowhere {
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
        let replaced = *reason == LinkClosed::Peer(CloseCode::Duplicate);
        let contested = match replaced && now.since(session.since) < SETTLED_AFTER {
            true => session.contested.saturating_add(1),
            false => u32::from(replaced),
        };
        if contested > 1 {
            self.metrics.sessions_contested.inc();
        }
        let doublings = contested.saturating_sub(1).min(20);
        let delay = delay.saturating_mul(1 << doublings).min(self.config.backoff_max.max(delay));
        let give_up = now + delay + self.config.reconnect_for;
        let wanted = link.wanted || session.held;
        let reconnect = Reconnect { to, wanted, attempts: 0, give_up, contested };
        self.reconnects.insert(link.peer, reconnect);
        let jitter = delay * u32::try_from(self.rng.range(0, 64)).unwrap_or(0) / 256;
        self.timers.set(Timer::Reconnect(link.peer), now + delay + jitter);
    }

    /// Gives how often in a row the sessions with the peer were soon replaced.
    pub(super) fn forget_reconnect(&mut self, peer: MachineId) -> u32 {
        self.timers.cancel(Timer::Reconnect(peer));
        self.reconnects.remove(&peer).map_or(0, |reconnect| reconnect.contested)
    }

    /// Until when a peer that keeps replacing its sessions is left alone, whoever asks for it.
    pub(super) fn contested_until(&self, now: Tick, to: &PeerAddr) -> Option<Tick> {
        let is_for = |peer: MachineId, reconnect: &Reconnect| match to.id {
            Some(id) => id == peer,
            None => reconnect.to.addresses.iter().any(|address| to.addresses.contains(address)),
        };
        let mut contested = self.reconnects.iter().filter(|(_, r)| r.contested > 1);
        let (peer, _) = contested.find(|(peer, reconnect)| is_for(**peer, reconnect))?;
        self.timers.at(Timer::Reconnect(*peer)).filter(|at| *at > now)
    }

    pub(super) fn on_reconnect(&mut self, now: Tick, peer: MachineId) {
        let Some(reconnect) = self.reconnects.get(&peer) else { return };
        if now >= reconnect.give_up {
            self.metrics.reconnects_given_up.inc();
            self.forget_reconnect(peer);
            return;
        }
        let (to, wanted) = (reconnect.to.clone(), reconnect.wanted);
        self.metrics.reconnects.inc();
        match self.dial(now, Caller::Reopen { wanted }, &to) {
            Ok(()) => {}
            // Nobody is there to help: that is an attempt, too.
            Err(error @ DialError::NoAddress) => self.reconnect_failed(now, peer, &error),
            Err(error) => self.retry_reconnect(now, peer, &error),
        }
    }

    /// What failed before may work from the new addresses: nothing is held against anybody, and lost
    /// sessions are tried again at once, but for those that another process replaces.
    pub(super) fn on_local_addresses(&mut self, now: Tick, addresses: Vec<SocketAddr>) {
        self.local_addresses = addresses;
        self.backoff.forget_all();
        let lost = self.reconnects.iter().filter(|(_, reconnect)| reconnect.contested <= 1);
        let lost: Vec<MachineId> = lost.map(|(peer, _)| *peer).collect();
        for peer in lost {
            if self.timers.at(Timer::Reconnect(peer)).is_some() {
                self.timers.set(Timer::Reconnect(peer), now);
            }
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
            DialError::Limit { .. } | DialError::NoAddress => now + self.config.dial_deadline,
            _ => blocked.unwrap_or(now + self.config.backoff_min),
        };
        self.timers.set(Timer::Reconnect(peer), next);
    }
}
