//! Request and answer bodies, one file a resource.

mod card;
mod contacts;
mod direct;
mod discovery;
mod files;
mod gossip;
mod identity;
mod inbox;
mod letters;
mod network;
mod objects;
mod peers;
mod presence;
mod pubsub;
mod status;
mod stores;
mod tasks;
mod websocket;

pub use card::*;
pub use contacts::*;
pub use direct::*;
pub use discovery::*;
pub use files::*;
pub use gossip::*;
pub use identity::*;
pub use inbox::*;
pub use letters::*;
pub use network::*;
pub use objects::*;
pub use peers::*;
pub use presence::*;
pub use pubsub::*;
pub use status::*;
pub use stores::*;
pub use tasks::*;
pub use websocket::*;
