//! The operating system's interfaces.

use std::{net::IpAddr, time::Duration};

use if_addrs::{IfAddr, IfOperStatus};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;

use super::{Interface, InterfaceSource, Network};
use crate::{link::BoxFuture, outgoing};

/// How often it is looked where the system does not tell of changes.
const POLL: Duration = Duration::from_secs(15);

/// The interfaces of this machine.
#[derive(Debug)]
pub struct SystemInterfaces {
    #[cfg(target_os = "linux")]
    events: Option<AsyncFd<std::os::fd::OwnedFd>>,
}

impl SystemInterfaces {
    /// Asks the system to tell of changes. Where it refuses, it is looked from time to time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn open() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            events: linux::subscribe(),
        }
    }
}

impl InterfaceSource for SystemInterfaces {
    fn scan(&self) -> Option<Network> {
        let all = if_addrs::get_if_addrs()
            .inspect_err(|error| tracing::debug!(%error, "interfaces cannot be listed"))
            .ok()?;
        let routed = [outgoing::v6(), outgoing::v4()];
        let up = |status: &IfOperStatus| {
            !matches!(
                status,
                IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
            )
        };
        let interfaces = all.into_iter().filter(|found| up(&found.oper_status)).map(|found| {
            let (ip, prefix): (IpAddr, u8) = match &found.addr {
                IfAddr::V4(v4) => (v4.ip.into(), v4.prefixlen),
                IfAddr::V6(v6) => (v6.ip.into(), v6.prefixlen),
            };
            Interface {
                index: found.index.unwrap_or(0),
                ip,
                prefix,
                default_routed: routed.contains(&Some(ip)),
                shared: !found.is_loopback() && !found.is_p2p(),
            }
        });
        Some(Network::new(interfaces))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            #[cfg(target_os = "linux")]
            if let Some(events) = &self.events
                && linux::next(events).await.is_some()
            {
                return;
            }
            tokio::time::sleep(POLL).await;
        })
    }
}

/// The kernel's notices of links, addresses and routes (rtnetlink(7)). What they say is not read: they are the
/// sign to look.
#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::{
        io::Errno,
        net::{
            AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
            recv, socket_with,
        },
    };
    use tokio::io::{Interest, unix::AsyncFd};

    /// Links, addresses and routes of both families, as bits of a netlink address.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
    /// A notice is cut to this: nobody reads it.
    const NOTICE: usize = 64;
    /// Most notices taken in a turn.
    const MAX_NOTICES: usize = 1024;

    #[expect(
        deprecated,
        reason = "its successor is unsafe; an owned descriptor stays the same one while it lives"
    )]
    pub(super) fn subscribe() -> Option<AsyncFd<OwnedFd>> {
        let open = || -> Result<OwnedFd, Errno> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let family = AddressFamily::NETLINK;
            // The protocol of routes is the one without a number.
            let socket = socket_with(family, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            Ok(socket)
        };
        let subscribed = open().map_err(std::io::Error::from);
        subscribed
            .and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE))
            .inspect_err(|error| tracing::debug!(%error, "no notices of interfaces"))
            .ok()
    }

    /// Waits for notices and takes them all; `None` when there will be none.
    pub(super) async fn next(events: &AsyncFd<OwnedFd>) -> Option<()> {
        let mut ready = events.readable().await.ok()?;
        let mut notice = [0; NOTICE];
        for _ in 0..MAX_NOTICES {
            match recv(events.get_ref(), &mut notice, RecvFlags::empty()) {
                // Notices that were lost say that there were many.
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(_) => return None,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_found_and_shared_with_nobody() {
        let network = SystemInterfaces::open().scan().expect("interfaces can be listed");
        let loopback = network.interfaces().iter().find(|interface| interface.ip.is_loopback());
        assert!(loopback.is_some_and(|loopback| !loopback.shared && !loopback.default_routed));
        assert!(!network.is_on_link("127.0.0.1".parse().expect("an address")));
    }
}
