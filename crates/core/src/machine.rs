//! The shape of every protocol core.

use crate::Tick;

/// A protocol as a pure state machine: inputs in, outputs out, time as an argument.
///
/// A machine reads no clock, socket or random source that it was not handed, starts no task, and
/// never iterates a container in hash order, so that a seed and a list of inputs replay a run
/// exactly. The caller keeps this contract:
///
/// 1. Call [`handle`](Self::handle) with a time that never goes back.
/// 2. Then take [`poll_output`](Self::poll_output) until it is empty, and carry each output out.
/// 3. Then wait for the next input, or until [`poll_timeout`](Self::poll_timeout), whichever comes
///    first; at the timeout call [`handle_timeout`](Self::handle_timeout) and go to 2.
pub trait Machine {
    /// What the world tells the machine.
    type Input;
    /// What the machine asks of the world.
    type Output;

    /// Takes one input at time `now`.
    fn handle(&mut self, now: Tick, input: Self::Input);

    /// Runs every timer due at `now`. Harmless when none is.
    fn handle_timeout(&mut self, now: Tick);

    /// The next thing to do, oldest first.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, if ever.
    fn poll_timeout(&self) -> Option<Tick>;
}
