//! Who are my neighbours: HyParView overlay membership.
//!
//! Every node keeps a small *active view* of neighbours, linked both ways over sessions of the
//! transport, and a larger *passive view* of peers to replace them with. Newcomers are walked through
//! the overlay; shuffles keep the passive views fresh and mixed; a lost neighbour is replaced at once
//! by really dialling another. The overlay stays connected when most nodes fail at the same time.
//! The protocol is that of J. Leitão, J. Pereira, L. Rodrigues, *HyParView: a membership protocol for
//! reliable gossip-based broadcast*, DSN 2007; `docs/protocol/membership.md` says where and why this
//! implementation differs.
//!
//! - [`HyParView`] is the pure machine; it runs in simulations of thousands of nodes.
//! - `Membership` (feature `tokio`) drives it over a `Transport` and implements `Neighbors`, the
//!   narrow trait that the layers above hold.
//! - `testing::StaticNeighbors` (feature `test-util`) is the fake of that trait.
//!
//! ```
//! use x0x_core::{Machine, MachineId, Scope, Tick};
//! use x0x_gossip_membership::{HyParView, Input, Message, Output, OverlayConfig, Peer};
//!
//! let (a, b) = (MachineId::new([1; 32]), MachineId::new([2; 32]));
//! let mut contact = HyParView::new(a, OverlayConfig::default(), [7; 32])?;
//!
//! // A newcomer dials us, and asks for a place in the overlay.
//! let peer = Peer::new(b, ["192.0.2.2:5483".parse().expect("an address")]);
//! contact.handle(Tick::ZERO, Input::Up { peer, path: Scope::Global, dialled: false });
//! contact.handle(Tick::ZERO, Input::Message { peer: b, message: Message::Join });
//!
//! let reply = Message::NeighborReply { accept: true, entries: vec![] };
//! assert_eq!(contact.poll_output(), Some(Output::Send { to: b, message: reply }));
//! assert_eq!(contact.poll_output(), Some(Output::NeighborUp(b)));
//! # Ok::<(), x0x_gossip_membership::ConfigError>(())
//! ```

#[cfg(feature = "tokio")]
mod announce;
mod book;
pub mod cache;
pub mod config;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
pub mod error;
mod estimate;
#[cfg(feature = "tokio")]
mod handle;
mod health;
mod lost;
mod metrics;
mod mix;
mod neighbors;
mod network;
mod peer;
pub mod state;
#[cfg(feature = "test-util")]
pub mod testing;
mod view;
pub mod wire;

pub use book::{MAX_HEARSAY, MAX_TRIED};
pub use config::{ConfigError, MembershipConfig, OverlayConfig};
#[cfg(feature = "tokio")]
pub use handle::Membership;
pub use lost::MAX_LOST;
pub use metrics::MembershipMetrics;
pub use neighbors::NeighborEvent;
#[cfg(feature = "tokio")]
pub use neighbors::Neighbors;
pub use peer::{Hint, MAX_HEARD, Peer, usable};
pub use state::{DialFailure, HyParView, Input, Output};
pub use view::{MAX_ACTIVE, MAX_PASSIVE};
pub use wire::{Message, MessageIn, Outcome, Verified};
