//! Who is trusted with what: contacts with levels, machines they are pinned to, revoked keys, and one
//! policy that every layer asks before it acts.
//!
//! The effects of trust are a table of [actions](Action) and [reasons](Reason), [`EFFECTS`]; layers ask
//! through the narrow [`Policy`] trait. [`TrustState`] is the pure engine, [`ContactsFile`] keeps it on
//! disk (feature `fs`), and [`Trust`] is both together with events (feature `tokio`, the default).
//! Seeing an agent makes it no contact: only people do.
//!
//! ```
//! use x0x_core::{AgentId, WallTime};
//! use x0x_trust::{Action, Change, Level, Reason, TrustState, Verdict};
//!
//! let (mut trust, now, mut events) = (TrustState::default(), WallTime::default(), Vec::new());
//! let agent = AgentId::new([1; 32]);
//! assert!(trust.decide(&agent, None, Action::DirectReceive).allowed());
//!
//! let block = Change::Put { agent, level: Level::Blocked, label: None };
//! trust.apply(now, &block, &mut events)?;
//!
//! let decision = trust.decide(&agent, None, Action::DirectReceive);
//! assert_eq!((decision.verdict, decision.reason), (Verdict::Silent, Reason::Blocked));
//! # Ok::<(), x0x_trust::ChangeError>(())
//! ```

mod contacts;
mod error;
mod event;
#[cfg(feature = "fs")]
mod file;
#[cfg(feature = "tokio")]
mod handle;
mod level;
#[cfg(feature = "tokio")]
mod metrics;
mod policy;
#[cfg(feature = "fs")]
mod proofs;
mod revocations;
mod state;
#[cfg(feature = "test-util")]
pub mod testing;

pub use contacts::{
    Contact, MAX_CONTACTS, MAX_LABEL, MAX_MACHINES, MAX_PLACES, MachineRecord, Sighting,
};
pub use error::ChangeError;
#[cfg(feature = "fs")]
pub use error::OpenError;
#[cfg(feature = "tokio")]
pub use error::TrustError;
pub use event::TrustEvent;
#[cfg(feature = "fs")]
pub use file::{ContactsFile, Damaged, Loaded, MAX_FILE, decode, encode};
#[cfg(feature = "tokio")]
pub use handle::{MAX_UNREAD_EVENTS, Trust, TrustEvents};
pub use level::{IdentityType, Level, ParseWordError};
#[cfg(feature = "tokio")]
pub use metrics::TrustMetrics;
pub use policy::{Action, Decision, EFFECTS, Policy, Reason, Verdict};
#[cfg(feature = "fs")]
pub use proofs::{MAX_PROOFS, Proofs, ProofsFile};
pub use revocations::{MAX_REVOCATIONS, RevocationRecord, Revoker};
pub use state::{Assessment, Change, MAX_STRANGERS, Observation, Outcome, TrustState};
