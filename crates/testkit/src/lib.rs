//! A discrete-event simulator for any [`x0x_core::Machine`].
//!
//! A [`Swarm`] runs N machines over simulated sessions in virtual time. It draws every random choice
//! from one seed and orders simultaneous events by the order in which they were scheduled, so a run
//! is replayed exactly by its seed; [`Swarm::trace_hash`] proves it. An [`Adapter`] translates one
//! kind of machine: network events to inputs, outputs to [`Effect`]s.
//!
//! ```
//! use std::time::Duration;
//! use x0x_core::{Machine, Tick};
//! use x0x_testkit::{Adapter, Effect, LinkModel, NetEvent, NodeId, Swarm};
//!
//! // A machine that answers each number with the next lower one.
//! #[derive(Default)]
//! struct Countdown(Vec<(NodeId, u8)>);
//!
//! impl Machine for Countdown {
//!     type Input = (NodeId, u8);
//!     type Output = (NodeId, u8);
//!     fn handle(&mut self, _: Tick, (from, n): (NodeId, u8)) {
//!         self.0.extend(n.checked_sub(1).map(|n| (from, n)));
//!     }
//!     fn handle_timeout(&mut self, _: Tick) {}
//!     fn poll_output(&mut self) -> Option<(NodeId, u8)> {
//!         self.0.pop()
//!     }
//!     fn poll_timeout(&self) -> Option<Tick> {
//!         None
//!     }
//! }
//!
//! struct Plain;
//!
//! impl Adapter for Plain {
//!     type Machine = Countdown;
//!     type Message = u8;
//!     type Dial = ();
//!     type Event = ();
//!     fn machine(&mut self, _: NodeId, _: u64) -> Countdown {
//!         Countdown::default()
//!     }
//!     fn input(&mut self, _: NodeId, event: NetEvent<u8, ()>) -> Option<(NodeId, u8)> {
//!         match event {
//!             NetEvent::Message { from, message } => Some((from, message)),
//!             _ => None,
//!         }
//!     }
//!     fn output(&mut self, _: NodeId, out: (NodeId, u8), effects: &mut Vec<Effect<u8, (), ()>>) {
//!         effects.push(Effect::Send { to: out.0, message: out.1 });
//!     }
//! }
//!
//! let mut swarm = Swarm::new(7, LinkModel::default(), Plain);
//! let (a, b) = (swarm.add(), swarm.add());
//! swarm.connect(a, b);
//! swarm.run_for(Duration::from_secs(1));
//! swarm.input(a, (b, 5));
//! swarm.run_for(Duration::from_secs(1));
//! assert_eq!(swarm.stats().delivered, 5);
//! ```

#[cfg(feature = "discovery")]
pub mod discovery;
#[cfg(feature = "gossip")]
pub mod gossip;
mod graph;
mod link;
mod seeds;
mod sim;
mod stats;
mod swarm;

pub use graph::{Degrees, Graph};
pub use link::{Fate, LinkModel, Network};
pub use seeds::for_seeds;
pub use sim::{Sim, TraceHash};
pub use stats::Stats;
pub use swarm::{Adapter, Effect, NetEvent, NodeId, Swarm};
