//! The tokio shell: a socket to the gateway, and a timer.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Machine};

use super::{
    Gateways, Input, Lease, Output, PortMap, PortMapMetrics, Way,
    wire::{MAX_PACKET, Nonce},
};
use crate::interfaces::NetworkWatch;

/// The port at which gateways are asked (RFC 6886 §3, RFC 6887 §19.1).
pub const GATEWAY_PORT: u16 = 5351;

/// What is mapped, and where it is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PortMapConfig {
    /// The UDP port of this machine.
    pub port: u16,
    /// The UDP port of gateways. Default [`GATEWAY_PORT`].
    pub gateway_port: u16,
    /// What is counted.
    pub metrics: Arc<PortMapMetrics>,
}

impl PortMapConfig {
    /// For a UDP port of this machine.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { port, gateway_port: GATEWAY_PORT, metrics: Arc::default() }
    }
}

/// A socket that takes packets of the gateway only.
struct Wire {
    way: Way,
    socket: UdpSocket,
}

struct Driver<F> {
    machine: PortMap,
    config: PortMapConfig,
    clock: Arc<dyn Clock>,
    wire: Option<Wire>,
    told: F,
}

/// Keeps a port mapped at whatever gateway there is, and says each lease and its end, until it is told to stop; then
/// gives the port back.
pub async fn run(
    config: PortMapConfig,
    gateways: impl Gateways,
    mut network: NetworkWatch,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    told: impl FnMut(Option<Lease>) + Send,
) {
    let machine = PortMap::new(config.port, Arc::clone(&config.metrics));
    let mut driver = Driver { machine, config, clock, wire: None, told };
    driver.look(&gateways, &mut network).await;
    let mut watched = true;
    loop {
        let due = driver.machine.poll_timeout().map(|due| due.since(driver.clock.now()));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = network.changed(), if watched => {
                // Whoever followed the interfaces is gone: the last way holds.
                watched = changed.is_ok();
                if watched {
                    driver.look(&gateways, &mut network).await;
                }
            }
            received = receive(driver.wire.as_ref()) => driver.received(received).await,
            () = timer => driver.timeout().await,
        }
    }
    driver.handle(Input::Release).await;
}

async fn receive(wire: Option<&Wire>) -> io::Result<Vec<u8>> {
    let Some(wire) = wire else { return std::future::pending().await };
    // One more shows that a packet is too long.
    let mut packet = vec![0; MAX_PACKET + 1];
    let len = wire.socket.recv(&mut packet).await?;
    packet.truncate(len);
    Ok(packet)
}

impl<F: FnMut(Option<Lease>) + Send> Driver<F> {
    async fn look(&mut self, gateways: &impl Gateways, network: &mut NetworkWatch) {
        let now = Arc::clone(&network.borrow_and_update());
        let mut nonce: Nonce = [0; 12];
        // Without randomness nothing is asked: anybody could answer.
        let way = getrandom::fill(&mut nonce).ok().and_then(|()| gateways.way(&now));
        self.handle(Input::Way { way, nonce }).await;
    }

    async fn received(&mut self, received: io::Result<Vec<u8>>) {
        match received {
            Ok(packet) => self.handle(Input::Received(packet)).await,
            Err(error) => self.failed(&error),
        }
    }

    /// Such as that nobody listens at the gateway's port. The next question opens another socket.
    fn failed(&mut self, error: &io::Error) {
        tracing::debug!(%error, "the gateway cannot be asked");
        self.config.metrics.socket_errors.inc();
        self.wire = None;
    }

    async fn timeout(&mut self) {
        self.machine.handle_timeout(self.clock.now());
        self.carry().await;
    }

    async fn handle(&mut self, input: Input) {
        self.machine.handle(self.clock.now(), input);
        self.carry().await;
    }

    async fn carry(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { way, packet } => {
                    if let Err(error) = self.send(way, &packet).await {
                        self.failed(&error);
                    }
                }
                Output::Lease(lease) => (self.told)(lease),
            }
        }
    }

    async fn send(&mut self, way: Way, packet: &[u8]) -> io::Result<()> {
        let wire = match self.wire.take().filter(|wire| wire.way == way) {
            Some(wire) => wire,
            None => {
                let socket = UdpSocket::bind(SocketAddr::new(way.own.into(), 0)).await?;
                socket.connect((way.gateway, self.config.gateway_port)).await?;
                Wire { way, socket }
            }
        };
        wire.socket.send(packet).await?;
        self.wire = Some(wire);
        Ok(())
    }
}
