//! The ground truth of a run: what was published, who has it, and whether each delivery was right.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasherDefault,
    sync::Arc,
    time::Duration,
};

use x0x_core::{AgentId, SeededRng, Tick};
use x0x_gossip_crdt::Dot;
use x0x_gossip_pubsub::Run;
use x0x_identity::SIGNATURE_LEN;

use super::{ids::Node, objects::Operations, stats::Times};
use crate::TraceHash;

/// A message's first spread is over after this time; what comes later is repair.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What is asked of the first spread, beside being complete.
const SOON: Duration = Duration::from_secs(5);

/// Most violations that are described; all are counted.
const MAX_DESCRIBED: usize = 16;

/// The first bytes of a run's signature, which name it: as good as random.
type RunKey = u128;

/// Maps of this simulator have no enemies, and their order is never used.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<TraceHash>>;

/// A published message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) at: Tick,
    pub(super) author: Node,
    pub(super) payload: u32,
    pub(super) measured: bool,
    /// Honest nodes that were there when it was published.
    pub(super) expected: u32,
    /// Copies that arrived anywhere, in the window.
    pub(super) copies: u32,
    /// Nodes other than its author that got it, in the window.
    pub(super) reached: u32,
    /// When the last of them did.
    pub(super) last: Tick,
    /// The most hops of any of them.
    pub(super) hops: u8,
    /// Hops and microseconds of a flood at the same moment.
    pub(super) flood: Option<(u8, u64)>,
    /// One bit a node that has it.
    have: Vec<u64>,
    /// Hops by node, until the window is over.
    hops_of: Vec<u8>,
}

impl Message {
    pub(super) fn has(&self, node: Node) -> bool {
        self.have[node as usize / 64] >> (node % 64) & 1 == 1
    }

    pub(super) fn holders(&self) -> u32 {
        self.have.iter().map(|word| word.count_ones()).sum()
    }
}

/// A log of an author's lifetime.
#[derive(Debug)]
struct Chain {
    author: AgentId,
    epoch: u64,
    /// The message of each sequence number from 1.
    messages: Vec<u32>,
}

/// A run that was signed.
#[derive(Debug)]
struct SignedRun {
    run: Arc<Run>,
    chain: u32,
}

/// A set of nodes that is to have all messages up to one.
#[derive(Debug, Clone, Copy)]
struct Watch {
    upto: u32,
    remaining: u64,
    since: Tick,
}

/// What was published and who has it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    capacity: usize,
    pub(super) messages: Vec<Message>,
    chains: Vec<Chain>,
    chain_of: Map<(AgentId, u64), u32>,
    runs: Map<RunKey, SignedRun>,
    /// Authors whose messages are nobody's loss.
    hostile: HashSet<AgentId>,
    /// By node: the last sequence number delivered of each chain, and numbers it was told to miss.
    heads: Vec<Vec<u64>>,
    credit: Vec<u64>,
    /// When each node began last: what is older comes to it by catching up.
    started: Vec<Tick>,
    /// The first message whose hops are still kept.
    fresh: usize,
    pub(super) latency: Times,
    pub(super) soon: u64,
    pub(super) in_window: u64,
    pub(super) late: u64,
    /// Deliveries of all kinds to others than the author.
    pub(super) delivered: u64,
    pub(super) lagged: u64,
    /// Signatures checked.
    pub(super) verifies: u64,
    pub(super) violation_count: u64,
    pub(super) violations: Vec<String>,
    /// Of the replicas, where there are some.
    pub(super) operations: Operations,
    everyone: Option<Watch>,
    pub(super) healed: Vec<Duration>,
    joiners: Map<Node, Watch>,
    pub(super) caught_up: Vec<Duration>,
}

impl Ledger {
    /// For at most so many nodes.
    pub(super) fn new(capacity: usize) -> Self {
        let heads = vec![Vec::new(); capacity];
        let started = vec![Tick::ZERO; capacity];
        Self { capacity, heads, credit: vec![0; capacity], started, ..Self::default() }
    }

