//! `/network/status` and `/diagnostics/connectivity`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Json, extract::State};
use x0x_agent::{Agent, Mapping, PathKind, Punches, Reach, ReachClass, SessionInfo, Side};
use x0x_api::{
    True,
    types::{
        Connections, ConnectivityResponse, Coordinating, Crypto, LocalDiscovery,
        NetworkStatusResponse, PortMapping, Relaying, Services,
    },
};
use x0x_core::Scope;

use super::Answer;
use crate::{app::App, convert};

/// How machines prove themselves to each other, the only way there is.
pub(super) const SIGNATURE_SCHEME: &str = "ML-DSA-65";

/// What both answers say.
struct Seen {
    sessions: Vec<SessionInfo>,
    local: Vec<SocketAddr>,
    external: Vec<SocketAddr>,
    reach: Reach,
    punches: Punches,
    relaying: x0x_agent::Relaying,
    found_on_links: Option<u64>,
}

impl Seen {
    fn of(agent: &Agent) -> Self {
        let reach = agent.reach();
        let mut external: Vec<SocketAddr> =
            reach.external.iter().map(|external| external.address).collect();
        for address in agent.observed_addresses() {
            if !external.contains(&address) {
                external.push(address);
            }
        }
        Self {
            sessions: agent.sessions(),
            local: agent.local_addresses(),
            external,
            reach,
            punches: agent.punches(),
            relaying: agent.relaying(),
            found_on_links: agent.found_on_links(),
        }
    }

    /// From how far away somebody found this machine by itself. A session that a peer opened from the
    /// internet says nothing of it: a hole may have been punched for it.
    fn scope(&self) -> &'static str {
        let accepted = self.sessions.iter().filter(|session| session.side == Side::Acceptor);
        let mut near = accepted.map(|session| Scope::of_path(session.remote_address.ip()));
        match self.reach.class {
            ReachClass::Public => "global",
            _ if near.any(|scope| scope < Scope::Global) => "local",
            _ => "none",
        }
    }

    fn can_receive_direct(&self) -> Option<bool> {
        match self.scope() {
            "none" if self.reach.mapping_v4 == Mapping::Dependent => Some(false),
            "none" => None,
            _ => Some(true),
        }
    }

    fn nat_type(&self) -> &'static str {
        let mut confirmed = self.reach.external.iter().filter(|external| external.confirmed);
        let is_own = confirmed.any(|external| self.local.contains(&external.address));
        match (self.reach.class, self.reach.mapping_v4) {
            (ReachClass::Public, _) if is_own => "None",
            // Somebody came in to whom this machine had not written.
            (ReachClass::Public, _) => "FullCone",
            // Nothing is translated, and strangers do not get in.
            (ReachClass::Punchable, _) if is_own => "Firewall",
            (_, Mapping::Dependent) => "Symmetric",
            (ReachClass::Punchable, _) => "EndpointIndependent",
            _ => "Unknown",
        }
    }

    fn has_global_address(&self) -> bool {
        self.external.iter().chain(&self.local).any(is_global)
    }

    /// What the gateway says that it leads here, whether or not somebody came that way.
    fn port_mapping(&self) -> PortMapping {
        let mut external = self.reach.external.iter();
        let mapped = external.find(|external| external.mapped).map(|external| external.address);
        PortMapping { active: mapped.is_some(), external_addr: mapped }
    }

    fn relayed(&self) -> u64 {
        let relayed = |session: &&SessionInfo| matches!(session.path, PathKind::Relayed { .. });
        self.sessions.iter().filter(relayed).count() as u64
    }

    fn streamed(&self) -> u64 {
        let streamed = |session: &&SessionInfo| session.path == PathKind::Stream;
        self.sessions.iter().filter(streamed).count() as u64
    }

    fn direct(&self) -> u64 {
        self.sessions.len() as u64 - self.relayed() - self.streamed()
    }

    /// The share of punches that worked; 0 before the first.
    fn punch_rate(&self) -> f64 {
        let all = self.punches_tried();
        if all == 0 { 0.0 } else { self.punches.found as f64 / all as f64 }
    }

    fn punches_tried(&self) -> u64 {
        self.punches.found + self.punches.failed
    }

    /// The mean round-trip time in milliseconds.
    fn mean_rtt(&self) -> u64 {
        let total: Duration = self.sessions.iter().map(|session| session.rtt).sum();
        let mean = total.checked_div(self.sessions.len().try_into().unwrap_or(u32::MAX));
        mean.map_or(0, |rtt| rtt.as_millis() as u64)
    }
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Answer<NetworkStatusResponse> {
    let seen = Seen::of(&app.agent);
    Ok(Json(NetworkStatusResponse {
        ok: True::default(),
        local_addr: seen.local.first().copied(),
        nat_type: seen.nat_type().to_owned(),
        has_global_address: seen.has_global_address(),
        can_receive_direct: seen.can_receive_direct(),
        connected_peers: seen.sessions.len() as u64,
        direct_connections: seen.direct(),
        relayed_connections: seen.relayed(),
        hole_punch_success_rate: seen.punch_rate(),
        is_relaying: seen.relaying.pairs > 0,
        relay_sessions: seen.relaying.pairs,
        is_coordinating: seen.punches.coordinated > 0,
        coordination_sessions: seen.punches.coordinated,
        avg_rtt_ms: seen.mean_rtt(),
        uptime_secs: app.uptime().as_secs(),
        external_addrs: seen.external,
    }))
}

pub(super) async fn connectivity(State(app): State<Arc<App>>) -> Answer<ConnectivityResponse> {
    let seen = Seen::of(&app.agent);
    let count = seen.sessions.len() as u64;
    Ok(Json(ConnectivityResponse {
        ok: True::default(),
        peer_id: app.agent.machine_id(),
        local_addr: seen.local.first().copied(),
        nat_type: seen.nat_type().to_owned(),
        can_receive_direct: seen.can_receive_direct(),
        direct_reachability_scope: seen.scope().to_owned(),
        has_global_address: seen.has_global_address(),
        port_mapping: seen.port_mapping(),
        mdns: LocalDiscovery {
            browsing: seen.found_on_links.is_some(),
            advertising: seen.found_on_links.is_some(),
            discovered_peers: seen.found_on_links.unwrap_or_default(),
        },
        services: Services {
            relay_enabled: seen.relaying.enabled,
            coordinator_enabled: true,
            bootstrap_enabled: app.is_bootstrap(),
        },
        connections: Connections {
            connected_peers: count,
            active: count,
            direct: seen.direct(),
            streamed: seen.streamed(),
            relayed: seen.relayed(),
            hole_punches: seen.punches_tried(),
            hole_punch_success_rate: seen.punch_rate(),
        },
        relay: Relaying {
            is_relaying: seen.relaying.pairs > 0,
            sessions: seen.relaying.pairs,
            bytes_forwarded: seen.relaying.bytes_forwarded,
        },
        coordinator: Coordinating {
            is_coordinating: seen.punches.coordinated > 0,
            sessions: seen.punches.coordinated,
        },
        avg_rtt_ms: seen.mean_rtt(),
        uptime_s: app.uptime().as_secs(),
        reach: convert::reach(&seen.reach, app.agent.told_addresses()),
        crypto: Crypto {
            key_exchange_groups: convert::names(app.agent.key_exchange_groups()),
            signature_schemes: vec![SIGNATURE_SCHEME.to_owned()],
        },
        external_addrs: seen.external,
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
