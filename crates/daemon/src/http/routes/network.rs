//! `/peers` and `/network/status`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Json, extract::State};
use x0x_agent::Side;
use x0x_api::{
    True,
    types::{NetworkStatusResponse, Peer, PeersResponse},
};

use super::Answer;
use crate::app::App;

pub(super) async fn peers(State(app): State<Arc<App>>) -> Answer<PeersResponse> {
    let peers = app.agent.sessions().iter().map(|session| Peer { id: session.peer }).collect();
    Ok(Json(PeersResponse { ok: True::default(), peers }))
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Answer<NetworkStatusResponse> {
    let sessions = app.agent.sessions();
    let (local, observed) = (app.agent.local_addresses(), app.agent.observed_addresses());
    let count = sessions.len() as u64;
    let total: Duration = sessions.iter().map(|session| session.rtt).sum();
    let mean = total.checked_div(sessions.len().try_into().unwrap_or(u32::MAX));
    let was_dialled = sessions.iter().any(|session| session.side == Side::Acceptor);
    Ok(Json(NetworkStatusResponse {
        ok: True::default(),
        local_addr: local.first().copied(),
        nat_type: "Unknown".to_owned(),
        has_global_address: observed.iter().chain(&local).any(is_global),
        can_receive_direct: was_dialled.then_some(true),
        connected_peers: count,
        direct_connections: count,
        relayed_connections: 0,
        hole_punch_success_rate: 0.0,
        is_relaying: false,
        relay_sessions: 0,
        is_coordinating: false,
        coordination_sessions: 0,
        avg_rtt_ms: mean.map_or(0, |rtt| rtt.as_millis() as u64),
        uptime_secs: app.uptime().as_secs(),
        external_addrs: observed,
    }))
}

/// Whether an address can be routed on the open internet, as far as its range tells.
fn is_global(address: &SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || ip.is_multicast();
            a != 0 && a < 240 && !shared && !special
        }
        // Unicast addresses in use are all below 2000::/3; 2001:db8::/32 is for documents.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_addresses() {
        for text in ["8.8.8.8:1", "[2a00:1450::1]:1", "[::ffff:8.8.8.8]:1", "100.128.0.1:1"] {
            assert!(is_global(&text.parse().expect("an address")), "{text}");
        }
        for text in [
            "10.0.0.1:1",
            "127.0.0.1:1",
            "100.64.0.1:1",
            "169.254.0.1:1",
            "192.0.2.1:1",
            "0.0.0.0:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[fd00::1]:1",
            "[2001:db8::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(!is_global(&text.parse().expect("an address")), "{text}");
        }
    }
}
