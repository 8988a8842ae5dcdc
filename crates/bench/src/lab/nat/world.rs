//! A small internet of network namespaces: one bridge, and machines on it, some of them behind routers.
//!
//! Every public address is on the link of the bridge, so that no routes are needed. All homes have the
//! same private network and the same port, as they do in the world.

use std::{
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::Kind;
use crate::{lab::namespaces::ip, place::Place};

/// The private network of every home: its router, and its machine.
pub(super) const HOME: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(192, 168, 1, 2)];
/// The network between a provider's translator and a home router (RFC 6598).
const CARRIER: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2)];

/// The first table of a router: packets that leave get its address.
const TRANSLATED: &str = "type nat hook postrouting priority 100;\noifname \"wan\" masquerade";
/// Nobody gets in who was not sent to, and nothing that comes by itself occupies a port.
const CLOSED: &str = "iifname \"wan\" ct state new drop";

/// A machine's own firewall, as distributions set it up.
const FIREWALL: &str = "table ip firewall {\nchain input {\ntype filter hook input priority 0;\n\
     iifname \"eth0\" ct state new drop\n}\n}\n";

/// The network; its namespaces are removed when it is dropped.
pub(super) struct World {
    prefix: String,
    names: Vec<String>,
    ports: usize,
}

impl World {
    /// An internet on which nobody is yet.
    pub(super) fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root; run this as root");
        }
        if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
            bail!("nft is not there; install the package nftables");
        }
        let prefix = format!("x0xlab-{}", std::process::id());
        let mut world = Self { prefix, names: Vec::new(), ports: 0 };
        let hub = world.add("internet")?;
        ip(&["-n", &hub, "link", "add", "net0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "net0", "up"])?;
        Ok(world)
    }

    /// A machine at a place of this kind, with this address on the internet.
    pub(super) fn machine(&mut self, name: &str, kind: Kind, public: Ipv4Addr) -> Result<Place> {
        let host = self.add(name)?;
        if matches!(kind, Kind::None | Kind::Firewall) {
            self.attach(&host, "eth0", public)?;
            if kind == Kind::Firewall {
                nft(&host, FIREWALL)?;
            }
            return Ok(Place::Namespace { name: host, address: public.into() });
        }
        let router = self.add(&format!("{name}-router"))?;
        if kind == Kind::Cgnat {
            let carrier = self.add(&format!("{name}-carrier"))?;
            self.attach(&carrier, "wan", public)?;
            join(&carrier, &router, "wan", CARRIER)?;
            make_router(&carrier, &rules(Kind::PortRestricted))?;
        } else {
            self.attach(&router, "wan", public)?;
        }
        join(&router, &host, "eth0", HOME)?;
        make_router(&router, &rules(kind))?;
        Ok(Place::Namespace { name: host, address: HOME[1].into() })
    }

    /// The name of the router of a machine's home.
    pub(super) fn router(&self, name: &str) -> String {
        format!("{}-{name}-router", self.prefix)
    }

    /// Gives a public machine another address, and takes the first one from it.
    pub(super) fn move_to(&self, place: &mut Place, to: Ipv4Addr) -> Result<()> {
        let Place::Namespace { name, address } = place else { bail!("not in a namespace") };
        let (from, now) = (format!("{address}/32"), format!("{to}/32"));
        ip(&["-n", name, "address", "add", &now, "dev", "eth0"])?;
        ip(&["-n", name, "address", "del", &from, "dev", "eth0"])?;
        ip(&["-n", name, "route", "replace", "default", "dev", "eth0"])?;
        *address = to.into();
        Ok(())
    }

    fn add(&mut self, suffix: &str) -> Result<String> {
        let name = format!("{}-{suffix}", self.prefix);
        ip(&["netns", "add", &name])?;
        self.names.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }

    /// Puts an interface of a namespace on the internet.
    fn attach(&mut self, name: &str, interface: &str, address: Ipv4Addr) -> Result<()> {
        let hub = format!("{}-internet", self.prefix);
        let port = format!("port{}", self.ports);
        self.ports += 1;
        wire(&hub, &port, name, interface)?;
        ip(&["-n", &hub, "link", "set", &port, "master", "net0", "up"])?;
        ip(&["-n", name, "address", "add", &format!("{address}/32"), "dev", interface])?;
        ip(&["-n", name, "link", "set", interface, "up"])?;
        ip(&["-n", name, "route", "add", "default", "dev", interface])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn wire(from: &str, at: &str, to: &str, interface: &str) -> Result<()> {
    let veth = ["link", "add", at, "type", "veth", "peer", "name", interface, "netns", to];
    ip(&[&["-n", from], &veth[..]].concat())
}

/// Puts a machine behind a router, on its interface `lan`.
fn join(router: &str, inner: &str, interface: &str, network: [Ipv4Addr; 2]) -> Result<()> {
    wire(router, "lan", inner, interface)?;
    for (name, interface, address) in [(router, "lan", network[0]), (inner, interface, network[1])]
    {
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", interface])?;
        ip(&["-n", name, "link", "set", interface, "up"])?;
    }
    ip(&["-n", inner, "route", "add", "default", "via", &network[0].to_string()])
}

/// Has a namespace forward packets, by these rules.
fn make_router(name: &str, rules: &str) -> Result<()> {
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    ip(&["netns", "exec", name, "sh", "-c", forward])?;
    nft(name, rules)
}

/// Has a public machine drop all that comes from an address, in place of what it dropped before.
pub(super) fn block(place: &Place, from: &[Ipv4Addr]) -> Result<()> {
    let drops: String = from.iter().map(|at| format!("ip saddr {at} drop\n")).collect();
    trouble(place, &drops)
}

/// Has a machine lose this share of the UDP packets that come.
pub(super) fn lose(place: &Place, percent: u32) -> Result<()> {
    let drops = format!("meta l4proto udp numgen random mod 100 < {percent} drop\n");
    trouble(place, if percent == 0 { "" } else { &drops })
}

fn trouble(place: &Place, rules: &str) -> Result<()> {
    let Place::Namespace { name, .. } = place else { bail!("not in a namespace") };
    let chain = format!("chain input {{\ntype filter hook input priority -300;\n{rules}}}\n");
    nft(
        name,
        &format!("table ip trouble\ndelete table ip trouble\ntable ip trouble {{\n{chain}}}\n"),
    )
}

/// Takes rules to the packet filter of a namespace.
pub(super) fn nft(name: &str, rules: &str) -> Result<()> {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", name, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    nft.stdin.take().context("nft takes no input")?.write_all(rules.as_bytes())?;
    if !nft.wait()?.success() {
        bail!("nft refused the rules of {name}:\n{rules}");
    }
    Ok(())
}

/// What a router of a kind does, as nftables reads it. Unless it is told otherwise a router of Linux keeps
/// the port of a machine while it is free, and lets in only answers.
fn rules(kind: Kind) -> String {
    let machine = HOME[1];
    let everything_in = format!(
        "type nat hook prerouting priority -100;\niifname \"wan\" meta l4proto udp dnat to {machine}"
    );
    let (out, into, through, set) = match kind {
        Kind::Symmetric => (format!("{TRANSLATED} fully-random"), None, CLOSED.to_owned(), ""),
        Kind::FullCone => (TRANSLATED.to_owned(), Some(everything_in), String::new(), ""),
        Kind::AddressRestricted => (
            TRANSLATED.to_owned(),
            Some(everything_in),
            "iifname \"lan\" meta l4proto udp update @spoken { ip daddr }\n\
             iifname \"wan\" ct state new ip saddr != @spoken drop"
                .to_owned(),
            "set spoken {\ntype ipv4_addr;\nflags dynamic,timeout;\ntimeout 60s;\nsize 1024;\n}\n",
        ),
        Kind::PortMapping => (
            TRANSLATED.to_owned(),
            Some("type nat hook prerouting priority -100;".to_owned()),
            format!("iifname \"wan\" ct status dnat accept\n{CLOSED}"),
            "",
        ),
        Kind::UdpBlocked => (TRANSLATED.to_owned(), None, "meta l4proto udp drop".to_owned(), ""),
        Kind::None | Kind::Firewall | Kind::PortRestricted | Kind::Cgnat => {
            (TRANSLATED.to_owned(), None, CLOSED.to_owned(), "")
        }
    };
    let chain = |name: &str, rules: &str| format!("chain {name} {{\n{rules}\n}}\n");
    let through = format!("type filter hook forward priority 0;\n{through}");
    let inward = format!("type filter hook input priority 0;\n{CLOSED}");
    let into = into.map(|rules| chain("into", &rules)).unwrap_or_default();
    format!(
        "table ip lab {{\n{set}{}{into}{}{}}}\n",
        chain("outward", &out),
        chain("through", &through),
        chain("inward", &inward)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_balanced_and_differ() {
        let all: Vec<_> = Kind::ALL.into_iter().map(rules).collect();
        for text in &all {
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
            assert!(text.contains("masquerade"), "{text}");
        }
        assert!(rules(Kind::Symmetric).contains("masquerade fully-random"));
        assert!(!rules(Kind::FullCone).contains("forward priority 0;\niifname"));
    }
}
