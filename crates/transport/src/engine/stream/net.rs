//! What makes the connections under streams.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use crate::{sock::table::plain, transport::BoxFuture};

/// Connections that the system holds before they are accepted.
const BACKLOG: i32 = 128;
/// Bytes that the system keeps for the peer: 100 ms at 20 Mbit/s. More would only be late.
const SEND_BUFFER: usize = 256 << 10;

/// A connection's bytes.
pub(in crate::engine) trait StreamIo:
    AsyncRead + AsyncWrite + Send + Unpin
{
}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> StreamIo for T {}

/// A connection, or TLS over one.
pub(in crate::engine) type BoxedIo = Box<dyn StreamIo>;

/// Makes connections.
pub(in crate::engine) trait StreamNet: Send + Sync + fmt::Debug {
    /// The port of its listener; `None` without one.
    fn port(&self) -> Option<u16>;

    /// Connects.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<BoxedIo>>;

    /// The next connection that somebody made, and from where; for ever without a listener. Dropping the
    /// future loses nothing.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedIo, SocketAddr)>>;
}

/// The operating system's TCP.
#[derive(Debug)]
pub(in crate::engine) struct TcpNet {
    listener: Option<TcpListener>,
}

impl TcpNet {
    /// Listens at a port of an address, if there is one.
    pub(in crate::engine) fn bind(ip: IpAddr, port: Option<u16>) -> io::Result<Self> {
        let Some(port) = port else { return Ok(Self { listener: None }) };
        let address = SocketAddr::new(ip, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if ip.is_ipv6() && ip.is_unspecified() {
            // Without IPv4 in the same socket the machine still serves IPv6.
            let _ = socket.set_only_v6(false);
        }
        // After a restart the port is free although connections of the last run are being forgotten.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: Some(TcpListener::from_std(socket.into())?) })
    }
}

fn tuned(stream: TcpStream) -> BoxedIo {
    // Best effort: a connection without these is only slower.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    Box::new(stream)
}

impl StreamNet for TcpNet {
    fn port(&self) -> Option<u16> {
        Some(self.listener.as_ref()?.local_addr().ok()?.port())
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<BoxedIo>> {
        Box::pin(async move { TcpStream::connect(to).await.map(tuned) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedIo, SocketAddr)>> {
        Box::pin(async move {
            let Some(listener) = &self.listener else { return std::future::pending().await };
            let (stream, from) = listener.accept().await?;
            Ok((tuned(stream), plain(from)))
        })
    }
}
