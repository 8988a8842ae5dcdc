//! Which sessions are links: those of the overlay's neighbours.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use x0x_core::MachineId;
use x0x_gossip_membership::NeighborEvent;

use crate::state::Input;

/// Neighbours and sessions. A neighbour's session may be announced before or after it.
#[derive(Debug)]
pub(crate) struct Links {
    events: Option<mpsc::Receiver<NeighborEvent>>,
    /// Every session is a link.
    all: bool,
    neighbors: BTreeSet<MachineId>,
    sessions: BTreeSet<MachineId>,
}

impl Links {
    /// Links to neighbours; to every session when there is no membership layer.
    pub(crate) fn new(events: Option<mpsc::Receiver<NeighborEvent>>) -> Self {
        let all = events.is_none();
        Self { events, all, neighbors: BTreeSet::new(), sessions: BTreeSet::new() }
    }

    /// The next change of the overlay. Pending for ever when there are no more. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> NeighborEvent {
        if let Some(events) = &mut self.events {
            if let Some(event) = events.recv().await {
                return event;
            }
            self.events = None;
        }
        std::future::pending().await
    }

    /// What a change of the overlay means for the machine.
    pub(crate) fn neighbor(&mut self, event: NeighborEvent) -> Option<Input> {
        match event {
            NeighborEvent::Up(peer) => {
                self.neighbors.insert(peer);
                self.sessions.contains(&peer).then_some(Input::LinkUp(peer))
            }
            NeighborEvent::Down(peer) => {
                self.neighbors.remove(&peer);
                self.sessions.contains(&peer).then_some(Input::LinkLeft(peer))
            }
            _ => None,
        }
    }

    /// A session begins: whether it is a link.
    pub(crate) fn session_up(&mut self, peer: MachineId) -> bool {
        self.sessions.insert(peer);
        self.all || self.neighbors.contains(&peer)
    }

    /// A session ended.
    pub(crate) fn session_down(&mut self, peer: &MachineId) {
        self.sessions.remove(peer);
    }

    /// The sessions.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.sessions.iter().copied()
    }
}
