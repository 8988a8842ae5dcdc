//! The narrow trait that the layers above hold, and its types.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, PeerAddr, Protocol};

pub use crate::link::{BoxFuture, Side};

use crate::{
    error::{DialError, InboundTaken, SendError},
    reach::Reach,
    record::SignedRecord,
};

/// Authenticated, encrypted, ordered message streams to other machines.
///
/// There is at most one session per peer, whoever dialled. Messages of one [`Protocol`] arrive in
/// the order they were sent; different stream classes do not wait for each other.
///
/// Within a session nothing is lost. What is in flight when one ends may be, unless this end ended it
/// ([`disconnect`](Self::disconnect)): layers that must know confirm.
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// This machine.
    fn local_id(&self) -> MachineId;

    /// Socket addresses where this machine listens, wildcards replaced by usable addresses.
    fn local_addresses(&self) -> Vec<SocketAddr>;

    /// How this machine is reached, as far as its peers let it know: its addresses on the internet, what a
    /// translator before it does, and its class. Nothing is known where nobody tells.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// This machine's signed record of these addresses and of the external ones that are confirmed, for third parties; made anew when the addresses
    /// changed, its peers show that it is reached in another way, or half of its validity is over. `None` where there is no key to sign with.
    fn record(&self) -> Option<SignedRecord> {
        None
    }

    /// Opens a session, or returns the one that exists. The peer has proven itself and its agents by then, and messages may
    /// be sent; whether the peer wants the session shows half a round trip later: one that it refuses ends.
    fn connect(&self, to: PeerAddr) -> BoxFuture<'_, Result<SessionInfo, DialError>>;

    /// Ends the session with a peer, if there is one: what was queued for it is still sent, within a
    /// second, and nothing more is taken.
    fn disconnect(&self, peer: MachineId);

    /// Ends the session with a peer that is refused, if there is one: at once, and nothing that is queued
    /// for it is sent any more.
    fn expel(&self, peer: MachineId) {
        self.disconnect(peer);
    }

    /// Says whether a layer, named by its protocol, needs the session with a peer to stay when nothing
    /// is sent on it. Sessions that nobody holds are closed when they are idle and too many. What is
    /// held stays held across sessions, until it is let go. Without effect where sessions are never
    /// closed for that reason.
    fn hold(&self, peer: MachineId, holder: Protocol, held: bool) {
        let _ = (peer, holder, held);
    }

    /// Queues a message, never waiting.
    ///
    /// # Errors
    /// [`SendError::Busy`] when the peer's queue is full: the peer is slow. Nothing was queued.
    fn try_send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> Result<(), SendError>;

    /// Queues a message, waiting while the peer's queue is full.
    fn send(
        &self,
        peer: MachineId,
        protocol: Protocol,
        message: Bytes,
    ) -> BoxFuture<'_, Result<(), SendError>>;

    /// Takes the one receiver of a protocol's sessions and messages. Sessions that are up already
    /// are announced on it first.
    ///
    /// # Errors
    /// [`InboundTaken`] when another consumer holds it.
    fn inbound(&self, protocol: Protocol) -> Result<Inbound, InboundTaken>;

    /// The session with a peer.
    fn session(&self, peer: MachineId) -> Option<SessionInfo>;

    /// How many packets came over the session with a peer so far, whatever was in them: a number that
    /// grows shows that the peer lives. `None` without a session, or where packets are not counted.
    fn received(&self, peer: MachineId) -> Option<u64> {
        let _ = peer;
        None
    }

    /// All sessions, by machine id.
    fn sessions(&self) -> Vec<SessionInfo>;
}

/// One protocol's view of the sessions: for each peer `Up`, then its messages in order, then `Down`.
///
/// The channel is bounded. While its consumer lags, the transport stops reading that protocol's
/// streams, and QUIC flow control slows the sender down; nothing is dropped.
pub type Inbound = tokio::sync::mpsc::Receiver<InboundEvent>;

/// What arrives on an [`Inbound`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum InboundEvent {
    /// A session with this peer begins.
    Up(SessionInfo),
    /// A message from a peer whose session is up.
    Message {
        /// The authenticated sender.
        peer: MachineId,
        /// The message, at most [`x0x_core::StreamClass::max_message`] bytes. It may share memory
        /// with its neighbours on the stream: copy what is kept for long.
        message: Bytes,
    },
    /// Room again in this peer's queue, after a [`SendError::Busy`] of this protocol's class.
    Writable(MachineId),
    /// The session with this peer ended. No message of it follows.
    Down(MachineId),
}

/// What the packets of a session go over. It may change while the session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathKind {
    /// From this machine to the peer's address, whatever translators are between them.
    Direct,
    /// In a TCP stream to the peer's address, since packets of their own do not pass.
    Stream,
    /// By way of another machine, which sees ciphertext alone.
    Relayed {
        /// That machine.
        via: MachineId,
    },
}

/// A session as seen from this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The peer, proven by its TLS key.
    pub peer: MachineId,
    /// Agents that the peer proved in its session hello, at most [`crate::MAX_AGENTS`].
    pub agents: Vec<AgentId>,
    /// Counts this machine's sessions; a later session with the same peer has a greater number.
    pub generation: u64,
    /// Who opened the connection.
    pub side: Side,
    /// Where the peer's packets come from; those of a relayed session come from the relay.
    pub remote_address: SocketAddr,
    /// What its packets go over now.
    pub path: PathKind,
    /// Addresses where the peer says that it listens, as far as they are plausible; for dialling it
    /// again.
    pub listen_addresses: Vec<SocketAddr>,
    /// The path's smoothed round-trip time.
    pub rtt: Duration,
    /// This machine's address as the peer sees it. One peer's word: a hint, not a fact.
    pub observed_address: Option<SocketAddr>,
}

impl SessionInfo {
    /// Where to dial this peer again: the address it dialled from is only useful when it is also
    /// one it listens on, so its own addresses come first.
    #[must_use]
    pub fn peer_addr(&self) -> PeerAddr {
        let direct = matches!(self.path, PathKind::Direct | PathKind::Stream);
        let dialled = self.side == Side::Dialer && direct;
        let seen = dialled.then_some(self.remote_address);
        PeerAddr::known(self.peer, seen.into_iter().chain(self.listen_addresses.iter().copied()))
    }
}
