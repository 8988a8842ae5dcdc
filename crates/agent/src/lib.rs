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
mod certified;
mod config;
mod consumers;
mod directory;
mod effects;
mod error;
mod files;
mod groups;
mod identity;
mod lan;
mod letters;
mod mail;
mod mailbox;
mod messaging;
pub mod objects;
mod owner;
mod portmap;
mod presence;
mod proofs;
mod reach;
mod role;
mod sealed_letters;
mod sought;
#[cfg(feature = "test-util")]
pub mod testing;
mod topic_peers;
mod topics;
pub mod trust;

pub use agent::{Agent, GossipDiagnostics, Troubles};
pub use builder::AgentBuilder;
pub use config::{AgentConfig, Storage};
pub use consumers::{
    Ack, Begin, ConsumerStatus, InboxError, Lease, MAX_CONSUMERS, MAX_TAKEN, Taken,
};
pub use directory::{ConnectKind, ConnectOutcome};
pub use error::{SendDirectError, StartError};
pub use files::FileEvents;
pub use identity::{IdentityError, ImportCardError, ImportedCard, RevokeWhat};
pub use letters::{LETTER_LIFETIME, LetterOptions, MAX_LETTER_LIFETIME, RequestError};
pub use mailbox::{DirectEvent, DirectEvents, MAX_MAILBOX_BYTES, MAX_MAILBOX_MESSAGES};
pub use messaging::{
    AgentPublishError, AgentSubscribeError, AgentWaitError, DirectReceipt, MAX_TOPIC_NAME,
    QueuedDirect, TopicNameError,
};

pub use reach::{MAX_PROBE_TIME, ProbeError, Punches, Relaying};
pub use role::Role;
pub use topics::MAX_TOPIC_NAMES;
pub use trust::Subscription;
pub use x0x_core::{AgentId, MachineId, Metric, MetricKind, UserId, WallTime};
pub use x0x_direct::{
    DirectError, DirectMessage, Kind, LetterEvent, MessageId, Quotas, RefuseReason, Share, Terms,
    letters::{Gap as LetterGap, LettersConfig, LettersStatus, NotLeft},
    mail::{
        Claimed, HistoryEntry, HistoryPage, HistoryPlace, HistoryQuery, Letter, LetterState,
        MailError, Retention as MailRetention,
    },
    outbox::{CancelError, PostError},
};
pub use x0x_files::{
    AcceptRule, Change as TransferChange, ChangeTransferError, Changed as TransferChanged,
    Direction as TransferDirection, FileEvent, Phase as TransferPhase, Record as TransferRecord,
    SendFile, SendFileError, TransferId, TransferInfo, Waiting as TransferWaiting,
    tree::{GROUP as TRANSFER_CHUNK, groups as transfer_chunks},
};
pub use x0x_gossip_crdt::{kv, tasks};
pub use x0x_gossip_pubsub::{
    Accepted, Cursor, Delivery, Limits as GossipLimits, LinkSnapshot, Message, PubSubMetrics,
    PublishError, Published, Retention, Start, SubscribeError, TopicSnapshot, WaitError,
};
pub use x0x_groups as named_groups;
pub use x0x_identity::{
    AgentLink, Audience, Card, Replace, Service, SignedCard, SignedRevocation, TextError,
    private_file,
};
pub use x0x_presence::{
    Events as PresenceEvents, FindError as WalkError, PresenceConfig, PresenceEvent, PresenceState,
    Status as PresenceStatus,
};
pub use x0x_rendezvous::{AnnounceError, DiscoveredAgent, FindError};
pub use x0x_store::Durability;
pub use x0x_transport::{
    ExternalAddress, Mapping, PathKind, Reach, ReachClass, SessionConfig, SessionInfo, Side,
    quic::StreamConfig,
};
