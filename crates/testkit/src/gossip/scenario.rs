//! Scenarios: what is simulated, as TOML. Every number is checked when a scenario is read.

use std::{ops::Range, time::Duration};

use serde::Deserialize;
use x0x_gossip_membership::OverlayConfig;

/// Largest scenario file.
const MAX_FILE: usize = 64 * 1024;
/// Most nodes at the start.
const MAX_NODES: u32 = 100_000;
/// Most messages of one run.
const MAX_MESSAGES: u32 = 1_000_000;
/// Most steps in `event` tables.
const MAX_EVENTS: usize = 64;
/// Most regions.
const MAX_REGIONS: usize = 32;
/// Longest time that any number may ask for.
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;
/// Largest payload.
const MAX_PAYLOAD: usize = x0x_gossip_pubsub::MAX_PAYLOAD;

/// A scenario that cannot be run: its author's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The file is larger than a scenario may be.
    #[error("{len} bytes; a scenario has at most {MAX_FILE}")]
    TooLarge {
        /// Its size.
        len: usize,
    },
    /// Not TOML, or not of a scenario's form.
    #[error("{0}")]
    Form(#[from] toml::de::Error),
    /// A number is out of range.
    #[error("{what} must be {must}")]
    Range {
        /// Which.
        what: &'static str,
        /// The range.
        must: &'static str,
    },
}

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, as of its file.
    pub name: String,
    /// What it shows, in a line.
    pub about: String,
    /// Honest nodes at the start.
    #[serde(default = "defaults::nodes")]
    pub nodes: u32,
    /// How long is waited after the last message and event for every set to be complete, in seconds.
    #[serde(default = "defaults::drain")]
    pub drain_s: f64,
    /// How the overlay comes to be.
    #[serde(default)]
    pub overlay: OverlayPart,
    /// Who publishes what.
    #[serde(default)]
    pub traffic: TrafficPart,
    /// The paths between nodes.
    #[serde(default)]
    pub network: NetworkPart,
    /// How messages are spread.
    #[serde(default)]
    pub gossip: GossipPart,
    /// What is kept above the topic; nothing if it is left out.
    #[serde(default)]
    pub objects: Option<ObjectsPart>,
    /// Whether the topic is the log of a public announce group. The first sender founds it and alone may write;
    /// every subscriber reads it.
    #[serde(default)]
    pub announces: bool,
    /// Who misbehaves.
    #[serde(default)]
    pub hostile: HostilePart,
    /// What happens, by time after the first measured message.
    #[serde(default, rename = "event")]
    pub events: Vec<Event>,
}

/// How the overlay comes to be, and its parameters where they differ from the defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverlayPart {
    /// Time in which all nodes of the start join, in seconds.
    pub formation_s: f64,
    /// Time after that in which nothing happens, in seconds.
    pub settle_s: f64,
    /// Random earlier nodes that a newcomer is told of.
    pub bootstrap: usize,
    /// `OverlayConfig::active_target`.
    pub active_target: Option<usize>,
    /// `OverlayConfig::active_max`.
    pub active_max: Option<usize>,
    /// `OverlayConfig::passive_max`.
    pub passive_max: Option<usize>,
}

/// Who publishes what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficPart {
    /// Share of the nodes that subscribe the topic; the others only know some that do.
    pub subscribers: f64,
    /// Nodes that publish, of those that subscribe.
    pub senders: u32,
    /// Messages before the measured ones, in which the tree forms.
    pub warmup: u32,
    /// Measured messages.
    pub messages: u32,
    /// Messages a second, of all senders together.
    pub rate: f64,
    /// Bytes of each payload.
    pub payload: usize,
}