    /// Notes a message that its author accepted. `chain` is empty for protocols without logs.
    pub(super) fn publish(
        &mut self,
        now: Tick,
        author: Node,
        chain: Option<(AgentId, u64, u64)>,
        what: (usize, bool, u32),
    ) -> u32 {
        let number = self.messages.len() as u32;
        let (payload, measured, expected) = what;
        self.messages.push(Message {
            at: now,
            author,
            payload: payload as u32,
            measured,
            expected,
            copies: 0,
            reached: 0,
            last: now,
            hops: 0,
            flood: None,
            have: vec![0; self.capacity.div_ceil(64)],
            hops_of: vec![u8::MAX; self.capacity],
        });
        self.forget_hops(now);
        if let Some(hops) = self.messages[number as usize].hops_of.get_mut(author as usize) {
            *hops = 0;
        }
        if let Some((agent, epoch, seq)) = chain {
            let chains = &mut self.chains;
            let index = *self.chain_of.entry((agent, epoch)).or_insert_with(|| {
                chains.push(Chain { author: agent, epoch, messages: Vec::new() });
                (chains.len() - 1) as u32
            });
            let chain = &mut self.chains[index as usize];
            if chain.messages.len() as u64 + 1 == seq {
                chain.messages.push(number);
            } else {
                self.violate(format!("node {author} gave sequence number {seq} out of turn"));
            }
        }
        number
    }

    /// Of these nodes and all messages that any of them has: how many deliveries there are to be, and
    /// how many are missing; and messages that none of them has.
    pub(super) fn missing(&self, nodes: &[Node]) -> (u64, u64, u64) {
        let mut mask = vec![0_u64; self.capacity.div_ceil(64)];
        nodes.iter().for_each(|node| mask[*node as usize / 64] |= 1 << (node % 64));
        let (mut expected, mut missing, mut gone) = (0, 0, 0);
        for message in &self.messages {
            let held =
                message.have.iter().zip(&mask).map(|(have, mask)| (have & mask).count_ones());
            let held = u64::from(held.sum::<u32>());
            if held == 0 {
                gone += 1;
            } else {
                expected += nodes.len() as u64;
                missing += nodes.len() as u64 - held;
            }
        }
        (expected, missing, gone)
    }

    fn forget_hops(&mut self, now: Tick) {
        while let Some(message) = self.messages.get_mut(self.fresh)
            && now.since(message.at) > WINDOW
        {
            message.hops_of = Vec::new();
            self.fresh += 1;
        }
    }

    /// Some chain: author, epoch and last sequence number.
    pub(super) fn some_chain(&self, rng: &mut SeededRng) -> Option<(AgentId, u64, u64)> {
        let chain = self.chains.get(rng.below(self.chains.len()))?;
        Some((chain.author, chain.epoch, chain.messages.len() as u64))
    }

    /// What this author publishes is not looked at.
    pub(super) fn ignore(&mut self, author: AgentId) {
        self.hostile.insert(author);
    }

    /// Notes a run as its author signed it.
    pub(super) fn sign(&mut self, run: Arc<Run>) {
        let body = run.body();
        let key = run_key(run.encoded());
        if let (Some(key), Some(chain)) = (key, self.chain_of.get(&(body.author(), body.epoch()))) {
            self.runs.insert(key, SignedRun { chain: *chain, run });
        }
    }

    /// The run with these encoded bytes, if an honest author signed it.
    pub(super) fn known(&self, encoded: &[u8]) -> Option<&Arc<Run>> {
        self.runs.get(&run_key(encoded)?).map(|signed| &signed.run)
    }

    /// A frame with payload arrives: counts a copy of each of its messages that is spreading.
    pub(super) fn copied(&mut self, now: Tick, frame: &[u8]) {
        let key = run_in(frame).and_then(run_key);
        let Some(signed) = key.and_then(|key| self.runs.get(&key)) else { return };
        let body = signed.run.body();
        for seq in body.first_seq()..=body.last_seq() {
            let message = self.chains[signed.chain as usize].messages[seq as usize - 1];
            let message = &mut self.messages[message as usize];
            message.copies += u32::from(now.since(message.at) <= WINDOW);
        }
    }

