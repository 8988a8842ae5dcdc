//! What a node runs above its overlay: the production machine, a reference model or an adversary.

use bytes::Bytes;
use x0x_core::{PeerAddr, Tick, WallTime};

use super::{
    announce::Reader,
    ids::Node,
    ledger::Ledger,
    net::{Class, Net, Refusal},
    objects::Replica,
    production::Disk,
};

/// What a protocol acts on.
pub(super) struct Context<'world> {
    pub(super) net: &'world mut Net,
    pub(super) ledger: &'world mut Ledger,
    /// The node that acts.
    pub(super) me: Node,
    /// By its own clock.
    pub(super) wall: WallTime,
}

impl Context<'_> {
    pub(super) const fn now(&self) -> Tick {
        self.net.now()
    }

    pub(super) fn send(
        &mut self,
        to: Node,
        class: Class,
        size: usize,
        frame: Bytes,
    ) -> Result<(), Refusal> {
        self.net.send(self.me, to, class, size, frame)
    }
}

/// A message to be published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// Bytes of its payload.
    pub(super) payload: usize,
    /// Whether it counts.
    pub(super) measured: bool,
    /// Honest nodes that are there.
    pub(super) expected: u32,
}

/// A gossip protocol of one node.
pub(super) trait Protocol {
    /// The node starts; nothing is linked yet.
    fn start(&mut self, context: &mut Context<'_>);
    /// A peer is a neighbour from now on, or no longer.
    fn link(&mut self, context: &mut Context<'_>, peer: Node, up: bool);
    /// A frame of a peer.
    fn frame(&mut self, context: &mut Context<'_>, peer: Node, class: Class, frame: Bytes);
    /// A peer's queue that refused a frame has room.
    fn writable(&mut self, _: &mut Context<'_>, _: Node) {}
    /// Publishes; `None` when that has to wait, else the message's number.
    fn publish(&mut self, context: &mut Context<'_>, order: Order) -> Option<u32>;
    /// The signer is done.
    fn signed(&mut self, _: &mut Context<'_>) {}
    /// A session with a peer begins or ends, neighbour or not.
    fn session(&mut self, _: &mut Context<'_>, _: Node, _: bool) {}
    /// A dial that it asked for ended.
    fn dialled(&mut self, _: &mut Context<'_>, _: &PeerAddr, _: bool) {}
    /// The time of [`due`](Self::due) has come.
    fn timeout(&mut self, context: &mut Context<'_>);
    /// When to be called next.
    fn due(&self) -> Option<Tick>;
    /// What survives a crash, if anything.
    fn take_disk(&mut self) -> Option<Disk> {
        None
    }
    /// What it keeps above the topic, if anything.
    fn replica(&self) -> Option<&Replica> {
        None
    }
    /// The same of a group.
    fn reader(&self) -> Option<&Reader> {
        None
    }
}