/// The paths between nodes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkPart {
    /// One-way latency in milliseconds: from and to, by region of the one and of the other. Each path
    /// draws its own from the range. The shortest is how far the simulator looks ahead: the longer,
    /// the faster it is.
    pub latency_ms: Vec<Vec<[f64; 2]>>,
    /// Most that a frame is late beyond its path's latency, in milliseconds.
    pub jitter_ms: f64,
    /// Up and down, in megabits a second.
    pub bandwidth_mbit: f64,
    /// Bytes that wait in a session before frames are refused, in KiB.
    pub queue_kib: u64,
    /// When a peer that is gone without a word is noticed, in seconds.
    pub detection_s: [f64; 2],
    /// How long a dial without an answer takes to fail, in seconds.
    pub dial_timeout_s: f64,
    /// Share of hosts that everybody but `hidden` ones can dial by punching.
    pub punchable: f64,
    /// Share of hosts that nobody can dial, and that can dial public hosts only.
    pub hidden: f64,
    /// Share of the overlay's probes that are lost.
    pub datagram_loss: f64,
    /// Clocks differ from the true time by up to this, in seconds.
    pub clock_skew_s: f64,
}

/// Which protocol spreads the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mode {
    /// The production machine.
    #[default]
    Tree,
    /// The production machine, all links eager.
    Flood,
    /// The production machine, at least six links eager.
    EagerFloor6,
    /// The reference model of gossipsub.
    Gossipsub,
    /// The reference model of Plumtree with the parameters of iroh-gossip.
    Iroh,
}

impl Mode {
    /// The name of the mode in scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Flood => "flood",
            Self::EagerFloor6 => "eager-floor6",
            Self::Gossipsub => "gossipsub",
            Self::Iroh => "iroh",
        }
    }

    /// Every mode, in the order of the comparison table.
    pub const ALL: [Self; 5] =
        [Self::Tree, Self::Flood, Self::EagerFloor6, Self::Gossipsub, Self::Iroh];
}

/// How messages are spread, and the limits that differ from the defaults.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct GossipPart {
    /// The protocol.
    pub mode: Mode,
    /// `Limits::redundant_links`.
    pub redundant_links: Option<u8>,
    /// `Limits::hop_threshold`.
    pub hop_threshold: Option<u8>,
    /// `Limits::topic_entries`.
    pub topic_entries: Option<usize>,
    /// `Limits::retention`, in seconds.
    pub retention_s: Option<f64>,
}

/// A key-value store on every node that subscribes, of which the messages are operations.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectsPart {
    /// Keys that all writers share.
    pub keys: u32,
}

/// Who misbehaves.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct HostilePart {
    /// Share of the nodes that take everything and pass nothing on.
    pub droppers: f64,
    /// Share of the nodes that announce what does not exist, claim fingerprints that are false, and
    /// serve nothing.
    pub liars: f64,
    /// Share of the nodes that send forged runs as fast as `flood_rate`, and old ones again.
    pub flooders: f64,
    /// Forged runs that a flooder sends to each of its links in a second.
    pub flood_rate: f64,
    /// Share of the nodes that publish two histories.
    pub equivocators: f64,
    /// Sybils for each honest node, in four prefixes: they pass nothing on, push into every view and
    /// tell of one another only.
    pub sybils: f64,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// Random nodes crash at once and do not come back.
    Kill {
        /// When, in seconds.
        at_s: f64,
        /// How many of the nodes.
        share: f64,
    },
    /// New nodes join.
    Join {
        /// When, in seconds.
        at_s: f64,
        /// How many, by share of the nodes at the start.
        share: f64,
        /// Time in which they do, in seconds.
        over_s: f64,
    },
    /// Random nodes are cut off from the others; both sides go on.
    Partition {
        /// When, in seconds.
        at_s: f64,
        /// How many of the nodes.
        share: f64,
        /// How long, in seconds.
        for_s: f64,
    },
    /// Random nodes crash and come back with no memory, one after the other.
    Churn {
        /// When, in seconds.
        at_s: f64,
        /// How long, in seconds.
        for_s: f64,
        /// Crashes a second.
        rate: f64,
        /// How long a node is away, in seconds.
        down_s: f64,
    },
    /// The same few nodes crash and come back again and again.
    Flap {
        /// When, in seconds.
        at_s: f64,
        /// How long, in seconds.
        for_s: f64,
        /// How many nodes.
        nodes: u32,
        /// Time up, and then time down, in seconds.
        period_s: f64,
    },
    /// Random nodes crash and come back with the log and cursor that they had on disk.
    Restart {
        /// When, in seconds.
        at_s: f64,
        /// How many of the nodes.
        share: f64,
        /// How long they are away, in seconds.
        down_s: f64,
    },
    /// Random nodes stand still, as with SIGSTOP.
    Stall {
        /// When, in seconds.
        at_s: f64,
        /// How many of the nodes.
        share: f64,
        /// How long, in seconds.
        for_s: f64,
    },
    /// Random nodes get a slow line from then on.
    Slow {
        /// When, in seconds.
        at_s: f64,
        /// How many nodes.
        nodes: u32,
        /// Their bandwidth in kilobits a second.
        kbit: f64,
        /// Added to the latency of their new paths, in milliseconds.
        latency_ms: f64,
    },
}

