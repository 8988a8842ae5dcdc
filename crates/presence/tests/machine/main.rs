//! The machines in virtual time: who sees whom, for how long, at what cost, and what liars achieve.

mod cost;
mod detect;
mod hostile;
mod see;
mod walks;
mod world;
