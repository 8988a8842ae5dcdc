//! Interfaces that a test moves.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::{
    interfaces::{InterfaceSource, Network},
    link::BoxFuture,
};

/// The interfaces of a machine that is somewhere else whenever a test says so. Clones share them.
#[derive(Debug, Clone)]
pub struct FakeInterfaces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    network: Mutex<Network>,
    changed: Notify,
}

impl FakeInterfaces {
    /// At first these.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self(Arc::new(Inner { network: Mutex::new(network), changed: Notify::new() }))
    }

    /// These from now on, and a notice of it.
    pub fn set(&self, network: Network) {
        *self.0.network.lock().unwrap_or_else(PoisonError::into_inner) = network;
        self.0.changed.notify_one();
    }

    /// How many other clones there are: those that follow the interfaces.
    #[must_use]
    pub fn followers(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl InterfaceSource for FakeInterfaces {
    fn scan(&self) -> Option<Network> {
        Some(self.0.network.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.changed.notified())
    }
}