impl Scenario {
    /// Reads a scenario and checks it.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        if text.len() > MAX_FILE {
            return Err(ScenarioError::TooLarge { len: text.len() });
        }
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// With the overlay that the reference models are used with, where the scenario leaves it open:
    /// more links than its mesh for gossipsub, as its deployments have, and iroh-gossip's own.
    #[must_use]
    pub(super) fn effective(&self) -> Self {
        let mut scenario = self.clone();
        let (target, max, passive) = match self.gossip.mode {
            Mode::Gossipsub => (11, 12, 48),
            Mode::Iroh => (5, 6, 30),
            _ => return scenario,
        };
        let overlay = &mut scenario.overlay;
        overlay.active_target.get_or_insert(target);
        overlay.active_max.get_or_insert(max);
        overlay.passive_max.get_or_insert(passive);
        scenario
    }

    /// How many of the nodes at the start subscribe the topic.
    #[must_use]
    pub fn subscribers(&self) -> u32 {
        (f64::from(self.nodes) * self.traffic.subscribers).round() as u32
    }

    /// Checks every number; for scenarios changed after they were read.
    ///
    /// # Errors
    /// [`ScenarioError::Range`] naming the first that is out of range.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let within = |holds: bool, what, must| {
            if holds { Ok(()) } else { Err(ScenarioError::Range { what, must }) }
        };
        let seconds = |value: f64| (0.0..=MAX_SECONDS).contains(&value);
        let messages = u64::from(self.traffic.warmup) + u64::from(self.traffic.messages);
        within((2..=MAX_NODES).contains(&self.nodes), "nodes", "2 to 100000")?;
        within(seconds(self.drain_s), "drain_s", "0 to a week")?;
        within(seconds(self.overlay.formation_s), "overlay.formation_s", "0 to a week")?;
        within(seconds(self.overlay.settle_s), "overlay.settle_s", "0 to a week")?;
        within((1..=16).contains(&self.overlay.bootstrap), "overlay.bootstrap", "1 to 16")?;
        within(self.overlay.config().validate().is_ok(), "overlay", "a valid configuration")?;
        within(share(self.traffic.subscribers), "traffic.subscribers", "a share of 0 to 1")?;
        let (senders, subscribers) = (self.traffic.senders, self.subscribers());
        within((1..=subscribers).contains(&senders), "traffic.senders", "1 to the subscribers")?;
        within(messages <= MAX_MESSAGES.into(), "traffic.messages", "at most 1000000")?;
        within((0.001..=1e5).contains(&self.traffic.rate), "traffic.rate", "0.001 to 100000")?;
        let payload = self.traffic.payload;
        within((1..=MAX_PAYLOAD).contains(&payload), "traffic.payload", "1 to 69632")?;
        within(self.events.len() <= MAX_EVENTS, "event", "at most 64 tables")?;
        self.network.check()?;
        if let Some(ObjectsPart { keys }) = &self.objects {
            within((1..=100_000).contains(keys), "objects.keys", "1 to 100000")?;
            within(!self.announces, "announces", "false where there are objects")?;
        }
        if self.objects.is_some() || self.announces {
            let logs = !matches!(self.gossip.mode, Mode::Gossipsub | Mode::Iroh);
            within(logs, "gossip.mode", "one with logs where there are objects or a group")?;
            let honest = self.hostile == HostilePart::default();
            within(honest, "hostile", "nobody with objects or a group")?;
        }
        let hostile = &self.hostile;
        let shares = [hostile.droppers, hostile.liars, hostile.flooders, hostile.equivocators];
        within(shares.iter().all(|s| share(*s)), "hostile", "shares of 0 to 1")?;
        within(shares.iter().sum::<f64>() <= 0.9, "hostile", "at most 0.9 together")?;
        within((0.0..=8.0).contains(&hostile.sybils), "hostile.sybils", "0 to 8")?;
        let all = f64::from(self.nodes) * (1.0 + hostile.sybils);
        within(all <= f64::from(MAX_NODES), "hostile.sybils", "100000 nodes in all")?;
        within((0.0..=1e4).contains(&hostile.flood_rate), "hostile.flood_rate", "0 to 10000")?;
        self.events.iter().try_for_each(|event| {
            within(
                event.is_sane(),
                "event",
                "shares of 0 to 1, times of 0 to a week, positive rates",
            )
        })
    }
}

