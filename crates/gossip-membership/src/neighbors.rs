//! The narrow trait that the layers above hold.

use x0x_core::MachineId;

/// A change of the active view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NeighborEvent {
    /// A peer is a neighbour from now on.
    Up(MachineId),
    /// A peer is no neighbour any more.
    Down(MachineId),
}

/// Who this node's neighbours are.
#[cfg(feature = "tokio")]
pub trait Neighbors: Send + Sync + std::fmt::Debug + 'static {
    /// The active view now.
    fn active(&self) -> Vec<MachineId>;

    /// The changes of the active view, for one more consumer. The view at the time of the call comes
    /// first as `Up`s, then `Up` and `Down` of a peer alternate. A consumer that lags gets fewer
    /// events, never wrong ones: applied in order they always give the view at some time, and the
    /// present one once it caught up. A link that was lost and made again in between is still seen
    /// as `Down` and `Up`. The channel ends with the node, after a `Down` for each neighbour.
    fn events(&self) -> tokio::sync::mpsc::Receiver<NeighborEvent>;
}