    /// A node takes a run from another: it is one hop farther than that one.
    pub(super) fn passed(&mut self, encoded: &[u8], from: Node, to: Node) {
        let signed = run_key(encoded).and_then(|key| self.runs.get(&key));
        let Some(signed) = signed else { return };
        let body = signed.run.body();
        let chain = signed.chain as usize;
        for seq in body.first_seq()..=body.last_seq() {
            let message = self.chains[chain].messages[seq as usize - 1];
            set_hop(&mut self.messages[message as usize], from, to);
        }
    }

    /// A protocol without logs passes a message on.
    pub(super) fn passed_message(&mut self, message: u32, from: Node, to: Node) {
        if let Some(message) = self.messages.get_mut(message as usize) {
            set_hop(message, from, to);
        }
    }

    /// A cursor of a node got a message, in the order of its log.
    pub(super) fn deliver(&mut self, now: Tick, node: Node, author: &AgentId, place: (u64, u64)) {
        let (epoch, seq) = place;
        let Some(&chain) = self.chain_of.get(&(*author, epoch)) else {
            if !self.hostile.contains(author) {
                self.violate(format!("node {node} got a message of an unknown author"));
            }
            return;
        };
        let heads = &mut self.heads[node as usize];
        if heads.len() <= chain as usize {
            heads.resize(self.chains.len(), 0);
        }
        let head = &mut heads[chain as usize];
        if seq <= *head {
            let text = format!("node {node} got message {seq} of chain {chain} after {head}");
            return self.violate(text);
        }
        let skipped = seq - *head - 1;
        *head = seq;
        let credit = &mut self.credit[node as usize];
        if skipped > *credit {
            let text = format!("node {node} missed {skipped} messages before {seq} of {chain}");
            self.violate(text);
        } else {
            *credit -= skipped;
        }
        match self.chains[chain as usize].messages.get(seq as usize - 1) {
            Some(message) => self.deliver_message(now, node, *message),
            None => {
                self.violate(format!("node {node} got message {seq} of {chain}: not published"))
            }
        }
    }

    /// A node got a message, whatever the order.
    pub(super) fn deliver_message(&mut self, now: Tick, node: Node, number: u32) {
        let Some(message) = self.messages.get_mut(number as usize) else { return };
        let (word, bit) = (node as usize / 64, 1_u64 << (node % 64));
        if message.have[word] & bit != 0 {
            return self.violate(format!("node {node} got message {number} twice"));
        }
        message.have[word] |= bit;
        self.watched(now, node, number);
        let message = &mut self.messages[number as usize];
        if node == message.author {
            return;
        }
        self.delivered += 1;
        let taken = now.since(message.at);
        if taken > WINDOW || self.started[node as usize] > message.at {
            self.late += 1;
            return;
        }
        message.reached += 1;
        message.last = message.last.max(now);
        if let Some(hops) = message.hops_of.get(node as usize)
            && *hops != u8::MAX
        {
            message.hops = message.hops.max(*hops);
        }
        if message.measured {
            self.in_window += 1;
            self.soon += u64::from(taken <= SOON);
            self.latency.add(taken.as_micros() as u64);
        }
    }

    /// A replica applied operations.
    pub(super) fn applied(&mut self, now: Tick, node: Node, operations: &[Dot]) {
        let started = self.started[node as usize];
        operations.iter().for_each(|dot| self.operations.apply(now, *dot, started));
    }

    /// A cursor was told that it will not see so many messages.
    pub(super) fn lag(&mut self, node: Node, missed: u64) {
        self.lagged += missed;
        self.credit[node as usize] += missed;
    }

    /// A node begins, with or without a disk.
    pub(super) fn start(&mut self, now: Tick, node: Node) {
        self.started[node as usize] = now;
    }

    /// A node begins anew with nothing: its cursor is a new one.
    pub(super) fn forget(&mut self, node: Node) {
        self.heads[node as usize].clear();
        self.credit[node as usize] = 0;
        for message in &mut self.messages {
            message.have[node as usize / 64] &= !(1 << (node % 64));
        }
    }