impl OverlayPart {
    /// The machine's configuration.
    #[must_use]
    pub fn config(&self) -> OverlayConfig {
        let mut config = OverlayConfig::default();
        config.active_target = self.active_target.unwrap_or(config.active_target);
        config.active_max = self.active_max.unwrap_or(config.active_max);
        config.passive_max = self.passive_max.unwrap_or(config.passive_max);
        config
    }
}

impl NetworkPart {
    fn check(&self) -> Result<(), ScenarioError> {
        let within = |holds: bool, what, must| {
            if holds { Ok(()) } else { Err(ScenarioError::Range { what, must }) }
        };
        let regions = self.latency_ms.len();
        within((1..=MAX_REGIONS).contains(&regions), "network.latency_ms", "of 1 to 32 regions")?;
        let square = self.latency_ms.iter().all(|row| row.len() == regions);
        within(square, "network.latency_ms", "as many columns as rows")?;
        let path = |[from, to]: &[f64; 2]| *from >= 0.1 && to >= from && *to <= 60_000.0;
        let paths = self.latency_ms.iter().flatten().all(path);
        within(paths, "network.latency_ms", "ranges within 0.1 to 60000")?;
        within((0.0..=60_000.0).contains(&self.jitter_ms), "network.jitter_ms", "0 to 60000")?;
        let bandwidth = (0.001..=1e6).contains(&self.bandwidth_mbit);
        within(bandwidth, "network.bandwidth_mbit", "0.001 to 1000000")?;
        within((1..=1 << 20).contains(&self.queue_kib), "network.queue_kib", "1 to 1048576")?;
        let [from, to] = self.detection_s;
        let detection = from >= 0.0 && to >= from && to <= 3600.0;
        within(detection, "network.detection_s", "a range within 0 to 3600")?;
        let dial = (0.1..=600.0).contains(&self.dial_timeout_s);
        within(dial, "network.dial_timeout_s", "0.1 to 600")?;
        let shares = share(self.punchable) && share(self.hidden) && share(self.datagram_loss);
        within(shares, "network", "shares of 0 to 1")?;
        within((0.0..=86_400.0).contains(&self.clock_skew_s), "network.clock_skew_s", "0 to 86400")
    }

    pub(super) const fn bytes_per_second(&self) -> u64 {
        (self.bandwidth_mbit * 125_000.0) as u64
    }

    pub(super) const fn queue_bytes(&self) -> u64 {
        self.queue_kib * 1024
    }

    pub(super) const fn jitter_micros(&self) -> u64 {
        (self.jitter_ms * 1000.0) as u64
    }

    pub(super) fn dial_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.dial_timeout_s)
    }

    /// In microseconds.
    pub(super) const fn detection(&self) -> Range<u64> {
        let [from, to] = self.detection_s;
        (from * 1e6) as u64..(to * 1e6) as u64
    }

    /// The least latency of all paths, in microseconds.
    pub(super) fn shortest_path(&self) -> u64 {
        let least = self.latency_ms.iter().flatten().map(|[from, _]| *from);
        (least.fold(f64::INFINITY, f64::min) * 1000.0) as u64
    }

    /// The latencies between two regions in microseconds.
    pub(super) fn path(&self, from: usize, to: usize) -> Range<u64> {
        let [low, high] = self.latency_ms[from][to];
        (low * 1000.0) as u64..(high * 1000.0) as u64
    }
}

