//! Dials by streams of packets, for what has no answer over UDP.

use std::net::SocketAddr;

use x0x_core::{Scope, Tick};

use super::{AttemptId, Output, Sessions, Timer, dial::DialId};
use crate::{error::DialError, sock::table::is_virtual};

/// Streams that a dial opens at once.
const STREAM_RACE: usize = 2;

/// What an address is dialled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Means {
    /// Packets of their own.
    Packets,
    /// A stream of packets.
    Stream,
}

impl Sessions {
    /// Dials by streams of packets what has no answer otherwise.
    #[must_use]
    pub const fn with_streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Opens streams to the addresses of a dial that had no answer. A machine that has sessions over packets of
    /// their own with others, as far away as these, has no use for streams.
    pub(super) fn try_streams(&mut self, id: DialId) {
        self.timers.cancel(Timer::Stream(id));
        let direct = self.sessions.values().filter_map(|session| self.links.get(&session.link));
        let direct = direct.filter(|link| !is_virtual(link.address));
        let reached = direct.map(|link| Scope::of_path(link.address.ip())).max();
        let Some(dial) = self.dials.get_mut(id) else { return };
        // Who refuses a duplicate has been reached.
        if !self.streams || dial.link.is_some() || dial.streaming || dial.refused {
            return;
        }
        dial.streaming = true;
        let needed = |address: &SocketAddr| Some(Scope::of_path(address.ip())) > reached;
        dial.streams.retain(needed);
        for _ in 0..STREAM_RACE {
            self.try_next_stream(id);
        }
    }

    /// Opens a stream to the next address. False when none is left.
    fn try_next_stream(&mut self, id: DialId) -> bool {
        let attempt = AttemptId(self.dials.number());
        let Some(dial) = self.dials.get_mut(id) else { return false };
        let Some(address) = dial.streams.pop_front() else { return false };
        dial.trying.insert(attempt, (Means::Stream, address));
        let expected = dial.expected;
        self.dials.attempts.insert(attempt, id);
        self.metrics.dials_by_stream.inc();
        self.output(Output::Dial { attempt, address, by: Means::Stream, expected });
        true
    }

    /// A dial without an attempt on its way goes on by a stream, waits for help, or fails.
    pub(super) fn all_tried(&mut self, now: Tick, id: DialId) {
        let Some(dial) = self.dials.get(id) else { return };
        if !dial.trying.is_empty() || dial.link.is_some() {
            return;
        }
        let error = dial.error.clone().unwrap_or(DialError::Timeout);
        // Who answers and refuses has been found.
        if error == DialError::Timeout {
            self.try_streams(id);
        }
        let tries = self.dials.get(id).is_some_and(|dial| !dial.trying.is_empty());
        if !tries && !self.awaits_help(id, &error) {
            self.fail_dial(now, id, &error);
        }
    }

    pub(super) fn stream_failed(&mut self, now: Tick, id: DialId, error: &DialError) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        if !matches!(dial.error, Some(ref told) if *told != DialError::Timeout) {
            dial.error = Some(error.clone());
        }
        if dial.link.is_some() || self.try_next_stream(id) {
            return;
        }
        if self.dials.get(id).is_some_and(|dial| !dial.has_untried()) {
            self.all_tried(now, id);
        }
    }
}
