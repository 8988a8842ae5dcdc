//! `x0x netcheck`: how others reach this machine, and what to do about it.

use std::net::SocketAddr;

use serde_json::json;
use x0x_api::Operation;
use x0x_api::types::{ConnectivityResponse, Mapping, ReachClass};

use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::{Output, table};

/// Shows how this machine is reached.
pub(super) fn run(client: &Client, output: &mut Output) -> Result<()> {
    let found: ConnectivityResponse = client.fetch(&Call::new(Operation::Connectivity))?;
    let advice = advice(&found);
    let answer = json!({
        "ok": true,
        "class": found.reach.class,
        "nat_type": found.nat_type,
        "mapping_v4": found.reach.mapping_v4,
        "mapping_v6": found.reach.mapping_v6,
        "local_addr": found.local_addr,
        "external": found.reach.external,
        "told": found.reach.told,
        "direct_reachability_scope": found.direct_reachability_scope,
        "port_mapping": found.port_mapping,
        "mdns": found.mdns,
        "services": found.services,
        "relay": found.relay,
        "connections": found.connections,
        "crypto": found.crypto,
        "advice": advice,
    });
    let mut text = table(&rows(&found));
    text.push('\n');
    for line in &advice {
        text.push_str(line);
        text.push('\n');
    }
    output.report(&text, &answer)
}

fn rows(found: &ConnectivityResponse) -> Vec<Vec<String>> {
    let reach = &found.reach;
    let external = reach.external.iter().map(|external| match external.confirmed {
        true => format!("{} (seen from {} networks)", external.address, external.networks),
        false => format!("{} (one network's word)", external.address),
    });
    let mapped = match found.port_mapping.external_addr {
        Some(address) if found.port_mapping.active => address.to_string(),
        _ => "none".to_owned(),
    };
    let connections = &found.connections;
    let mut sessions = format!("{} direct, {} relayed", connections.direct, connections.relayed);
    if connections.streamed > 0 {
        sessions += &format!(", {} over TCP", connections.streamed);
    }
    let punches = match connections.hole_punches {
        0 => "none tried yet".to_owned(),
        tried => format!("{:.0} % of {tried}", connections.hole_punch_success_rate * 100.0),
    };
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let listed = |mut items: Vec<String>| {
        if items.is_empty() {
            items.push("-".to_owned());
        }
        items.join(", ")
    };
    let told = reach.told.iter().map(SocketAddr::to_string).collect();
    [
        ("reached", class(reach.class).to_owned()),
        ("translator", found.nat_type.clone()),
        ("IPv4 ports", mapping(reach.mapping_v4).to_owned()),
        ("IPv6 ports", mapping(reach.mapping_v6).to_owned()),
        ("seen as", listed(external.collect())),
        ("others are told", listed(told)),
        ("dialled from", found.direct_reachability_scope.clone()),
        ("port mapping", mapped),
        ("local discovery", yes(found.mdns.browsing)),
        ("sessions", sessions),
        ("punches that worked", punches),
        ("relays for others", yes(found.services.relay_enabled)),
        ("key exchange", listed(found.crypto.key_exchange_groups.clone())),
        ("signatures", listed(found.crypto.signature_schemes.clone())),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect()
}

const fn class(class: ReachClass) -> &'static str {
    match class {
        ReachClass::Public => "by a plain dial",
        ReachClass::Punchable => "with the help of a common peer",
        ReachClass::RelayOnly => "through a relay, unless it dials itself",
        _ => "not known yet",
    }
}

const fn mapping(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::Independent => "one for all peers",
        Mapping::Dependent => "another for each peer",
        _ => "not known yet",
    }
}

