//! `/peers`, `/network/status` and `/diagnostics/connectivity`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Json, extract::State, response::Response};
use bytes::{Bytes, BytesMut};
use x0x_agent::{Agent, SessionInfo, Side};
use x0x_api::{
    True,
    event::{PEER_LIFECYCLE, PeerChange, PeerEventKind},
    types::{
        Connections, ConnectivityResponse, Coordinating, LocalDiscovery, NetworkStatusResponse,
        Peer, PeersResponse, PortMapping, Relaying, Services,
    },
};
use x0x_core::{Clock, MachineId, SystemClock};

use super::Answer;
use crate::{
    app::App,
    http::{
        error::ApiError,
        sse::{self, Source},
    },
};

/// How often the sessions are looked at while somebody listens.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn peers(State(app): State<Arc<App>>) -> Answer<PeersResponse> {
    let peers = app.agent.sessions().iter().map(|session| Peer { id: session.peer }).collect();
    Ok(Json(PeersResponse { ok: True::default(), peers }))
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Answer<NetworkStatusResponse> {
    let sessions = app.agent.sessions();
    let (local, observed) = (app.agent.local_addresses(), app.agent.observed_addresses());
    let count = sessions.len() as u64;
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
        avg_rtt_ms: mean_rtt(&sessions),
        uptime_secs: app.uptime().as_secs(),
        external_addrs: observed,
    }))
}

/// The mean round-trip time in milliseconds.
fn mean_rtt(sessions: &[SessionInfo]) -> u64 {
    let total: Duration = sessions.iter().map(|session| session.rtt).sum();
    let mean = total.checked_div(sessions.len().try_into().unwrap_or(u32::MAX));
    mean.map_or(0, |rtt| rtt.as_millis() as u64)
}

pub(super) async fn connectivity(State(app): State<Arc<App>>) -> Answer<ConnectivityResponse> {
    let sessions = app.agent.sessions();
    let (local, observed) = (app.agent.local_addresses(), app.agent.observed_addresses());
    let count = sessions.len() as u64;
    let dialled_by = sessions.iter().filter(|session| session.side == Side::Acceptor);
    let dialled_by: Vec<SocketAddr> = dialled_by.map(|session| session.remote_address).collect();
    let scope = match &dialled_by[..] {
        [] => "none",
        from if from.iter().any(is_global) => "global",
        _ => "local",
    };
    Ok(Json(ConnectivityResponse {
        ok: True::default(),
        peer_id: app.agent.machine_id(),
        local_addr: local.first().copied(),
        nat_type: "Unknown".to_owned(),
        can_receive_direct: (!dialled_by.is_empty()).then_some(true),
        direct_reachability_scope: scope.to_owned(),
        has_global_address: observed.iter().chain(&local).any(is_global),
        port_mapping: PortMapping::default(),
        mdns: LocalDiscovery::default(),
        services: Services { bootstrap_enabled: app.is_bootstrap(), ..Services::default() },
        connections: Connections {
            connected_peers: count,
            active: count,
            direct: count,
            ..Connections::default()
        },
        relay: Relaying::default(),
        coordinator: Coordinating::default(),
        avg_rtt_ms: mean_rtt(&sessions),
        uptime_s: app.uptime().as_secs(),
        external_addrs: observed,
    }))
}

pub(super) async fn events(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    sse::respond(
        &app,
        PeerSource { agent: app.agent.clone(), clock: SystemClock::new(), live: None },
    )
}

/// Which sessions are live, then which begin and end.
struct PeerSource {
    agent: Agent,
    clock: SystemClock,
    /// As told last; nothing before the first time.
    live: Option<BTreeMap<MachineId, u64>>,
}

impl Source for PeerSource {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.live.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            let sessions = self.agent.sessions().into_iter();
            let now: BTreeMap<_, _> = sessions.map(|it| (it.peer, it.generation)).collect();
            let before = self.live.replace(now.clone());
            let mut out = BytesMut::new();
            let changes = changes(&before.unwrap_or_default(), &now);
            for (peer_id, event) in changes {
                let at_ms = self.clock.wall().as_millis();
                let change = PeerChange { peer_id, event, at_ms };
                out.extend_from_slice(&sse::encode(PEER_LIFECYCLE, &change));
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
    }
}

/// What happened between two looks at the sessions, each a machine with its session's number.
fn changes(
    before: &BTreeMap<MachineId, u64>,
    now: &BTreeMap<MachineId, u64>,
) -> Vec<(MachineId, PeerEventKind)> {
    let gone = before.keys().filter(|peer| !now.contains_key(peer));
    let gone = gone.map(|peer| (*peer, PeerEventKind::Closed));
    let come = now.iter().filter_map(|(peer, number)| match before.get(peer) {
        None => Some((*peer, PeerEventKind::Established)),
        Some(old) if old != number => Some((*peer, PeerEventKind::Replaced)),
        Some(_) => None,
    });
    gone.chain(come).collect()
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
    fn sessions_begin_end_and_are_replaced() {
        let sessions = |of: &[(u8, u64)]| -> BTreeMap<MachineId, u64> {
            of.iter().map(|(peer, number)| (MachineId::new([*peer; 32]), *number)).collect()
        };
        let (before, now) =
            (sessions(&[(1, 1), (2, 2), (3, 3)]), sessions(&[(2, 2), (3, 4), (4, 5)]));
        let changes: Vec<_> = changes(&before, &now)
            .into_iter()
            .map(|(peer, kind)| (peer.as_bytes()[0], kind))
            .collect();
        use PeerEventKind::{Closed, Established, Replaced};
        assert_eq!(changes, [(1, Closed), (3, Replaced), (4, Established)]);
    }

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
