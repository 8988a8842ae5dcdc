//! Request and answer bodies, one file a resource.

mod direct;
mod discovery;
mod gossip;
mod identity;
mod network;
mod pubsub;
mod status;
mod websocket;

pub use direct::*;
pub use discovery::*;
pub use gossip::*;
pub use identity::*;
pub use network::*;
pub use pubsub::*;
pub use status::*;
pub use websocket::*;
