//! Dials that others help with: those of known peers that do not succeed by themselves.

use std::net::SocketAddr;

use x0x_core::{MachineId, Tick};

use super::{
    Output, Sessions, Timer,
    dial::{DialId, Help},
};
use crate::error::DialError;

impl Sessions {
    /// Plans when a dial that begins is helped: soon, or at once when there is no address to try.
    pub(super) fn plan_help(&mut self, now: Tick, id: DialId) {
        let Some(dial) = self.dials.get(id) else { return };
        if dial.help == Help::Possible {
            let wait = self.config.punch_after;
            let at = if dial.has_untried() { now + wait } else { now };
            self.timers.set(Timer::Punch(id), at);
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

    /// Whether a dial whose addresses have all failed may still succeed with help.
    pub(super) fn awaits_help(&mut self, id: DialId, error: &DialError) -> bool {
        let Some(dial) = self.dials.get(id) else { return false };
        match dial.help {
            Help::Asked => true,
            // Who answers and refuses needs not be found.
            Help::Possible if *error == DialError::Timeout => {
                self.ask_for_help(id);
                true
            }
            Help::Possible | Help::Over => false,
        }
    }

    pub(super) fn on_punched(&mut self, now: Tick, peer: MachineId, found: Option<SocketAddr>) {
        let Some(id) = self.dials.helped(peer) else { return };
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.help = Help::Over;
        if let Some(address) = found
            && dial.add_first(address)
        {
            return self.try_next(now, id);
        }
        if dial.is_exhausted() {
            let error = dial.error.take().unwrap_or(DialError::Timeout);
            self.fail_dial(now, id, &error);
        }
    }
}