impl Event {
    /// When it happens, in seconds after the first measured message.
    #[must_use]
    pub const fn at_s(&self) -> f64 {
        match self {
            Self::Kill { at_s, .. }
            | Self::Join { at_s, .. }
            | Self::Partition { at_s, .. }
            | Self::Churn { at_s, .. }
            | Self::Flap { at_s, .. }
            | Self::Restart { at_s, .. }
            | Self::Stall { at_s, .. }
            | Self::Slow { at_s, .. } => *at_s,
        }
    }

    fn is_sane(&self) -> bool {
        let time = |value: &f64| (0.0..=MAX_SECONDS).contains(value);
        time(&self.at_s())
            && match self {
                Self::Kill { share: part, .. } => share(*part),
                Self::Join { share: part, over_s, .. } => share(*part) && time(over_s),
                Self::Partition { share: part, for_s, .. }
                | Self::Stall { share: part, for_s, .. } => share(*part) && time(for_s),
                Self::Churn { for_s, rate, down_s, .. } => {
                    time(for_s) && time(down_s) && (0.001..=1000.0).contains(rate)
                }
                Self::Flap { for_s, period_s, nodes, .. } => {
                    time(for_s) && *period_s >= 0.1 && (1..=1000).contains(nodes)
                }
                Self::Restart { share: part, down_s, .. } => share(*part) && time(down_s),
                Self::Slow { nodes, kbit, latency_ms, .. } => {
                    *nodes <= 1000 && *kbit >= 1.0 && (0.0..=60_000.0).contains(latency_ms)
                }
            }
    }
}

fn share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

mod defaults {
    pub(super) const fn nodes() -> u32 {
        1000
    }

    pub(super) const fn drain() -> f64 {
        60.0
    }
}

impl Default for OverlayPart {
    fn default() -> Self {
        Self {
            formation_s: 20.0,
            settle_s: 40.0,
            bootstrap: 3,
            active_target: None,
            active_max: None,
            passive_max: None,
        }
    }
}

impl Default for TrafficPart {
    fn default() -> Self {
        Self { subscribers: 1.0, senders: 1, warmup: 20, messages: 100, rate: 10.0, payload: 256 }
    }
}

impl Default for NetworkPart {
    fn default() -> Self {
        Self {
            latency_ms: vec![vec![[10.0, 50.0]]],
            jitter_ms: 1.0,
            bandwidth_mbit: 100.0,
            queue_kib: 2048,
            detection_s: [5.0, 15.0],
            dial_timeout_s: 5.0,
            punchable: 0.0,
            hidden: 0.0,
            datagram_loss: 0.0,
            clock_skew_s: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let text = format!("name = \"x\"\nabout = \"y\"\n{text}");
        Scenario::parse(&text).expect_err("refused").to_string()
    }

    #[test]
    fn numbers_out_of_range_and_unknown_names_are_refused_by_name() {
        assert!(refusal("nodes = 1").starts_with("nodes must be"));
        assert!(refusal("[traffic]\nrate = nan").starts_with("traffic.rate must be"));
        assert!(refusal("[network]\nlatency_ms = [[[5.0, 1.0]]]").contains("latency_ms"));
        assert!(refusal("[network]\nlatency_ms = [[[5.0, 6.0]], []]").contains("columns"));
        assert!(refusal("speed = 3").contains("speed"));
        assert!(refusal("[[event]]\nkind = \"kill\"\nat_s = 1.0\nshare = 1.5").contains("event"));
        assert!(refusal("[overlay]\nactive_max = 1").contains("overlay"));
        assert!(Scenario::parse(&" ".repeat(MAX_FILE + 1)).is_err());
    }

    #[test]
    fn the_least_that_a_scenario_says_is_its_name() {
        let scenario = Scenario::parse("name = \"x\"\nabout = \"y\"").expect("valid");
        assert_eq!(scenario.nodes, 1000);
        assert_eq!(scenario.gossip.mode, Mode::Tree);
        assert_eq!(scenario.network.path(0, 0), 10_000..50_000);
    }
}
