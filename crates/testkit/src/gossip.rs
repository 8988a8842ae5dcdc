//! The gossip simulator: thousands of nodes, each the production overlay and pubsub machines composed
//! as their drivers compose them, over one simulated network.
//!
//! | where | what |
//! |---|---|
//! | [`Scenario`] | what is simulated, read from `simulations/*.toml` |
//! | [`run`] | runs a scenario with a seed and measures it |
//! | [`Report`] | what was measured, as a table or as JSON |
//!
//! Virtual time, one random source and a fixed order of events: a scenario and a seed give the same
//! run and the same [`Report::trace_hash`]. Every delivery is checked while it happens: each cursor
//! sees each message once and in its author's order, or the run ends with violations.

mod announce;
mod factory;
mod hostile;
mod ids;
mod ledger;
mod net;
mod objects;
mod oracle;
mod production;
mod protocol;
mod queue;
mod reference;
mod report;
mod scenario;
mod script;
mod stats;
mod world;

pub use announce::AnnounceReport;
pub use objects::ObjectsReport;
pub use report::{Connectivity, Report};
pub use scenario::{
    Event, GossipPart, HostilePart, Mode, NetworkPart, ObjectsPart, OverlayPart, Scenario,
    ScenarioError, TrafficPart,
};
pub use script::run;
