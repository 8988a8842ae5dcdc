//! Private messages between agents: ordered, acknowledged, with back-pressure to the sender.
//!
//! A message travels over the session between two machines. The session has authenticated both, and
//! its hello has proven their agents, so a message carries no signature of its own. Acknowledged
//! means that the receiver has the message: in its store of mail, when it has one, else in its bounded
//! inbox. Senders beyond their share of what a receiver holds for it are [refused as
//! busy](RefuseReason::Busy).
//! When a session ends first, the send fails as [`DirectError::Unconfirmed`], and trying again with
//! the same id delivers the message at most once.
//!
//! [`Direct`] sends and an [`Inbox`] receives; an [outbox] keeps letters until their recipients can be
//! reached, and leaves sealed [letters] with others meanwhile. The protocol is [`state::DirectMachine`], a pure
//! machine; [`wire`] has its frames and limits, which `docs/protocol/direct.md` explains.
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use x0x_core::{AgentId, MachineId, SystemClock};
//!
//! use x0x_direct::{DirectConfig, testing};
//!
//! let (machine, alice, bob) =
//!     (MachineId::new([1; 32]), AgentId::new([2; 32]), AgentId::new([3; 32]));
//! let config = DirectConfig::new(vec![alice, bob]);
//! // Over a real transport this is `Direct::start(transport, config, clock)?`.
//! let (direct, mut inbox) = testing::loopback(machine, config, Arc::new(SystemClock::new()));
//!
//! let receipt = direct.send(machine, alice, bob, "hello".into()).await?;
//! let message = inbox.next().await.ok_or("closed")?;
//! assert_eq!((message.id, message.from, &message.payload[..]), (receipt.id, alice, &b"hello"[..]));
//! # Ok(())
//! # }
//! ```

mod admission;
mod config;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod inbox;
pub mod letters;
#[cfg(feature = "tokio")]
pub mod mail;
#[cfg(feature = "tokio")]
mod mailing;
mod metrics;
pub mod outbox;
#[cfg(feature = "tokio")]
mod routes;
pub mod state;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod wire;

pub use admission::{
    Admission, Admit, Admittance, MAX_RATED_SENDERS, Quotas, Share, Standing, Standings, Unread,
};
pub use config::DirectConfig;
pub use error::{DirectError, RefuseReason};
#[cfg(feature = "tokio")]
pub use handle::{Accepted, Direct, Receipt, Sending};
#[cfg(feature = "tokio")]
pub use inbox::{DirectMessage, Inbox};
#[cfg(feature = "tokio")]
pub use mailing::{LetterEvent, Mailing};
pub use metrics::DirectMetrics;
pub use wire::{Kind, Lane, MAX_PAYLOAD, MessageId, Terms};