/// What it means, and what may be done, in plain words.
fn advice(found: &ConnectivityResponse) -> Vec<String> {
    let mut advice = Vec::new();
    let port = found.local_addr.map_or_else(|| "of x0xd".to_owned(), |at| at.port().to_string());
    if found.connections.connected_peers == 0 {
        advice.push(
            "There is no peer. Name a machine that is always on under bootstrap_peers in the \
             configuration, or import somebody's card; and see that the firewall lets UDP out, or TCP \
             to one of them that takes streams."
                .to_owned(),
        );
    } else if found.connections.streamed > 0 && found.connections.direct == 0 {
        advice.push(
            "No UDP passes here: this machine reaches a volunteer over TCP, and by its relay all who \
             are connected to it. Letting UDP out makes sessions direct, and faster."
                .to_owned(),
        );
    } else {
        advice.push(match (found.reach.class, found.nat_type.as_str()) {
            (ReachClass::Public, _) => {
                "Others dial this machine directly. There is nothing to do.".to_owned()
            }
            (ReachClass::Punchable, "Firewall") => format!(
                "This machine has a public address, and a firewall lets in answers alone: others connect \
                 directly with the help of a peer that both know. To be dialled without help, let UDP port \
                 {port} in."
            ),
            (_, "Symmetric") => format!(
                "The router shows this machine at another port to each peer. Public peers, and peers \
                 behind routers that are less strict, connect directly; the rest by way of a common \
                 peer. Forwarding UDP port {port} to this machine on the router mends it."
            ),
            (ReachClass::Punchable, _) => format!(
                "A router is before this machine, of the usual kind: others connect directly with \
                 the help of a peer that both know. To be dialled without help, forward UDP port \
                 {port} to this machine."
            ),
            _ if found.direct_reachability_scope == "local" => {
                "Machines of this site dial this one; how the internet sees it is not known, since \
                 too few peers are there."
                    .to_owned()
            }
            _ => "How the internet sees this machine is not known yet: peers in two networks have to \
                  agree. If it stays so, name bootstrap_peers in several networks."
                .to_owned(),
        });
    }
    if found.connections.relayed > 0 {
        advice.push(format!(
            "{} sessions go through a relay, which sees ciphertext alone. They become direct when a \
             way is found.",
            found.connections.relayed
        ));
    }
    if !found.reach.told.is_empty() && found.reach.told.iter().all(|at| at.ip().is_loopback()) {
        advice.push(
            "x0xd listens on loopback: only programs on this machine reach it. Set bind_address."
                .to_owned(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use x0x_api::types::{Connections, Crypto, PortMapping, Reach};

    use super::*;

    fn found(class: ReachClass, nat_type: &str, peers: u64) -> ConnectivityResponse {
        ConnectivityResponse {
            ok: Default::default(),
            peer_id: "07".repeat(32).parse().unwrap(),
            local_addr: Some("192.168.1.2:5483".parse().unwrap()),
            external_addrs: Vec::new(),
            nat_type: nat_type.to_owned(),
            can_receive_direct: None,
            direct_reachability_scope: "none".to_owned(),
            has_global_address: false,
            port_mapping: PortMapping::default(),
            mdns: Default::default(),
            services: Default::default(),
            connections: Connections { connected_peers: peers, ..Connections::default() },
            relay: Default::default(),
            coordinator: Default::default(),
            avg_rtt_ms: 0,
            uptime_s: 1,
            reach: Reach { class, ..Reach::default() },
            crypto: Crypto::default(),
        }
    }

    #[test]
    fn punches_are_a_share_of_those_tried() {
        let mut found = found(ReachClass::Punchable, "EndpointIndependent", 2);
        let shown = |found: &ConnectivityResponse| {
            let row = rows(found).into_iter().find(|row| row[0] == "punches that worked");
            row.expect("shown")[1].clone()
        };
        assert_eq!(shown(&found), "none tried yet");
        found.connections.hole_punches = 4;
        found.connections.hole_punch_success_rate = 0.75;
        assert_eq!(shown(&found), "75 % of 4");
    }

    #[test]
    fn each_place_gets_its_advice() {
        for (class, nat_type, peers, says) in [
            (ReachClass::Unknown, "Unknown", 0, "bootstrap_peers"),
            (ReachClass::Unknown, "Unknown", 1, "two networks"),
            (ReachClass::Public, "None", 1, "nothing to do"),
            (ReachClass::Punchable, "EndpointIndependent", 2, "UDP port 5483"),
            (ReachClass::RelayOnly, "Symmetric", 2, "another port to each peer"),
            (ReachClass::Punchable, "Firewall", 2, "let UDP port 5483 in"),
        ] {
            let advice = advice(&found(class, nat_type, peers));
            assert_eq!(advice.len(), 1, "{advice:?}");
            assert!(advice[0].contains(says), "{advice:?}");
        }
        let mut streamed = found(ReachClass::Unknown, "Unknown", 1);
        streamed.connections.streamed = 1;
        assert!(advice(&streamed)[0].starts_with("No UDP passes"));
        let mut relayed = found(ReachClass::Punchable, "EndpointIndependent", 2);
        relayed.connections.relayed = 1;
        relayed.reach.told = vec!["127.0.0.1:1".parse().unwrap()];
        assert_eq!(advice(&relayed).len(), 3);
    }
}
