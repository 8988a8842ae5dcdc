//! What a run is measured by.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    announce::AnnounceReport,
    ids::Node,
    ledger::Message,
    net::Sent,
    objects::ObjectsReport,
    scenario::Scenario,
    stats::{mean, percentile},
    world::World,
};

/// Survivors of a kill, some shuffles later.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Connectivity {
    /// Shuffle intervals after the kill.
    pub shuffles: u32,
    /// Nodes that survived.
    pub survivors: usize,
    /// Components of the overlay that they form.
    pub components: usize,
    /// Share of the survivors in the largest one.
    pub largest: f64,
    /// Share of the survivors that have a message published then, ten seconds later.
    pub delivery: f64,
}

/// What a run measured. Shares are of 1, times in the unit of their name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The protocol.
    pub mode: &'static str,
    /// The seed, which with the scenario replays the run.
    pub seed: u64,
    /// Honest nodes at the start.
    pub nodes: u32,
    /// Honest nodes at the end.
    pub nodes_at_end: usize,
    /// Messages published, those of the warm-up included.
    pub messages: usize,
    /// Messages that nobody could publish: no sender was there, or it was busy.
    pub unpublished: u64,
    /// Digest of everything that happened.
    pub trace_hash: String,
    /// Deliveries at the end, of all that are to be: each honest node that runs at the end, each
    /// message that any of them has.
    pub delivery: f64,
    /// Deliveries that are missing at the end.
    pub missing: u64,
    /// Messages that no node has any more: their author and all who had them are gone.
    pub gone: u64,
    /// Messages that cursors were told they would not see.
    pub lagged: u64,
    /// Deliveries twice, out of order, or of what was never published.
    pub violations: u64,
    /// The first of them.
    pub violation_texts: Vec<String>,
    /// Measured deliveries to nodes that were there at publishing, within 5 s.
    pub delivery_5s: f64,
    /// The same within 10 s.
    pub delivery_10s: f64,
    /// Copies of a message that arrived for each node that it reached, less one: the average.
    pub rmr: f64,
    /// The 99th percentile of that.
    pub rmr_p99: f64,
    /// That of the very first message, before there is a tree.
    pub rmr_first: f64,
    /// Hops to the last node reached: median, 99th percentile and maximum over the messages.
    pub ldh_p50: f64,
    /// See [`ldh_p50`](Self::ldh_p50).
    pub ldh_p99: f64,
    /// See [`ldh_p50`](Self::ldh_p50).
    pub ldh_max: f64,
    /// The same of a flood over the same links at the same moments.
    pub flood_ldh_p50: f64,
    /// See [`flood_ldh_p50`](Self::flood_ldh_p50).
    pub flood_ldh_p99: f64,
    /// Milliseconds until the last node had a message: median and 99th percentile over the messages.
    pub last_ms_p50: f64,
    /// See [`last_ms_p50`](Self::last_ms_p50).
    pub last_ms_p99: f64,
    /// The same of a flood.
    pub flood_last_ms_p50: f64,
    /// See [`flood_last_ms_p50`](Self::flood_last_ms_p50).
    pub flood_last_ms_p99: f64,
    /// Milliseconds until a node had a message: median and 99th percentile over all deliveries.
    pub latency_ms_p50: f64,
    /// See [`latency_ms_p50`](Self::latency_ms_p50).
    pub latency_ms_p99: f64,
    /// Bytes of frames that a node sent in a second of the measured time.
    pub bytes_per_node_s: f64,
    /// The same before anything was published.
    pub idle_bytes_per_node_s: f64,
    /// Bytes without payload for each byte of a frame with payload, in the measured time.
    pub control_overhead: f64,
    /// Bytes sent for each delivery in the measured time.
    pub bytes_per_delivery: f64,
    /// Signature checks for each delivery of the whole run.
    pub verifies_per_delivery: f64,
    /// Seconds from the end of a partition until every node had everything published before; the
    /// longest. None without a partition.
    pub heal_s: Option<f64>,
    /// Seconds from a join or return until the node had everything published before: median and
    /// maximum.
    pub catch_up_s_p50: Option<f64>,
    /// See [`catch_up_s_p50`](Self::catch_up_s_p50).
    pub catch_up_s_max: Option<f64>,
    /// Joined or returned nodes that never had it.
    pub behind: usize,
    /// Seconds after the last message and event until no delivery was missing.
    pub complete_s: Option<f64>,
    /// After a kill.
    pub connectivity: Vec<Connectivity>,
    /// Of the replicas, where there are some.
    pub objects: Option<ObjectsReport>,
    /// Of a group's readers, where there is one.
    pub announces: Option<AnnounceReport>,
    /// Frames that a full queue refused.
    pub refused: u64,
    /// Frames that a partition swallowed.
    pub lost: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Events that reached a machine: the sum of the next three.
    pub events: u64,
    /// Frames that were delivered.
    pub events_frames: u64,
    /// Timers that ran out.
    pub events_timers: u64,
    /// Sessions that began or ended, ends of dials, queues with room, signatures, and what the
    /// scenario did to a node.
    pub events_commands: u64,
    /// Simulated seconds.
    pub simulated_s: f64,
}

