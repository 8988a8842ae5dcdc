//! Two bridges in a namespace of their own, a link between them that can be cut, and one namespace for
//! each daemon, attached to one of the bridges.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place::Place;

/// The network; its namespaces are removed when it is dropped.
pub(super) struct Network {
    prefix: String,
    names: Vec<String>,
}

impl Network {
    /// Two sides that are joined, without daemons.
    pub(super) fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root; run this as root, or leave the scenario out");
        }
        let mut network = Self { prefix: format!("x0x-lab-{}", std::process::id()), names: vec![] };
        let hub = network.add("hub")?;
        for bridge in ["side0", "side1"] {
            ip(&["-n", &hub, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", &hub, "link", "set", bridge, "up"])?;
        }
        ip(&["-n", &hub, "link", "add", "cut0", "type", "veth", "peer", "name", "cut1"])?;
        for (end, bridge) in [("cut0", "side0"), ("cut1", "side1")] {
            ip(&["-n", &hub, "link", "set", end, "master", bridge, "up"])?;
        }
        Ok(network)
    }

    /// A place on one of the two sides.
    pub(super) fn place(&mut self, side: u8, number: u8) -> Result<Place> {
        let (hub, port) = (format!("{}-hub", self.prefix), format!("port{side}{number}"));
        let name = self.add(&format!("{side}{number}"))?;
        let veth = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name];
        ip(&[&["-n", hub.as_str()], &veth[..]].concat())?;
        ip(&["-n", &hub, "link", "set", &port, "master", &format!("side{side}"), "up"])?;
        let address = Ipv4Addr::new(10, 77, side, number + 1);
        ip(&["-n", &name, "address", "add", &format!("{address}/16"), "dev", "eth0"])?;
        for interface in ["lo", "eth0"] {
            ip(&["-n", &name, "link", "set", interface, "up"])?;
        }
        Ok(Place::Namespace { name, address: IpAddr::V4(address) })
    }

    /// The file of the namespace that all packets between places go through.
    pub(super) fn hub(&self) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-hub", self.prefix))
    }

    /// Cuts the sides apart, or joins them again.
    pub(super) fn set_joined(&self, joined: bool) -> Result<()> {
        let state = if joined { "up" } else { "down" };
        ip(&["-n", &format!("{}-hub", self.prefix), "link", "set", "cut0", state])
    }

    fn add(&mut self, suffix: &str) -> Result<String> {
        let name = format!("{}-{suffix}", self.prefix);
        ip(&["netns", "add", &name])?;
        self.names.push(name.clone());
        Ok(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Runs `ip`.
pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), error.trim());
    }
    Ok(())
}
