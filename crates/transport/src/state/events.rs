//! What [`Sessions`](super::Sessions) hears, and what it asks for.

use std::net::SocketAddr;

use x0x_core::{MachineId, PeerAddr, Tick};

use super::{AttemptId, LinkId, Means, RequestId};
use crate::{
    error::DialError,
    link::{LinkClosed, Side},
    wire::{CloseCode, Hello},
};

/// A link that came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkUp {
    /// Its number.
    pub link: LinkId,
    /// The peer's proven id.
    pub peer: MachineId,
    /// The peer's address.
    pub address: SocketAddr,
    /// Whether a layer above needs a session with the peer.
    pub held: bool,
}

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// Somebody wants a session.
    Connect {
        /// Who waits for the outcome.
        request: RequestId,
        /// With whom.
        to: PeerAddr,
    },
    /// Who asked for a session does not wait for it any more.
    GaveUp(RequestId),
    /// An attempt ended.
    Dialled {
        /// Which one.
        attempt: AttemptId,
        /// The link, or why there is none.
        result: Result<LinkUp, DialError>,
    },
    /// A peer opened a link.
    Accepted(LinkUp),
    /// The peer's hello was verified.
    Hello {
        /// On which link.
        link: LinkId,
        /// What it says.
        hello: Hello,
    },
    /// The peer's keep arrived.
    Keep {
        /// On which link.
        link: LinkId,
        /// The arbiter's number of the session.
        number: u64,
    },
    /// The driver refused what the peer sent, and counted why.
    Refused {
        /// On which link.
        link: LinkId,
        /// The code to close it with.
        code: CloseCode,
    },
    /// A link ended.
    LinkClosed {
        /// Which one.
        link: LinkId,
        /// Why.
        reason: LinkClosed,
    },
    /// The session with a peer is not wanted any more; what to tell it.
    Disconnect(MachineId, CloseCode),
    /// Which sessions are in use now; those left out keep what was told of them.
    Usage(Vec<Usage>),
    /// What became of an [`Output::Punch`].
    Punched {
        /// Who was to be reached.
        peer: MachineId,
        /// Where the peer answers, if it does.
        found: Option<SocketAddr>,
    },
    /// The peer of an [`Output::Punch`] is there, and sends at once with this machine: whether anything gets through shows in
    /// a round trip or two.
    PunchAgreed(MachineId),
    /// What became of an [`Output::Relay`].
    Relayed {
        /// Who was to be reached.
        peer: MachineId,
        /// The address that stands for the way by a relay, if there is one.
        found: Option<SocketAddr>,
    },
    /// This machine's addresses changed to these.
    LocalAddresses(Vec<SocketAddr>),
    /// Everything ends.
    Shutdown,
}

/// How a session is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// With whom.
    pub peer: MachineId,
    /// When a message of a class other than control last went, or was taken by its consumer.
    pub used: Tick,
    /// Whether a layer above needs it to stay.
    pub held: bool,
}

/// What the machine asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Dial an address, and answer with [`Input::Dialled`].
    Dial {
        /// Which attempt it is.
        attempt: AttemptId,
        /// Where.
        address: SocketAddr,
        /// What the packets shall go over.
        by: Means,
        /// Who must be there.
        expected: Option<MachineId>,
    },
    /// Find out where a peer can be dialled, with the help of others, and answer with
    /// [`Input::Punched`].
    Punch(MachineId),
    /// That need not be found out any more.
    PunchOver(MachineId),
    /// Find a machine that relays to a peer, and answer with [`Input::Relayed`].
    Relay(MachineId),
    /// That is not wanted any more.
    RelayOver(MachineId),
    /// Give an attempt up. It may still answer.
    Abort(AttemptId),
    /// Send this end's hello.
    SendHello {
        /// On which link.
        link: LinkId,
        /// Whether to ask for the replacement of the session.
        replace: bool,
    },
    /// Send keep.
    SendKeep {
        /// On which link.
        link: LinkId,
        /// Counts this end's sessions.
        number: u64,
    },
    /// A link became the session with its peer.
    Up(SessionUp),
    /// The peer took the early session on the link on which it began.
    Taken {
        /// That link.
        link: LinkId,
        /// The peer.
        peer: MachineId,
    },
    /// It took it on another link: what was sent on the first one is to be sent again on that.
    Moved {
        /// Where the session began. The link may have ended.
        from: LinkId,
        /// Where it is now.
        to: LinkId,
        /// Who opened that.
        side: Side,
        /// The peer.
        peer: MachineId,
    },
    /// The session on this link ended.
    Down {
        /// Which link.
        link: LinkId,
        /// Whose session it was.
        peer: MachineId,
    },
    /// Close a link. Nothing is expected from it any more.
    Close {
        /// Which one.
        link: LinkId,
        /// The code to tell the peer.
        code: CloseCode,
    },
    /// A connect succeeded: the session with this peer is up.
    Connected {
        /// Who waits.
        request: RequestId,
        /// The peer.
        peer: MachineId,
    },
    /// A connect failed.
    Failed {
        /// Who waits.
        request: RequestId,
        /// Why.
        error: DialError,
    },
}

/// A new session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionUp {
    /// The link that carries it.
    pub link: LinkId,
    /// With whom.
    pub peer: MachineId,
    /// Counts this machine's sessions.
    pub generation: u64,
    /// Who opened the link.
    pub side: Side,
    /// What the peer said of itself.
    pub hello: Hello,
    /// The peer has not taken it yet.
    pub early: bool,
}
