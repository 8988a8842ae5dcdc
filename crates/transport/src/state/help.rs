//! Dials that others help with: those of known peers that do not succeed by themselves. Soon others are asked
//! where the peer answers, and a little later, to relay.

use std::{net::SocketAddr, time::Duration};

use x0x_core::{MachineId, Tick};

use super::{
    LinkId, Output, Sessions, Timer,
    dial::{Dial, DialId, Help},
};
use crate::{
    error::DialError,
    sock::table::{is_relayed, is_streamed},
};

/// Ways by relays that one dial tries, and how long each has alone.
const MAX_RELAYS: u32 = 3;
const NEXT_RELAY: Duration = Duration::from_secs(2);
/// How long the two that send at once have for themselves, before a way by a relay is dialled that is ready: their third
/// probe, and a handshake between neighbours.
const HEAD_START: Duration = Duration::from_millis(100);

impl Sessions {
    /// Asks others for help with dials that do not succeed soon.
    #[must_use]
    pub const fn with_help(mut self) -> Self {
        self.helped = true;
        self
    }

    /// Plans when a dial that begins is helped: soon, or at once when there is no address to try.
    pub(super) fn plan_help(&mut self, now: Tick, id: DialId) {
        if self.streams {
            self.timers.set(Timer::Stream(id), now + self.config.stream_after);
        }
        let Some(dial) = self.dials.get(id) else { return };
        if dial.help == Help::Possible {
            let wait = self.config.punch_after;
            let at = if dial.has_untried() { now + wait } else { now };
            self.timers.set(Timer::Punch(id), at);
            self.timers.set(Timer::Relay(id), now + self.config.relay_after);
        }
    }

    pub(super) fn ask_for_help(&mut self, id: DialId) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        let Some(peer) = dial.expected.filter(|_| dial.help == Help::Possible) else { return };
        if dial.link.is_some() {
            return;
        }
        dial.help = Help::Asked;
        self.timers.cancel(Timer::Punch(id));
        self.output(Output::Punch(peer));
    }

    pub(super) fn ask_for_relay(&mut self, id: DialId) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        let Some(peer) = dial.expected.filter(|_| dial.relay == Help::Possible) else { return };
        if dial.link.is_some() {
            return;
        }
        dial.relay = Help::Asked;
        self.timers.cancel(Timer::Relay(id));
        self.output(Output::Relay(peer));
    }

    /// Whether a dial whose addresses have all failed may still succeed with help.
    pub(super) fn awaits_help(&mut self, id: DialId, error: &DialError) -> bool {
        // Who answers and refuses needs not be found.
        if *error == DialError::Timeout {
            self.ask_for_help(id);
            self.ask_for_relay(id);
        }
        let asked = |help| help == Help::Asked;
        let waits = |dial: &Dial| asked(dial.help) || asked(dial.relay) || dial.ready.is_some();
        self.dials.get(id).is_some_and(waits)
    }

    /// While the two find out whether their packets pass, a relay gets ready: where they do, the direct link is up before
    /// it, and where they do not, little was lost by waiting.
    pub(super) fn on_punch_agreed(&mut self, now: Tick, peer: MachineId) {
        let Some(id) = self.dials.helped(peer, |dial| dial.help) else { return };
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.agreed.get_or_insert(now);
        self.ask_for_relay(id);
    }

    pub(super) fn on_punched(&mut self, now: Tick, peer: MachineId, found: Option<SocketAddr>) {
        let Some(id) = self.dials.helped(peer, |dial| dial.help) else { return };
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.help = Help::Over;
        dial.punched = found;
        if found.is_none() {
            self.on_relay_due(now, id);
        }
        self.try_found(now, id, found);
    }

    pub(super) fn on_relayed(&mut self, now: Tick, peer: MachineId, found: Option<SocketAddr>) {
        let Some(id) = self.dials.helped(peer, |dial| dial.relay) else { return };
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.relay = Help::Over;
        let Some(way) = found else { return self.try_found(now, id, None) };
        let alone = dial.agreed.map(|at| at + HEAD_START).filter(|until| now < *until);
        match alone.filter(|_| dial.help == Help::Asked) {
            Some(until) => {
                dial.ready = Some(way);
                self.timers.set(Timer::Relay(id), until);
            }
            None => self.try_relayed(now, id, way),
        }
    }

    /// It is time for a relay: for the way that is ready, or to ask for one.
    pub(super) fn on_relay_due(&mut self, now: Tick, id: DialId) {
        match self.dials.get_mut(id).and_then(|dial| dial.ready.take()) {
            Some(way) => self.try_relayed(now, id, way),
            None => self.ask_for_relay(id),
        }
    }

    fn try_relayed(&mut self, now: Tick, id: DialId, way: SocketAddr) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.relays += 1;
        // A relay that joins two and carries nothing is not the last one.
        if dial.relays < MAX_RELAYS {
            dial.relay = Help::Possible;
            self.timers.set(Timer::Relay(id), now + NEXT_RELAY);
        }
        self.try_found(now, id, Some(way));
    }

    fn try_found(&mut self, now: Tick, id: DialId, found: Option<SocketAddr>) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        if let Some(address) = found
            && dial.add_first(address)
        {
            return self.try_next(now, id);
        }
        let asked = |help| help == Help::Asked;
        if dial.is_exhausted() && !asked(dial.help) && !asked(dial.relay) {
            let error = dial.error.take().unwrap_or(DialError::Timeout);
            self.fail_dial(now, id, &error);
        }
    }

    /// Counts how a session began.
    pub(super) fn count_way(&self, id: LinkId, address: SocketAddr) {
        let punched = self.dials.of_link(id).is_some_and(|dial| dial.punched == Some(address));
        if is_relayed(address) {
            &self.metrics.sessions_began_relayed
        } else if is_streamed(address) {
            &self.metrics.sessions_began_by_stream
        } else if punched {
            &self.metrics.sessions_began_punched
        } else {
            &self.metrics.sessions_began_direct
        }
        .inc();
    }
}
