//! Request and answer bodies, one file a resource.

mod direct;
mod discovery;
mod identity;
mod network;
mod pubsub;
mod status;
mod websocket;

pub use direct::*;
pub use discovery::*;
pub use identity::*;
pub use network::*;
pub use pubsub::*;
pub use status::*;
pub use websocket::*;
