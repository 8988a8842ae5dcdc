//! Every x0x layer composed into one embeddable [`Agent`]: no daemon needed.
//!
//! ```no_run
//! use x0x_agent::{Agent, AgentConfig};
//!
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! let agent = Agent::builder(AgentConfig::new("keys", "data")).start().await?;
//! let mut news = agent.subscribe("news").await?;
//! agent.publish("news", "hello".into()).await?;
//! println!("{:?}", news.next().await);
//! agent.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! This crate is composition only: it starts the layers, hands events from one to the next, and
//! gives them one handle. `examples/two_agents.rs` runs two agents in one process.

mod agent;
mod builder;
mod config;
mod directory;
mod error;
mod identity;
mod mailbox;
mod messaging;
mod presence;
mod topic_peers;
mod topics;
pub mod trust;

pub use agent::{Agent, GossipDiagnostics};
pub use builder::AgentBuilder;
pub use config::{AgentConfig, Storage};
pub use directory::{ConnectKind, ConnectOutcome};
pub use error::{SendDirectError, StartError};
pub use identity::{IdentityError, ImportCardError, ImportedCard, RevokeWhat};
pub use mailbox::{DirectEvent, DirectEvents, MAX_MAILBOX_BYTES, MAX_MAILBOX_MESSAGES};
pub use messaging::{
    AgentPublishError, AgentSubscribeError, AgentWaitError, DirectReceipt, MAX_TOPIC_NAME,
    QueuedDirect, TopicNameError,
};

pub use topics::MAX_TOPIC_NAMES;
pub use trust::Subscription;
pub use x0x_core::{AgentId, MachineId, Metric, MetricKind, UserId, WallTime};
pub use x0x_direct::{DirectError, DirectMessage};
pub use x0x_gossip_pubsub::{
    Accepted, Cursor, Delivery, Limits as GossipLimits, LinkSnapshot, Message, PubSubMetrics,
    PublishError, Published, Retention, Start, SubscribeError, TopicSnapshot, WaitError,
};
pub use x0x_identity::{
    AgentLink, Audience, Card, Replace, Service, SignedCard, SignedRevocation, TextError,
    private_file,
};
pub use x0x_presence::{
    Events as PresenceEvents, FindError as WalkError, PresenceEvent, PresenceState,
    Status as PresenceStatus,
};
pub use x0x_rendezvous::{AnnounceError, DiscoveredAgent};
pub use x0x_transport::{SessionConfig, SessionInfo, Side};
