//! A hundred thousand hostile frames of every kind: no table grows beyond its cap.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{AgentId, Machine as _, MachineId, SeededRng, Tick, TopicId};
use x0x_gossip_pubsub::{
    Input, Limits, NetworkId, Output, PubSubMachine, PubSubMetrics, Start, testing::RunForge,
    topic_id,
};
use x0x_identity::testing;

use crate::{
    frames::{self, Fields},
    harness::{NETWORK, WALL},
};

const FRAMES: usize = 100_000;
const PEERS: usize = 40;
const SEED: u64 = 7;

fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.topics, limits.links, limits.strangers) = (16, 24, 6);
    (limits.topic_entries, limits.topic_bytes, limits.log_bytes) = (96, 512 << 10, 1 << 20);
    (limits.topic_authors, limits.authors, limits.former_authors) = (48, 80, 400);
    (limits.keys, limits.spare_chains, limits.penalties) = (24, 16, 32);
    (limits.link_heads, limits.link_wants) = (96, 12);
    (limits.missing, limits.link_missing) = (128, 40);
    limits.equivocation_proofs = 4;
    limits
}

/// A hostile world around one machine.
struct Flood {
    rng: SeededRng,
    machine: PubSubMachine,
    now: Tick,
    peers: Vec<MachineId>,
    born: u64,
    topics: Vec<TopicId>,
    /// Runs with their author's key and place.
    runs: Vec<(Bytes, Vec<u8>, AgentId, u64, u64)>,
    disconnected: VecDeque<MachineId>,
}

impl Flood {
    fn new() -> Self {
        let topics: Vec<TopicId> = (0..6).map(|n| topic_id(&format!("flood {n}"))).collect();
        let key = testing::key(1).public_key().clone();
        let network = NetworkId::from_name(NETWORK);
        let metrics = Arc::new(PubSubMetrics::default());
        let machine = PubSubMachine::new(network, key, limits(), metrics);
        let mut flood = Self {
            rng: SeededRng::from_number(SEED),
            machine,
            now: Tick::from_millis(1),
            peers: Vec::new(),
            born: 0,
            runs: Self::runs(&topics),
            topics,
            disconnected: VecDeque::new(),
        };
        flood.machine.handle(flood.now, Input::Wall(WALL));
        for topic in flood.topics.clone() {
            flood.machine.subscribe(flood.now, topic, Start::Retained).expect("room");
        }
        (0..PEERS).for_each(|_| flood.born());
        flood
    }

    /// Chains of many authors, in several topics and epochs; some authors sign two histories.
    fn runs(topics: &[TopicId]) -> Vec<(Bytes, Vec<u8>, AgentId, u64, u64)> {
        let mut runs = Vec::new();
        for n in 0..160 {
            let topic = topics[n as usize % 4];
            let network = NetworkId::from_name(NETWORK);
            let mut forge = RunForge::new(testing::key(2000 + n), network, topic, WALL);
            forge.epoch += n % 3;
            let key = forge.key.public_key().as_bytes().to_vec();
            let mut last = None;
            for text in ["a", "b", "c"] {
                let run = forge.run(last.as_ref(), &[text.as_bytes(), &[7; 600]]);
                let seq = run.body().last_seq();
                runs.push((run.encoded().clone(), key.clone(), forge.author(), forge.epoch, seq));
                last = Some(run);
            }
            if n % 16 == 0 {
                let other = forge.run(None, &[b"another"]);
                runs.push((other.encoded().clone(), key, forge.author(), forge.epoch, 1));
            }
        }
        runs
    }

