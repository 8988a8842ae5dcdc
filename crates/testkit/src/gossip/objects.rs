//! Replicas above the topic: each node keeps a key-value store, what is published are its operations, and what is
//! delivered is applied as the driver of objects does it.

use std::{collections::BTreeMap, convert::Infallible, fmt, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use x0x_core::{AgentId, Machine as _, Tick, TopicId, WallTime};
use x0x_gossip_crdt::{
    ActorTag, CrdtMetrics, Dot, Entry, Input, ObjectMachine, Output,
    kv::{If, KvStore, Put},
};
use x0x_gossip_pubsub::Message;

use super::{ids::Node, stats::Times, world::World};

/// Of so many operations one deletes a key, if that has a value.
const DELETES: usize = 8;

/// A node's replica.
pub(super) struct Replica {
    machine: ObjectMachine<KvStore>,
    keys: u32,
    writes: u64,
}

impl Replica {
    pub(super) fn new(topic: TopicId, me: AgentId, keys: u32, metrics: &Arc<CrdtMetrics>) -> Self {
        let machine = ObjectMachine::new(topic, None, me, Arc::clone(metrics));
        Self { machine, keys, writes: 0 }
    }

    /// The next operation as entries for the log: by its number, a value of so many bytes under some key, or a
    /// key's deletion.
    pub(super) fn prepare(&mut self, now: WallTime, number: usize, len: usize) -> Vec<Bytes> {
        // Steps that share no divisor with most numbers of keys, so that writers meet at all of them.
        let key = format!("key-{:05}", number * 7919 % self.keys.max(1) as usize);
        let mut value = vec![0; len];
        value.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, part)| *byte = part);
        let (state, cx) = (self.machine.state(), self.machine.write_context(now));
        let delete = number.is_multiple_of(DELETES) && state.get(&key, now).is_some();
        let op = if delete {
            state.delete_key(&cx, &key, If::Always)
        } else {
            state.set(&cx, Put::new(key, value), If::Always)
        };
        let prepared = op.ok().and_then(|op| self.machine.prepare::<Infallible>(now, &op).ok());
        prepared.map(|prepared| prepared.payloads).unwrap_or_default()
    }

    /// The log took the entry that was prepared first of those that are left, or refused it.
    pub(super) fn accepted(&mut self, now: Tick, place: Option<(u64, u64)>) {
        self.writes += 1;
        let input = match place {
            Some((epoch, seq)) => Input::Accepted { write: Some(self.writes), epoch, seq },
            None => Input::NotAccepted,
        };
        self.machine.handle(now, input);
    }

    /// Applies what was delivered. Gives the operations that were applied with it, and whether the log would have
    /// to be read again.
    pub(super) fn deliver(&mut self, now: Tick, message: Message) -> (Vec<Dot>, bool) {
        let Message { author, epoch, seq, time, payload, .. } = message;
        self.machine.handle(now, Input::Entry(Entry { author, epoch, seq, time, payload }));
        let (mut applied, mut reread) = (Vec::new(), false);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Changed(change) => applied.push(change.dot),
                Output::Reread => reread = true,
                _ => {}
            }
        }
        (applied, reread)
    }

    /// Operations that it knows to be valid or not, and those that wait for others.
    pub(super) fn processed(&self) -> (u64, usize) {
        let (applied, pending, invalid) = self.machine.counts();
        (applied + invalid, pending)
    }
}

/// When operations were written, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Operations {
    written: BTreeMap<Dot, Tick>,
    /// Bytes of their entries' payloads.
    bytes: u64,
    latency: Times,
    longest: u64,
}

impl Operations {
    pub(super) fn write(&mut self, now: Tick, author: &AgentId, place: (u64, u64), bytes: usize) {
        let (epoch, seq) = place;
        self.written.insert(Dot { actor: ActorTag::of(author, epoch), seq }, now);
        self.bytes += bytes as u64;
    }

    /// A replica applied an operation. What is older than the node's start comes to it by catching up.
    pub(super) fn apply(&mut self, now: Tick, dot: Dot, started: Tick) {
        let Some(at) = self.written.get(&dot).filter(|at| **at >= started) else { return };
        let micros = now.since(*at).as_micros() as u64;
        self.latency.add(micros);
        self.longest = self.longest.max(micros);
    }
}

/// What is measured of the replicas.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ObjectsReport {
    /// Operations that were written.
    pub operations: usize,
    /// Replicas at the end, with those that came back.
    pub replicas: usize,
    /// Different states among them at the end, by hash: 1 when all are equal.
    pub states: usize,
    /// Operations that wait for others at the end.
    pub pending: usize,
    /// Bytes of an operation in the log, key and value included and the run's signature not: the average.
    pub entry_bytes: f64,
    /// Bytes of all kinds that a node sent in the measured time for each operation written then.
    pub sent_bytes: f64,
    /// Milliseconds until an operation was applied at a replica that was there: median, 99th percentile, longest.
    pub applied_ms_p50: f64,
    /// See [`applied_ms_p50`](Self::applied_ms_p50).
    pub applied_ms_p99: f64,
    /// See [`applied_ms_p50`](Self::applied_ms_p50).
    pub applied_ms_max: f64,
}

impl ObjectsReport {
    /// Of these nodes; none where there are no replicas.
    pub(super) fn new(world: &World, nodes: &[Node], sent: u64, measured: usize) -> Option<Self> {
        world.scenario.objects.as_ref()?;
        let replicas: Vec<_> = nodes.iter().filter_map(|node| world.replica(*node)).collect();
        let mut hashes: Vec<_> = replicas.iter().map(|replica| replica.machine.hash()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let operations = &world.ledger.operations;
        let written = operations.written.len();
        Some(Self {
            operations: written,
            replicas: replicas.len(),
            states: hashes.len(),
            pending: replicas.iter().map(|replica| replica.processed().1).sum(),
            entry_bytes: operations.bytes as f64 / written.max(1) as f64,
            sent_bytes: sent as f64 / measured.max(1) as f64 / nodes.len().max(1) as f64,
            applied_ms_p50: operations.latency.percentile(0.5),
            applied_ms_p99: operations.latency.percentile(0.99),
            applied_ms_max: operations.longest as f64 / 1000.0,
        })
    }
}

impl fmt::Display for ObjectsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            (
                "operations / replicas / states",
                format!("{} / {} / {}", self.operations, self.replicas, self.states),
            ),
            (
                "applied ms p50 / p99 / max",
                format!(
                    "{:.0} / {:.0} / {:.0}",
                    self.applied_ms_p50, self.applied_ms_p99, self.applied_ms_max
                ),
            ),
            (
                "bytes/operation log / sent",
                format!("{:.0} / {:.0}", self.entry_bytes, self.sent_bytes),
            ),
        ];
        rows.into_iter().try_for_each(|(name, value)| writeln!(f, "  {name:<30} {value}"))
    }
}

impl World {
    /// The replica of a node that runs.
    pub(super) fn replica(&self, node: Node) -> Option<&Replica> {
        self.nodes[node as usize].as_ref()?.gossip.replica()
    }

    /// Whether all replicas of these nodes have processed as many operations, and nothing waits.
    pub(super) fn replicas_agree(&self, nodes: &[Node]) -> bool {
        let mut counts =
            nodes.iter().filter_map(|node| self.replica(*node)).map(Replica::processed);
        let Some(first) = counts.next() else { return true };
        first.1 == 0 && counts.all(|count| count == first)
    }
}
