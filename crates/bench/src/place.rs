//! Where a daemon runs: on this machine's loopback, or in a network namespace of its own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream as StdStream, UdpSocket as StdUdp};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpStream, UdpSocket};

/// How long connecting to a local API may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place for a daemon.
#[derive(Debug, Clone, Default)]
pub(crate) enum Place {
    /// The loopback of this machine.
    #[default]
    Loopback,
    /// A named network namespace, and the daemon's address there.
    Namespace { name: String, address: IpAddr },
}

impl Place {
    /// The address that the daemon binds.
    pub(crate) const fn address(&self) -> IpAddr {
        match self {
            Self::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Namespace { address, .. } => *address,
        }
    }

    /// A command that runs a program there.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Namespace { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }

    /// A connection to an address there. A socket stays in the namespace in which it was made, so
    /// only the thread that makes it goes there.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        let stream = match self {
            Self::Loopback => TcpStream::connect(to).await?,
            Self::Namespace { name, .. } => {
                let path = PathBuf::from("/run/netns").join(name);
                let (sender, receiver) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || sender.send(connect_within(&path, to)));
                TcpStream::from_std(receiver.await.context("the thread ended")??)?
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A socket for packets at an address there.
    pub(crate) async fn udp(&self, at: SocketAddr) -> Result<UdpSocket> {
        let Self::Namespace { name, .. } = self else { return Ok(UdpSocket::bind(at).await?) };
        let path = PathBuf::from("/run/netns").join(name);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(bind_within(&path, at)));
        Ok(UdpSocket::from_std(receiver.await.context("the thread ended")??)?)
    }
}

fn bind_within(namespace: &Path, at: SocketAddr) -> Result<StdUdp> {
    enter(namespace)?;
    let socket = StdUdp::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes this thread into a namespace.
pub(crate) fn enter(namespace: &Path) -> Result<()> {
    let file =
        File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the network namespace")
}

fn connect_within(namespace: &Path, to: SocketAddr) -> Result<StdStream> {
    enter(namespace)?;
    let stream = StdStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
