//! A link without a network.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    interfaces::{Interface, Network},
    lan::{PORT, Station},
    link::BoxFuture,
};

/// Packets that wait for a station; more are lost.
const MAX_QUEUED: usize = 256;
/// Most stations of a link.
const MAX_STATIONS: usize = 64;

type Sender = mpsc::Sender<(SocketAddr, Bytes)>;

/// A link: what one station sends all get, itself among them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeLan(Arc<Mutex<Vec<Sender>>>);

impl FakeLan {
    /// Another station on the link.
    ///
    /// # Panics
    /// With too many.
    #[must_use]
    pub fn station(&self) -> FakeStation {
        let (sender, inbox) = mpsc::channel(MAX_QUEUED);
        let mut stations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(stations.len() < MAX_STATIONS, "a link of too many stations");
        stations.push(sender);
        FakeStation { lan: self.clone(), inbox: tokio::sync::Mutex::new(inbox) }
    }

    /// Sends a packet as anybody on the link may.
    pub fn inject(&self, from: SocketAddr, packet: &[u8]) {
        for station in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // A full queue loses packets, as links do.
            let _ = station.try_send((from, Bytes::copy_from_slice(packet)));
        }
    }
}

/// A station of a [`FakeLan`].
#[derive(Debug)]
pub struct FakeStation {
    lan: FakeLan,
    inbox: tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, Bytes)>>,
}

impl Station for FakeStation {
    fn join(&self, _: &Network) {}

    fn send(&self, via: &Interface, packet: &[u8]) {
        self.lan.inject(SocketAddr::new(via.ip, PORT), packet);
    }

    fn receive(&self) -> BoxFuture<'_, (SocketAddr, Bytes)> {
        Box::pin(async move {
            match self.inbox.lock().await.recv().await {
                Some(received) => received,
                None => std::future::pending().await,
            }
        })
    }
}