    /// A new peer: half of them are neighbours.
    fn born(&mut self) {
        self.born += 1;
        let mut id = [9; 32];
        id[..8].copy_from_slice(&self.born.to_be_bytes());
        let peer = MachineId::new(id);
        let from = format!("198.51.{}.7", self.rng.below(6)).parse().expect("an address");
        self.machine.handle(self.now, Input::Path { peer, from });
        if self.rng.chance(0.5) {
            self.machine.handle(self.now, Input::LinkUp(peer));
        }
        self.peers.push(peer);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { peer, .. } if self.rng.chance(0.05) => {
                    self.machine.handle(self.now, Input::SendRefused(peer));
                }
                Output::Verify(pending) => {
                    let checked = pending.verify();
                    self.machine.handle(self.now, Input::Verified(checked));
                }
                Output::Disconnect(peer) => self.disconnected.push_back(peer),
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        let index = self.rng.below(PEERS);
        let peer = self.peers[index];
        // Some send so much that is broken that their session ends for it.
        let message = self.message(if index < 4 { 4 } else { 200 });
        self.machine.handle(self.now, Input::Frame { peer, message });
        self.drain();
        if self.rng.chance(0.01) {
            self.disconnected.push_back(peer);
        }
        while let Some(gone) = self.disconnected.pop_front() {
            if let Some(index) = self.peers.iter().position(|peer| *peer == gone) {
                self.machine.handle(self.now, Input::LinkDown(gone));
                self.peers.swap_remove(index);
                self.born();
            }
        }
        if self.rng.chance(0.1) {
            self.machine.handle(self.now, Input::Writable(peer));
            self.now = self.now + Duration::from_micros(self.rng.range(0, 200_000));
            self.machine.handle_timeout(self.now);
            self.drain();
        }
    }

    /// A frame of any kind; of so many, two are cut or damaged.
    fn message(&mut self, sound: usize) -> Bytes {
        let whole = match self.rng.below(13) {
            0 => self.subscriptions(),
            1..4 => self.publish(),
            4 => self.chain().number(4, self.rng.next_u64() % 5).number(5, 1).frame(3),
            5 => self.announce(),
            6 => self.chain().number(4, u64::from(self.rng.chance(0.5))).frame(5),
            7 => self.chain().number(4, 1).number(5, u64::from(self.rng.chance(0.5))).frame(6),
            8 => self.topic().bytes(2, &[self.byte(); 16]).number(3, self.number()).frame(7),
            9 => {
                let most = self.most(256);
                let heads: Vec<Fields> = (0..most).map(|_| self.head()).collect();
                frames::heads(self.topic_id(), heads.into_iter(), self.rng.chance(0.5))
            }
            10 => self.ranges(),
            11 => self.topic().number(2, self.number()).number(3, 3).frame(10),
            _ => {
                let peer = (MachineId::new([self.byte(); 32]), "203.0.113.9:1 10.0.0.1:2");
                frames::peers_found(self.topic_id(), self.number(), &[peer])
            }
        };
        match self.rng.below(sound) {
            0 => whole.slice(..self.rng.below(whole.len())),
            1 => {
                let mut damaged = whole.to_vec();
                let at = self.rng.below(damaged.len());
                damaged[at] ^= 1 << self.rng.below(8);
                damaged.into()
            }
            _ => whole,
        }
    }

    /// How many items a frame has: mostly few.
    fn most(&mut self, max: usize) -> usize {
        if self.rng.chance(0.02) { max } else { self.rng.below(max.min(8)) }
    }

    fn byte(&mut self) -> u8 {
        (self.rng.next_u64() & 0xff) as u8
    }

