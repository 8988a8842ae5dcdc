//! From the one active view to any number of consumers, each at its own pace.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use x0x_core::MachineId;

use crate::neighbors::NeighborEvent;

/// Events that wait for one consumer; then its view is brought up to date when it reads on.
const MAX_EVENTS: usize = 32;

/// The neighbours, each with the number of its link, so that a link made anew is told apart.
pub(crate) type Links = Arc<[(MachineId, u64)]>;

/// Where the active view is published.
#[derive(Debug)]
pub(crate) struct Announcer {
    links: Vec<(MachineId, u64)>,
    count: u64,
    view: watch::Sender<Links>,
}

impl Announcer {
    /// An empty view.
    pub(crate) fn new() -> Self {
        Self { links: Vec::new(), count: 0, view: watch::Sender::new(Links::default()) }
    }

    /// Applies changes and publishes the result, once.
    pub(crate) fn apply(&mut self, events: impl IntoIterator<Item = NeighborEvent>) {
        let mut changed = false;
        for event in events {
            changed = true;
            match event {
                NeighborEvent::Up(id) => {
                    self.count += 1;
                    self.links.retain(|(known, _)| *known != id);
                    self.links.push((id, self.count));
                }
                NeighborEvent::Down(id) => self.links.retain(|(known, _)| *known != id),
            }
        }
        if changed {
            self.view.send_replace(self.links.as_slice().into());
        }
    }

    /// A view of the view.
    pub(crate) fn watch(&self) -> View {
        View(self.view.subscribe())
    }
}

/// The active view as consumers see it.
#[derive(Debug, Clone)]
pub(crate) struct View(watch::Receiver<Links>);

impl View {
    pub(crate) fn active(&self) -> Vec<MachineId> {
        self.0.borrow().iter().map(|(id, _)| *id).collect()
    }

    /// Starts a task that tells one consumer of the changes, until either side ends.
    pub(crate) fn events(&self, runtime: &Handle) -> mpsc::Receiver<NeighborEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        runtime.spawn(announce(self.0.clone(), sender));
        receiver
    }
}

async fn announce(mut view: watch::Receiver<Links>, events: mpsc::Sender<NeighborEvent>) {
    let mut told = Links::default();
    loop {
        let links = view.borrow_and_update().clone();
        for event in changes(&told, &links) {
            if events.send(event).await.is_err() {
                return;
            }
        }
        told = links;
        tokio::select! {
            biased;
            () = events.closed() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// What leads from one view to another.
fn changes(from: &[(MachineId, u64)], to: &[(MachineId, u64)]) -> Vec<NeighborEvent> {
    let gone = from.iter().filter(|link| !to.contains(link));
    let new = to.iter().filter(|link| !from.contains(link));
    let downs = gone.map(|(id, _)| NeighborEvent::Down(*id));
    downs.chain(new.map(|(id, _)| NeighborEvent::Up(*id))).collect()
}

#[cfg(test)]
mod tests {
    use NeighborEvent::{Down, Up};

    use super::*;

    fn id(n: u8) -> MachineId {
        MachineId::new([n; 32])
    }

    #[tokio::test]
    async fn every_consumer_starts_with_the_view_and_hears_of_the_end() {
        let mut announcer = Announcer::new();
        announcer.apply([Up(id(1)), Up(id(2))]);
        let view = announcer.watch();
        let mut events = view.events(&Handle::current());
        assert_eq!(events.recv().await, Some(Up(id(1))));
        assert_eq!(events.recv().await, Some(Up(id(2))));
        announcer.apply([Down(id(1))]);
        assert_eq!(events.recv().await, Some(Down(id(1))));
        let mut late = view.events(&Handle::current());
        assert_eq!(late.recv().await, Some(Up(id(2))));
        announcer.apply([Down(id(2))]);
        drop(announcer);
        assert_eq!(events.recv().await, Some(Down(id(2))));
        assert_eq!(events.recv().await, None);
        assert!(view.active().is_empty());
    }

    #[tokio::test]
    async fn a_lagging_consumer_ends_with_the_present_view() {
        let mut announcer = Announcer::new();
        let view = announcer.watch();
        let mut events = view.events(&Handle::current());
        for round in 0..100_u8 {
            announcer.apply([Up(id(round)), Up(id(200))]);
            announcer.apply([Down(id(round)), Down(id(200))]);
            tokio::task::yield_now().await;
        }
        announcer.apply([Up(id(200)), Up(id(201))]);
        drop(announcer);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(event) = events.recv().await {
            match event {
                Up(id) => assert!(seen.insert(id), "up twice"),
                Down(id) => assert!(seen.remove(&id), "down before up"),
            }
        }
        assert_eq!(seen, [id(200), id(201)].into());
    }

    #[test]
    fn a_link_made_anew_is_down_and_up() {
        let (old, new) = ([(id(1), 1), (id(2), 2)], [(id(2), 2), (id(1), 3)]);
        assert_eq!(changes(&old, &new), [Down(id(1)), Up(id(1))]);
        assert_eq!(changes(&new, &new), []);
    }
}
