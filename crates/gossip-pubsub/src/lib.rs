//! Topic logs of signed runs, and their dissemination.

mod config;
mod error;
mod link;
mod log;
mod metrics;
mod publisher;
mod run;
mod state;
mod subscriber;
mod time;
mod wire;

pub use config::{
    ENTRY_OVERHEAD, Limits, MAX_EPOCHS, MAX_FRAME, MAX_HEADS, MAX_PAYLOAD, MAX_RUN_BYTES,
    MAX_RUN_ENTRIES, MAX_SUBSCRIBED_TOPICS, RUN_OVERHEAD,
};
pub use error::{PublishError, StartError, SubscribeError, VerifyError, WireError};
pub use metrics::PubSubMetrics;
pub use publisher::{Publisher, epoch_at};
pub use run::{
    CLASS_STANDARD, Entry, EntryHash, NetworkId, RUN_DOMAIN, Run, RunBody, RunIn, UnsignedRun,
    topic_id,
};
pub use state::{CheckedRun, Equivocation, Input, Output, PendingRun, PubSubMachine};
pub use subscriber::{Batch, Delivery, Message, Start, SubscriptionId};
pub use time::HybridTime;
pub use wire::{FrameIn, PublishIn, SubscriptionsIn, WantIn};

#[cfg(feature = "test-util")]
pub mod testing;
