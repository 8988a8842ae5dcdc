//! The service without a network, for tests of what stands above it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use x0x_core::{Clock, MachineId, PeerAddr, Protocol};
use x0x_transport::{
    BoxFuture, Inbound, InboundEvent, SessionInfo, Transport,
    error::{DialError, InboundTaken, SendError},
};

use crate::{config::DirectConfig, handle::Direct, inbox::Inbox};

/// The real service on a machine that never has a session: its agents reach each other, and every
/// other machine is [`crate::DirectError::NotConnected`].
///
/// # Panics
/// Outside a tokio runtime.
#[must_use]
pub fn loopback(
    machine: MachineId,
    config: DirectConfig,
    clock: Arc<dyn Clock>,
) -> (Direct, Inbox) {
    let transport = Arc::new(Island::new(machine));
    match Direct::start(transport, config, clock) {
        Ok(parts) => parts,
        Err(taken) => unreachable!("the transport is ours alone: {taken}"),
    }
}

/// A transport without peers.
#[derive(Debug)]
struct Island {
    machine: MachineId,
    /// Keeps the receiver of [`Transport::inbound`] open.
    inbound: Mutex<Vec<mpsc::Sender<InboundEvent>>>,
}

impl Island {
    fn new(machine: MachineId) -> Self {
        Self { machine, inbound: Mutex::default() }
    }
}

impl Transport for Island {
    fn local_id(&self) -> MachineId {
        self.machine
    }

    fn local_addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn connect(&self, _: PeerAddr) -> BoxFuture<'_, Result<SessionInfo, DialError>> {
        Box::pin(std::future::ready(Err(DialError::Timeout)))
    }

    fn disconnect(&self, _: MachineId) {}

    fn try_send(&self, _: MachineId, _: Protocol, _: Bytes) -> Result<(), SendError> {
        Err(SendError::NotConnected)
    }

    fn send(&self, _: MachineId, _: Protocol, _: Bytes) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(std::future::ready(Err(SendError::NotConnected)))
    }

    fn inbound(&self, _: Protocol) -> Result<Inbound, InboundTaken> {
        let (sender, receiver) = mpsc::channel(1);
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok(receiver)
    }

    fn session(&self, _: MachineId) -> Option<SessionInfo> {
        None
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }
}
