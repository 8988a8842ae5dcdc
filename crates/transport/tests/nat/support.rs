//! Machines of a simulated internet.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{
    Inbound, InboundEvent, Node, PathKind, SessionConfig, SessionInfo, Transport,
    quic::{QuicConfig, QuicMetrics, SimNet},
    testing::{
        eventually, hello,
        nat::{NatId, NatKind, World},
    },
};

pub(crate) struct Internet {
    pub(crate) net: SimNet,
}

pub(crate) struct Machine {
    pub(crate) node: Node,
    /// Its own address, which others may not know or reach.
    pub(crate) at: SocketAddr,
    pub(crate) id: MachineId,
    pub(crate) inbox: Inbound,
    /// Counters of its engine.
    pub(crate) engine: Arc<QuicMetrics>,
}

impl Internet {
    pub(crate) fn new(seed: u64) -> Self {
        Self { net: SimNet::new(World::new(seed)) }
    }

    pub(crate) fn nat(&self, kind: NatKind) -> NatId {
        self.net.with(|world| world.nat(kind, None))
    }

    /// The `n`-th machine, somewhere.
    pub(crate) fn machine(&self, n: u64, behind: Option<NatId>) -> Machine {
        self.machine_with(n, behind, |_| {})
    }

    /// The same with other settings.
    pub(crate) fn machine_with(
        &self,
        n: u64,
        behind: Option<NatId>,
        change: impl FnOnce(&mut SessionConfig),
    ) -> Machine {
        self.machine_by(n, behind, change, |_| {})
    }

    /// One that takes streams of packets, on the internet.
    pub(crate) fn volunteer(&self, n: u64) -> Machine {
        self.machine_by(n, None, |_| {}, |config| config.streams.listen = Some(443))
    }

    /// The same with other settings of its engine.
    pub(crate) fn machine_by(
        &self,
        n: u64,
        behind: Option<NatId>,
        change: impl FnOnce(&mut SessionConfig),
        change_engine: impl FnOnce(&mut QuicConfig),
    ) -> Machine {
        let at = self.net.with(|world| world.host(behind));
        let mut config = QuicConfig::new(at, key(n));
        change_engine(&mut config);
        let engine = self.net.engine(config).expect("a socket");
        let counters = engine.metrics();
        let clock = Arc::new(self.net.clone());
        let mut config = SessionConfig::default();
        change(&mut config);
        let node = Node::start(engine, config, hello(n, 0), clock);
        let inbox = node.inbound(Protocol::Direct).expect("free");
        let id = key(n).public_key().machine_id();
        Machine { node, at, id, inbox, engine: counters }
    }
}

impl Machine {
    pub(crate) fn to(&self) -> PeerAddr {
        PeerAddr::known(self.id, [self.at])
    }

    pub(crate) async fn connect(&self, to: &Self) -> SessionInfo {
        let session = within("connect", self.node.connect(to.to())).await.expect("connects");
        to.sees(self).await;
        session
    }

    /// Waits for this end of a session.
    pub(crate) async fn has(&self, peer: &Self) {
        eventually("both ends have the session", async || self.node.session(peer.id).is_some())
            .await;
    }

    /// What the packets of the session with a peer go over.
    pub(crate) fn path(&self, peer: &Self) -> PathKind {
        self.node.session(peer.id).expect("a session").path
    }

    /// Waits for this end of a session, and for what the peer says at its beginning.
    pub(crate) async fn sees(&self, peer: &Self) {
        let told = async || {
            let session = self.node.session(peer.id);
            session.is_some_and(|session| session.observed_address.is_some())
        };
        eventually("both ends have the session", told).await;
    }

    /// Sends messages, and makes sure that they arrive, in order.
    pub(crate) async fn talk(&self, to: &mut Self, messages: u32) {
        for n in 0..messages {
            let sent = self.node.send(to.id, Protocol::Direct, message(n));
            within("send", sent).await.expect("up");
        }
        let mut next = 0;
        while next < messages {
            if let InboundEvent::Message { peer, message: got } =
                within("message", to.inbox.recv()).await.expect("the node is up")
                && peer == self.id
            {
                assert_eq!(got, message(next));
                next += 1;
            }
        }
    }
}

/// The `n`-th message, of about three packets.
fn message(n: u32) -> Bytes {
    let filled = (0..750_u32).flat_map(|at| (n ^ at.wrapping_mul(0x9e37_79b9)).to_be_bytes());
    n.to_be_bytes().into_iter().chain(filled).collect()
}

/// Waits, in virtual time, for what must come.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: no end"))
}
