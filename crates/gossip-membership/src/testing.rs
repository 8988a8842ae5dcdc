//! The fake of [`Neighbors`], for tests of the layers above.

use std::sync::{Mutex, PoisonError};

use tokio::{runtime::Handle, sync::mpsc};
use x0x_core::MachineId;

use crate::{
    announce::Announcer,
    neighbors::{NeighborEvent, Neighbors},
};

/// Neighbours that change only when the test says so.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use x0x_core::MachineId;
/// use x0x_gossip_membership::{NeighborEvent, Neighbors, testing::StaticNeighbors};
///
/// let (a, b) = (MachineId::new([1; 32]), MachineId::new([2; 32]));
/// let neighbours = StaticNeighbors::new([a]);
/// let mut events = neighbours.events();
/// neighbours.up(b);
/// assert_eq!(events.recv().await, Some(NeighborEvent::Up(a)));
/// assert_eq!(events.recv().await, Some(NeighborEvent::Up(b)));
/// # }
/// ```
#[derive(Debug)]
pub struct StaticNeighbors(Mutex<Announcer>);

impl StaticNeighbors {
    /// With these neighbours.
    #[must_use]
    pub fn new(active: impl IntoIterator<Item = MachineId>) -> Self {
        let mut announcer = Announcer::new();
        announcer.apply(active.into_iter().map(NeighborEvent::Up));
        Self(Mutex::new(announcer))
    }

    /// Makes a peer a neighbour.
    pub fn up(&self, id: MachineId) {
        self.apply(NeighborEvent::Up(id));
    }

    /// Drops a neighbour.
    pub fn down(&self, id: MachineId) {
        self.apply(NeighborEvent::Down(id));
    }

    fn apply(&self, event: NeighborEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply([event]);
    }
}

impl Neighbors for StaticNeighbors {
    fn active(&self) -> Vec<MachineId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).watch().active()
    }

    fn events(&self) -> mpsc::Receiver<NeighborEvent> {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner).watch();
        view.events(&Handle::current())
    }
}