    /// Small, large or any.
    fn number(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => u64::MAX - self.rng.next_u64() % 3,
            1 => self.rng.next_u64(),
            _ => self.rng.next_u64() % 600,
        }
    }

    /// Mostly one that is subscribed.
    fn topic_id(&mut self) -> TopicId {
        if self.rng.chance(0.8) {
            self.topics[self.rng.below(self.topics.len())]
        } else {
            TopicId::new([self.byte(); 32])
        }
    }

    fn topic(&mut self) -> Fields {
        frames::topic(self.topic_id())
    }

    /// A chain that exists, or one that does not.
    fn place(&mut self) -> (AgentId, u64, u64) {
        if self.rng.chance(0.5) {
            let (_, _, author, epoch, seq) = self.runs[self.rng.below(self.runs.len())];
            (author, epoch, seq + self.rng.next_u64() % 3)
        } else {
            (AgentId::new([self.byte(); 32]), self.number(), self.number())
        }
    }

    fn head(&mut self) -> Fields {
        let (author, epoch, seq) = self.place();
        frames::head(author, epoch, seq).number(4, u64::from(self.rng.chance(0.3)))
    }

    /// Topic and chain, as wants, prunes and grafts begin.
    fn chain(&mut self) -> Fields {
        let (author, epoch, _) = self.place();
        self.topic().bytes(2, author.as_bytes()).number(3, epoch)
    }

    fn subscriptions(&mut self) -> Bytes {
        let mut fields = Fields::default().number(1, u64::from(self.rng.chance(0.1)));
        for _ in 0..self.most(20) {
            let heads: Vec<Fields> = (0..self.most(16)).map(|_| self.head()).collect();
            let count = heads.len() as u64;
            let topic = self.topic().all(2, heads).bytes(3, &[self.byte(); 16]).number(4, count);
            fields = fields.all(2, [topic]);
        }
        for _ in 0..self.rng.below(3) {
            fields = fields.bytes(3, self.topic_id().as_bytes());
        }
        let (again, leave) = (self.rng.chance(0.05), self.rng.chance(0.01));
        fields.number(4, u64::from(again)).number(5, u64::from(leave)).frame(1)
    }

    fn publish(&mut self) -> Bytes {
        let (run, key, ..) = self.runs[self.rng.below(self.runs.len())].clone();
        let key = if self.rng.chance(0.9) { &key[..] } else { &[] };
        frames::publish(&run, key, self.rng.chance(0.3), self.rng.next_u64() as u32)
    }

    fn announce(&mut self) -> Bytes {
        let heads: Vec<_> = (0..self.most(64))
            .map(|_| {
                let (author, epoch, seq) = self.place();
                (author, epoch, seq, self.rng.next_u64() as u32 % 9)
            })
            .collect();
        frames::announce(self.topic_id(), &heads)
    }

    fn ranges(&mut self) -> Bytes {
        let mut ends: Vec<_> = (0..self.most(40)).map(|_| self.place()).collect();
        ends.sort_unstable();
        ends.dedup_by_key(|(author, epoch, _)| (*author, *epoch));
        let ranges: Vec<Fields> = ends
            .into_iter()
            .map(|(author, epoch, _)| {
                let end = Fields::default().bytes(1, author.as_bytes()).number(2, epoch);
                let range = end.number(3, self.rng.next_u64() % 4).bytes(4, &[self.byte(); 16]);
                range.all(5, (0..self.rng.below(4)).map(|_| self.head()).collect::<Vec<_>>())
            })
            .collect();
        self.topic().all(2, ranges).frame(9)
    }

    /// What is in the logs grows too old for them, though not for being accepted.
    fn sleep(&mut self) {
        let day = Duration::from_secs(24 * 3600 + 600);
        self.now = self.now + day;
        self.machine.handle(self.now, Input::Wall(WALL + day));
        self.machine.handle_timeout(self.now);
        self.drain();
    }

    fn check(&self, step: usize) {
        let snapshot = self.machine.snapshot();
        for table in &snapshot.tables {
            assert!(table.len <= table.max, "seed {SEED}, frame {step}: {table:?}");
        }
        let bound = limits().memory_bound();
        assert!(snapshot.memory <= bound, "seed {SEED}, frame {step}: {} bytes", snapshot.memory);
    }
}

#[test]
fn a_hundred_thousand_hostile_frames_leave_every_table_within_its_cap() {
    let mut flood = Flood::new();
    for step in 0..FRAMES {
        flood.step();
        if step == FRAMES / 2 {
            flood.sleep();
        }
        if step % 1000 == 0 {
            flood.check(step);
        }
    }
    flood.check(FRAMES);
    // It was not all refused at the door.
    let metrics = flood.machine.metrics().snapshot();
    let reached = [
        "pubsub_runs_accepted",
        "pubsub_duplicates",
        "pubsub_equivocations",
        "pubsub_wants_received",
        "pubsub_wants_sent",
        "pubsub_grafts_received",
        "pubsub_prunes_received",
        "pubsub_comparisons",
        "pubsub_refused_strangers",
        "pubsub_authors_expelled",
        "pubsub_refused_malformed",
        "pubsub_missing_given_up",
        "pubsub_peers_disconnected",
        "pubsub_searches_sent",
    ];
    let counted = |name: &&str| metrics.iter().any(|m| m.name == *name && m.value > 0);
    let missed: Vec<&str> = reached.into_iter().filter(|name| !counted(name)).collect();
    assert_eq!(missed, [""; 0], "seed {SEED}");
}