/// What the script notes on its way.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) unpublished: u64,
    pub(super) idle: f64,
    pub(super) load: f64,
    pub(super) load_sent: (Sent, Sent),
    pub(super) complete: Option<Duration>,
    pub(super) connectivity: Vec<Connectivity>,
}

/// The figures of single messages.
struct Spread {
    rmr: Vec<f64>,
    hops: Vec<f64>,
    last: Vec<f64>,
    flood_hops: Vec<f64>,
    flood_last: Vec<f64>,
    expected: u64,
}

fn redundancy(message: &Message) -> f64 {
    f64::from(message.copies) / f64::from(message.reached.max(1)) - 1.0
}

impl Spread {
    fn of(messages: &[Message]) -> Self {
        let measured: Vec<&Message> = messages.iter().filter(|m| m.measured).collect();
        let each = |value: fn(&Message) -> f64| measured.iter().map(|m| value(m)).collect();
        let floods: Vec<(u8, u64)> = measured.iter().filter_map(|m| m.flood).collect();
        Self {
            rmr: each(redundancy),
            hops: each(|m| m.hops.into()),
            last: each(|m| m.last.since(m.at).as_secs_f64() * 1000.0),
            flood_hops: floods.iter().map(|flood| flood.0.into()).collect(),
            flood_last: floods.iter().map(|flood| flood.1 as f64 / 1000.0).collect(),
            expected: measured.iter().map(|m| u64::from(m.expected.saturating_sub(1))).sum(),
        }
    }
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

impl Report {
    pub(super) fn new(
        scenario: &Scenario,
        seed: u64,
        world: &World,
        nodes: &[Node],
        measures: Measures,
    ) -> Self {
        let ledger = &world.ledger;
        let (expected, missing, gone) = ledger.missing(nodes);
        let spread = Spread::of(&ledger.messages);
        let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        let (before, after) = &measures.load_sent;
        let payload = after.payload - before.payload;
        let other = after.total() - before.total() - payload;
        let (healed, caught_up) = (seconds(&ledger.healed), seconds(&ledger.caught_up));
        let some = |values: &[f64], at| (!values.is_empty()).then(|| percentile(values, at));
        Self {
            scenario: scenario.name.clone(),
            mode: scenario.gossip.mode.name(),
            seed,
            nodes: scenario.nodes,
            nodes_at_end: nodes.len(),
            messages: ledger.messages.len(),
            unpublished: measures.unpublished,
            trace_hash: format!("{:016x}", world.net.trace_hash()),
            delivery: 1.0 - share(missing, expected),
            missing,
            gone,
            lagged: ledger.lagged,
            violations: ledger.violation_count,
            violation_texts: ledger.violations.clone(),
            delivery_5s: share(ledger.soon, spread.expected),
            delivery_10s: share(ledger.in_window, spread.expected),
            rmr: mean(&spread.rmr),
            rmr_p99: percentile(&spread.rmr, 0.99),
            rmr_first: ledger.messages.first().map_or(0.0, redundancy),
            ldh_p50: percentile(&spread.hops, 0.5),
            ldh_p99: percentile(&spread.hops, 0.99),
            ldh_max: percentile(&spread.hops, 1.0),
            flood_ldh_p50: percentile(&spread.flood_hops, 0.5),
            flood_ldh_p99: percentile(&spread.flood_hops, 0.99),
            last_ms_p50: percentile(&spread.last, 0.5),
            last_ms_p99: percentile(&spread.last, 0.99),
            flood_last_ms_p50: percentile(&spread.flood_last, 0.5),
            flood_last_ms_p99: percentile(&spread.flood_last, 0.99),
            latency_ms_p50: ledger.latency.percentile(0.5),
            latency_ms_p99: ledger.latency.percentile(0.99),
            bytes_per_node_s: measures.load,
            idle_bytes_per_node_s: measures.idle,
            control_overhead: share(other, payload),
            bytes_per_delivery: share(payload + other, ledger.in_window),
            verifies_per_delivery: share(ledger.verifies, ledger.delivered),
            heal_s: if ledger.is_watching() { None } else { some(&healed, 1.0) },
            catch_up_s_p50: some(&caught_up, 0.5),
            catch_up_s_max: some(&caught_up, 1.0),
            behind: ledger.behind(),
            complete_s: measures.complete.map(|time| time.as_secs_f64()),
            connectivity: measures.connectivity,
            objects: ObjectsReport::new(world, nodes, payload + other, spread.rmr.len()),
            announces: AnnounceReport::new(world, nodes),
            refused: world.net.refused,
            lost: world.net.lost,
            failed_dials: world.net.failed_dials,
            events: world.counts.total(),
            events_frames: world.counts.frames,
            events_timers: world.counts.timers,
            events_commands: world.counts.commands,
            simulated_s: world.net.now().since(x0x_core::Tick::ZERO).as_secs_f64(),
        }
    }

