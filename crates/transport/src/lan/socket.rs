//! The system's sockets for multicast DNS, shared with other programs of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::{PORT, Station, wire::MAX_PACKET};
use crate::{
    interfaces::{Interface, Network},
    link::BoxFuture,
};

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Packets that a router passed on have less (RFC 6762 §11).
const TTL: u32 = 255;
/// Most bytes that wait to be read.
const BUFFER: usize = 64 << 10;
/// How long a socket that fails is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// This machine on its links, of both families as far as the system has them.
#[derive(Debug)]
pub struct SystemStation {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl SystemStation {
    /// Binds the port.
    ///
    /// # Errors
    /// When the system allows it for neither family, such as when another program keeps the port for itself.
    pub fn open() -> io::Result<Self> {
        match (bind(Ipv4Addr::UNSPECIFIED.into()), bind(Ipv6Addr::UNSPECIFIED.into())) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(Self { v4: v4.ok(), v6: v6.ok() }),
        }
    }
}

fn bind(any: IpAddr) -> io::Result<UdpSocket> {
    let at = SocketAddr::new(any, PORT);
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    // Other daemons of this machine are found as well.
    if any.is_ipv4() {
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(TTL)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(true)?;
        socket.set_multicast_hops_v6(TTL)?;
    }
    // Best effort, like the buffer of any socket.
    let _ = socket.set_recv_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}

impl Station for SystemStation {
    fn join(&self, network: &Network) {
        for interface in network.interfaces().iter().filter(|interface| interface.shared) {
            // What was joined before is refused, and stays joined.
            let _ = match (interface.ip, &self.v4, &self.v6) {
                (IpAddr::V4(ip), Some(v4), _) => {
                    SockRef::from(v4).join_multicast_v4(&GROUP_V4, &ip)
                }
                (IpAddr::V6(_), _, Some(v6)) => {
                    SockRef::from(v6).join_multicast_v6(&GROUP_V6, interface.index)
                }
                _ => Ok(()),
            };
        }
    }

    fn send(&self, via: &Interface, packet: &[u8]) {
        let sent = match (via.ip, &self.v4, &self.v6) {
            (IpAddr::V4(ip), Some(v4), _) => SockRef::from(v4)
                .set_multicast_if_v4(&ip)
                .and_then(|()| v4.try_send_to(packet, (GROUP_V4, PORT).into())),
            (IpAddr::V6(_), _, Some(v6)) => SockRef::from(v6)
                .set_multicast_if_v6(via.index)
                .and_then(|()| v6.try_send_to(packet, (GROUP_V6, PORT).into())),
            _ => return,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, via = %via.ip, "not sent on the link");
        }
    }

    fn receive(&self) -> BoxFuture<'_, (SocketAddr, Bytes)> {
        Box::pin(async move {
            loop {
                let received = tokio::select! {
                    received = receive(self.v4.as_ref()) => received,
                    received = receive(self.v6.as_ref()) => received,
                };
                match received {
                    Ok(received) => return received,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        })
    }
}

async fn receive(socket: Option<&UdpSocket>) -> io::Result<(SocketAddr, Bytes)> {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        socket.readable().await?;
        // One byte more than may be, so that what is larger is seen to be.
        let mut buffer = [0; MAX_PACKET + 1];
        match socket.try_recv_from(&mut buffer) {
            Ok((len, from)) => return Ok((from, Bytes::copy_from_slice(&buffer[..len]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
