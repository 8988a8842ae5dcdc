//! [`Membership`]: what the layers above hold.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{Clock, MachineId, PeerAddr, Protocol};
use x0x_transport::{Transport, ask};

use crate::{
    announce::{Announcer, View},
    cache::CachedPeer,
    config::MembershipConfig,
    driver::{Actor, Command},
    error::{Closed, StartError},
    metrics::MembershipMetrics,
    neighbors::{NeighborEvent, Neighbors},
    peer::Peer,
    state::HyParView,
};

/// Requests of the handle waiting for the actor; the callers wait while it is full.
const MAX_COMMANDS: usize = 16;

/// A node's place in the overlay. Clones share it; it ends with [`shutdown`](Self::shutdown), or when
/// the last clone is dropped.
///
/// A peer that stops being a neighbour keeps its session: direct messages may use it, and it is the
/// quickest way back. Sessions end by the transport's own rules.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    view: View,
    metrics: Arc<MembershipMetrics>,
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Membership {
    /// Reads the peer cache, takes the transport's membership messages, and joins the overlay. The
    /// seed must differ from node to node and from run to run.
    ///
    /// # Errors
    /// [`StartError`]: a parameter out of range, or the messages are taken already. A peer cache
    /// that cannot be read is no error; the node starts without it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        transport: Arc<dyn Transport>,
        config: MembershipConfig,
        clock: Arc<dyn Clock>,
        seed: [u8; 32],
    ) -> Result<Self, StartError> {
        let machine = HyParView::new(transport.local_id(), config.overlay.clone(), seed)?;
        let inbound = transport.inbound(Protocol::Membership)?;
        let metrics = machine.metrics();
        let announcer = Announcer::new();
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let shared = Shared {
            commands,
            view: announcer.watch(),
            metrics,
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let actor = Actor::new(transport, machine, announcer, config, clock);
        shared.tasks.spawn(actor.run(inbound, receiver, shared.stop.clone()));
        shared.tasks.close();
        Ok(Self(Arc::new(shared)))
    }

    /// The neighbours now.
    #[must_use]
    pub fn active_view(&self) -> Vec<MachineId> {
        self.0.view.active()
    }

    /// The peers known beside the neighbours, with their addresses.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn passive_view(&self) -> Result<Vec<PeerAddr>, Closed> {
        ask(&self.0.commands, Command::PassiveView).await.ok_or(Closed)
    }

    /// Every peer beside the neighbours of which more is known than hearsay, with how it is reached: the
    /// passive view, and those that answered a dial before.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn known(&self) -> Result<Vec<Peer>, Closed> {
        ask(&self.0.commands, Command::Known).await.ok_or(Closed)
    }

    /// The peers that are remembered over a restart, in the order in which they would be dialled; none where
    /// no file is kept.
    ///
    /// # Errors
    /// [`Closed`] after a shutdown.
    pub async fn cached(&self) -> Result<Vec<CachedPeer>, Closed> {
        ask(&self.0.commands, Command::Cached).await.ok_or(Closed)
    }

    /// Tells of a peer that was found beside the overlay, such as one on the same link, with its id: it is a
    /// way in, like a bootstrap peer, and a candidate when there are neighbours enough. Without effect
    /// after a shutdown.
    pub async fn introduce(&self, peer: PeerAddr) {
        let _ = self.0.commands.send(Command::Introduce(peer)).await;
    }

    /// Looks at this node's addresses and record again, for they may have changed. Without effect after a
    /// shutdown.
    pub async fn refresh(&self) {
        let _ = self.0.commands.send(Command::Refresh).await;
    }

    /// Counters of this node's overlay.
    #[must_use]
    pub fn metrics(&self) -> &Arc<MembershipMetrics> {
        &self.0.metrics
    }

    /// Takes leave of the neighbours, writes the peer cache and ends. To be called before the
    /// transport's shutdown, so that the leave still reaches them. Harmless when repeated.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.wait().await;
    }
}

impl Neighbors for Membership {
    fn active(&self) -> Vec<MachineId> {
        self.active_view()
    }

    fn events(&self) -> mpsc::Receiver<NeighborEvent> {
        self.0.view.events(&self.0.runtime)
    }
}