    /// From now on it is measured how long these nodes take to have all that was published.
    pub(super) fn watch(&mut self, now: Tick, nodes: &[Node]) {
        self.everyone = None;
        let upto = self.messages.len() as u32;
        let lacks = |node: &Node| self.lacking(*node, upto);
        let remaining = nodes.iter().map(lacks).sum();
        if remaining == 0 {
            self.healed.push(Duration::ZERO);
        } else {
            self.everyone = Some(Watch { upto, remaining, since: now });
        }
    }

    /// The nodes that must be complete have changed: counts anew what they lack.
    pub(super) fn rewatch(&mut self, nodes: &[Node]) {
        let Some(watch) = self.everyone else { return };
        let remaining = nodes.iter().map(|node| self.lacking(*node, watch.upto)).sum();
        self.everyone = Some(Watch { remaining, ..watch });
    }

    /// The same for one node that joins or comes back.
    pub(super) fn watch_joiner(&mut self, now: Tick, node: Node) {
        let upto = self.messages.len() as u32;
        let remaining = self.lacking(node, upto);
        if remaining > 0 {
            self.joiners.insert(node, Watch { upto, remaining, since: now });
        }
    }

    /// A node is gone and need not be waited for.
    pub(super) fn unwatch_joiner(&mut self, node: Node) {
        self.joiners.remove(&node);
    }

    /// Joiners that lack something of what was there before them.
    pub(super) fn behind(&self) -> usize {
        self.joiners.len()
    }

    /// Whether a watch is still open.
    pub(super) const fn is_watching(&self) -> bool {
        self.everyone.is_some()
    }

    fn lacking(&self, node: Node, upto: u32) -> u64 {
        let messages = &self.messages[..upto as usize];
        // What nobody has any more cannot be waited for.
        let lacking = messages.iter().filter(|m| !m.has(node) && m.holders() > 0);
        lacking.count() as u64
    }

    fn watched(&mut self, now: Tick, node: Node, message: u32) {
        if let Some(watch) = &mut self.everyone
            && message < watch.upto
        {
            watch.remaining = watch.remaining.saturating_sub(1);
            if watch.remaining == 0 {
                self.healed.push(now.since(watch.since));
                self.everyone = None;
            }
        }
        if let Some(watch) = self.joiners.get_mut(&node)
            && message < watch.upto
        {
            watch.remaining = watch.remaining.saturating_sub(1);
            if watch.remaining == 0 {
                self.caught_up.push(now.since(watch.since));
                self.joiners.remove(&node);
            }
        }
    }

    pub(super) fn violate(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < MAX_DESCRIBED {
            self.violations.push(text);
        }
    }
}

fn set_hop(message: &mut Message, from: Node, to: Node) {
    let before = message.hops_of.get(from as usize).copied().unwrap_or(u8::MAX);
    if let Some(hops) = message.hops_of.get_mut(to as usize)
        && *hops == u8::MAX
    {
        *hops = before.saturating_add(1).min(u8::MAX - 1);
    }
}

/// The first bytes of the signature, which ends an encoded run.
fn run_key(encoded: &[u8]) -> Option<RunKey> {
    let start = encoded.len().checked_sub(SIGNATURE_LEN)?;
    encoded[start..].first_chunk().map(|bytes| u128::from_le_bytes(*bytes))
}

/// The encoded run in a publish frame: the first field of its one message.
fn run_in(frame: &[u8]) -> Option<&[u8]> {
    let (_, inner) = field(frame)?;
    let (tag, run) = field(inner)?;
    (tag == RUN_TAG).then_some(run)
}

/// Key of a length-delimited field 1.
const RUN_TAG: u8 = 0x0a;

/// A length-delimited field with a tag of one byte.
fn field(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, mut rest) = bytes.split_first()?;
    let mut len = 0_usize;
    for shift in (0..28).step_by(7) {
        let (byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((*tag, rest.get(..len)?));
        }
    }
    None
}