    /// Whether nothing was delivered wrongly, and replicas that have everything are equal.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        let complete = self.missing == 0 && self.lagged == 0;
        let equal = self.objects.as_ref().is_none_or(|objects| objects.states <= 1)
            && self.announces.as_ref().is_none_or(|readers| readers.walls <= 1);
        self.violations == 0 && (equal || !complete)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        writeln!(f, "{} ({}), {} nodes, seed {}", self.scenario, self.mode, self.nodes, self.seed)?;
        let rows = [
            ("messages", format!("{} ({} not published)", self.messages, self.unpublished)),
            ("delivery", format!("{:.6} ({} missing)", self.delivery, self.missing)),
            ("within 5 s / 10 s", format!("{:.6} / {:.6}", self.delivery_5s, self.delivery_10s)),
            (
                "lagged / gone / violations",
                format!("{} / {} / {}", self.lagged, self.gone, self.violations),
            ),
            (
                "RMR mean / p99 / first",
                format!("{:.3} / {:.3} / {:.2}", self.rmr, self.rmr_p99, self.rmr_first),
            ),
            ("last-delivery hops p50 / p99", format!("{} / {}", self.ldh_p50, self.ldh_p99)),
            ("  of a flood", format!("{} / {}", self.flood_ldh_p50, self.flood_ldh_p99)),
            (
                "last delivery ms p50 / p99",
                format!("{:.0} / {:.0}", self.last_ms_p50, self.last_ms_p99),
            ),
            (
                "  of a flood",
                format!("{:.0} / {:.0}", self.flood_last_ms_p50, self.flood_last_ms_p99),
            ),
            (
                "latency ms p50 / p99",
                format!("{:.0} / {:.0}", self.latency_ms_p50, self.latency_ms_p99),
            ),
            (
                "bytes/node/s load / idle",
                format!("{:.0} / {:.0}", self.bytes_per_node_s, self.idle_bytes_per_node_s),
            ),
            ("bytes per delivery", format!("{:.0}", self.bytes_per_delivery)),
            ("control overhead", format!("{:.3}", self.control_overhead)),
            ("signature checks per delivery", format!("{:.3}", self.verifies_per_delivery)),
            ("heal s", optional(self.heal_s)),
            (
                "catch-up s p50 / max",
                format!(
                    "{} / {} ({} behind)",
                    optional(self.catch_up_s_p50),
                    optional(self.catch_up_s_max),
                    self.behind
                ),
            ),
            ("complete after s", optional(self.complete_s)),
            (
                "refused / lost / failed dials",
                format!("{} / {} / {}", self.refused, self.lost, self.failed_dials),
            ),
            ("events / simulated s", format!("{} / {:.0}", self.events, self.simulated_s)),
            ("trace hash", self.trace_hash.clone()),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<30} {value}")?;
        }
        self.objects.iter().try_for_each(|objects| write!(f, "{objects}"))?;
        self.announces.iter().try_for_each(|readers| write!(f, "{readers}"))?;
        for look in &self.connectivity {
            writeln!(
                f,
                "  after {} shuffles: {} survivors, {} components, largest {:.4}, delivery {:.4}",
                look.shuffles, look.survivors, look.components, look.largest, look.delivery
            )?;
        }
        self.violation_texts.iter().try_for_each(|text| writeln!(f, "  VIOLATION: {text}"))
    }
}
