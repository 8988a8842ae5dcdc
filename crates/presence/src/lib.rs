//! Who is there: beacons to those who may know, and a verdict on those who fell silent.
//!
//! An agent signs one [`Session`] record a day and then reveals the values of a hash chain, one beacon of
//! less than 100 bytes each period, to its neighbours, its contacts and whoever asked. A peer that has no
//! session with an agent of interest asks two neighbours to pass its beacons on; what nobody near knows,
//! a friend-of-a-friend walk finds. A session that ended shows at once that somebody may be gone;
//! silence is judged by a φ-accrual detector. `docs/protocol/presence.md` states the bounds.
//!
//! - [`PresenceMachine`] is the pure machine.
//! - `Presence` (feature `tokio`) drives it over a `Transport`.
//! - [`Visibility`] is asked who may be told of whom.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use x0x_core::{AgentId, Machine, MachineId, Tick};
//! use x0x_presence::{Input, Open, Output, PresenceConfig, PresenceMachine, PresenceState};
//!
//! let (me, peer) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
//! let (here, there) = (MachineId::new([3; 32]), MachineId::new([4; 32]));
//! let config = PresenceConfig::default();
//! let mut machine = PresenceMachine::new(me, here, config, Arc::new(Open), [0; 32], Tick::ZERO);
//!
//! machine.handle(Tick::ZERO, Input::Up { peer: there, agents: vec![peer] });
//! assert_eq!(machine.status(&peer).state, PresenceState::Online);
//! machine.handle(Tick::from_millis(1000), Input::Down(there));
//! assert_eq!(machine.status(&peer).state, PresenceState::Away);
//! let end = Tick::ZERO + Duration::from_secs(11);
//! while let Some(due) = machine.poll_timeout().filter(|due| *due <= end) {
//!     machine.handle_timeout(due);
//! }
//! assert_eq!(machine.status(&peer).state, PresenceState::Offline);
//! ```

mod chain;
mod config;
mod detector;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod handle;
mod metrics;
mod query;
mod session;
mod state;
#[cfg(feature = "test-util")]
pub mod testing;
mod visibility;
mod wire;

pub use chain::{MAX_CHAIN, VALUE_LEN, Value, advance};
pub use config::{
    FAN_OUT, MAX_INTEREST, MAX_LINKS, MAX_ORIGINS, MAX_PERIOD, MAX_SUBJECTS, MAX_TTL, MAX_WALKS,
    MAX_WATCHED, MIN_PERIOD, PresenceConfig,
};
pub use error::VerifyError;
#[cfg(feature = "tokio")]
pub use error::{FindError, StartError};
#[cfg(feature = "tokio")]
pub use handle::{Events, Presence, PresenceEvent, PresenceParts, PresenceView, Suspects};
pub use metrics::PresenceMetrics;
pub use query::{
    MAX_QUERY, MAX_TARGETS, QUERY_DOMAIN, QUERY_VALIDITY, Query, QueryIn, SignedQuery, WalkId,
};
pub use session::{
    LocalSession, MAX_RECORD, SESSION_DOMAIN, Session, SessionId, SessionIn, SignedSession,
};
pub use state::{Input, Output, PresenceMachine, PresenceState, Status};
pub use visibility::{Open, Visibility};
pub use wire::{
    Beacon, Frame, FrameIn, MAX_BEACONS, MAX_FRAME, MAX_SIGHTINGS, MAX_WANTED, Sighting, TAG_LEN,
    Tag, tag,
};
