//! Failure detection on active links, beside what the transport's own idle timeout finds: a neighbour
//! whose machine answers and whose process does not, a path that lost one direction, a session with
//! a process that was restarted since. SWIM with the refinements of Lifeguard (see
//! [`health`](crate::health)), except that a verdict stays local: it ends a link, and is told to nobody.
//!
//! One neighbour after the other is pinged. One that is late is pinged again by up to three others; if
//! they find it alive, only the path is bad, or its process is a new one. If not, it is suspected, and
//! told so; an answer of its own ends that, or word by others of an incarnation later than the one
//! suspected, which only it can have begun. No word of others ends a link by itself: whatever they say,
//! the neighbour is asked once more.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{MachineId, SeededRng, Tick};

use super::{HyParView, Output};
use crate::{
    health::{LocalHealth, suspicion},
    peer::Peer,
    view::{MAX_ACTIVE, Source},
    wire::{Message, Outcome},
};

/// Neighbours that are asked to ping one that is late.
const MAX_HELPERS: usize = 3;
/// Pings for others that wait for their answer.
pub const MAX_FAVOURS: usize = 32;
/// Pings of one neighbour whose answers are still good.
const MAX_PINGS: usize = 4;
/// Times in a row that others reach a neighbour and this node does not, after which the path counts as
/// broken.
const MAX_DETOURS: u8 = 3;
/// Shortest time between two unscheduled pings of a neighbour, whoever gives cause for them.
const CHECK_PAUSE: Duration = Duration::from_secs(1);

/// What is known of the liveness of the neighbours.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Of this run of this node: random above, counting below.
    incarnation: u64,
    health: LocalHealth,
    /// One for each neighbour.
    watches: BTreeMap<MachineId, Watch>,
    /// By the nonce of the ping; at most [`MAX_FAVOURS`].
    favours: BTreeMap<u64, Favour>,
    /// Neighbours still to be pinged in this round.
    round: Vec<MachineId>,
    /// When it is looked whether anybody must be pinged.
    next_ping: Option<Tick>,
    /// When one of a calm round is pinged next.
    next_calm: Tick,
    nonce: u64,
}

#[derive(Debug)]
struct Watch {
    since: Tick,
    /// Known since its first answer.
    incarnation: Option<u64>,
    /// Nonces and times of the latest pings without an answer, at most [`MAX_PINGS`].
    pings: Vec<(u64, Tick)>,
    pinged: Option<Tick>,
    phase: Phase,
    detours: u8,
    /// Where others say that it joins, as if it had no neighbours yet.
    elsewhere: Option<Peer>,
    /// Another was reached by another process than the one at the end of this session, or says so.
    replaced: bool,
    /// Packets that came from it, and when the latest of them did, as far as it was noticed.
    received: Option<(u64, Tick)>,
    /// When its suspicion of this node last made this node doubt itself.
    blamed: Option<Tick>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Fine,
    /// Pinged; the answer may take until then.
    Pinged { until: Tick },
    /// Others were asked to ping it.
    Asked { until: Tick, helpers: Helpers },
    /// Nobody reached it.
    Suspect { since: Tick, next_ping: Tick, helpers: Helpers },
}

/// Who was asked about a neighbour, and what came of it.
#[derive(Debug, Default)]
struct Helpers {
    /// With the nonce of the question; at most one a neighbour.
    asked: BTreeMap<MachineId, u64>,
    /// How many were asked the first time, and how many of all answered at all.
    expected: usize,
    reported: usize,
    /// Neighbours that found it silent too; at most [`MAX_ACTIVE`].
    confirmed: Vec<MachineId>,
}

/// A ping for a neighbour that finds another one late.
#[derive(Debug)]
struct Favour {
    origin: MachineId,
    nonce: u64,
    target: MachineId,
    until: Tick,
}

/// Why a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nobody reaches the neighbour.
    Dead,
    /// Others reach it, this node does not.
    Cut,
    /// The process at the other end of the session is gone; another runs in its place.
    Restarted,
}

impl Liveness {
    pub(super) fn new(rng: &mut SeededRng) -> Self {
        Self {
            incarnation: rng.next_u64() & !u64::from(u32::MAX),
            health: LocalHealth::default(),
            watches: BTreeMap::new(),
            favours: BTreeMap::new(),
            round: Vec::new(),
            next_ping: None,
            next_calm: Tick::ZERO,
            nonce: 0,
        }
    }

    /// The next timer.
    pub(super) fn next(&self, config: &crate::OverlayConfig) -> Option<Tick> {
        let watches = self.watches.values().filter_map(|watch| watch.due(config));
        let favours = self.favours.values().map(|favour| favour.until);
        watches.chain(favours).chain(self.next_ping).min()
    }

    pub(super) fn stop(&mut self) {
        self.watches.clear();
        self.favours.clear();
        self.next_ping = None;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.watches.len(), self.favours.len())
    }

    pub(super) const fn health(&self) -> u8 {
        self.health.value()
    }

    const fn number(&mut self) -> u64 {
        self.nonce += 1;
        self.nonce
    }
}

impl Watch {
    const fn new(since: Tick) -> Self {
        Self {
            since,
            incarnation: None,
            pings: Vec::new(),
            pinged: None,
            phase: Phase::Fine,
            detours: 0,
            elsewhere: None,
            replaced: false,
            received: None,
            blamed: None,
        }
    }

    fn due(&self, config: &crate::OverlayConfig) -> Option<Tick> {
        match &self.phase {
            Phase::Fine => None,
            Phase::Pinged { until } | Phase::Asked { until, .. } => Some(*until),
            Phase::Suspect { since, next_ping, helpers } => {
                let ends = *since + helpers.suspicion(config);
                Some(ends.min(*next_ping))
            }
        }
    }

    fn is_suspect(&self) -> bool {
        matches!(self.phase, Phase::Suspect { .. })
    }

    /// Whether two incarnations belong to different runs of a node.
    fn is_another_run(&self, incarnation: u64) -> bool {
        self.incarnation.is_some_and(|known| known >> 32 != incarnation >> 32)
    }
}

impl Helpers {
    fn suspicion(&self, config: &crate::OverlayConfig) -> Duration {
        suspicion(config.suspicion_min, config.suspicion_max, self.confirmed.len())
    }

    /// Takes the answer of one who was asked; false when it was not.
    fn report(&mut self, from: MachineId, nonce: u64, outcome: Outcome) -> bool {
        if self.asked.get(&from) != Some(&nonce) {
            return false;
        }
        self.asked.remove(&from);
        self.reported += 1;
        if outcome == Outcome::Silent
            && self.confirmed.len() < MAX_ACTIVE
            && !self.confirmed.contains(&from)
        {
            self.confirmed.push(from);
        }
        true
    }
}

impl HyParView {
    /// A new neighbour is watched from now on.
    pub(super) fn watch(&mut self, now: Tick, id: MachineId) {
        self.liveness.watches.insert(id, Watch::new(now));
        if self.liveness.next_ping.is_none() {
            self.liveness.next_ping = Some(self.around(now, self.config.ping_interval));
        }
    }

    /// Since when a peer is a neighbour.
    pub(super) fn linked_since(&self, id: MachineId) -> Option<Tick> {
        self.liveness.watches.get(&id).map(|watch| watch.since)
    }

    pub(super) fn unwatch(&mut self, id: MachineId) {
        self.liveness.watches.remove(&id);
        if self.liveness.watches.is_empty() {
            self.liveness.next_ping = None;
        }
    }

    /// A neighbour is said to join anew, which it need not if it is the process that is linked.
    pub(super) fn doubt(&mut self, now: Tick, joiner: Peer) {
        let id = joiner.id();
        let Some(watch) = self.liveness.watches.get_mut(&id) else { return };
        watch.elsewhere = Some(joiner);
        let rested = watch.pinged.is_none_or(|at| now.since(at) >= CHECK_PAUSE);
        if rested && matches!(watch.phase, Phase::Fine) {
            self.ping(now, id);
        }
    }

    /// Runs what is due.
    pub(super) fn check_liveness(&mut self, now: Tick) {
        if self.liveness.next_ping.is_some_and(|at| at <= now) {
            let interval = self.liveness.health.scale(self.config.ping_interval);
            self.liveness.next_ping = Some(self.around(now, interval));
            self.ping_some(now);
        }
        let config = &self.config;
        let due = self
            .liveness
            .watches
            .iter()
            .filter(|(_, watch)| watch.due(config).is_some_and(|at| at <= now));
        let due: Vec<MachineId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.check(now, id);
        }
        let late = self.liveness.favours.iter().filter(|(_, favour)| favour.until <= now);
        let late: Vec<u64> = late.map(|(nonce, _)| *nonce).collect();
        for nonce in late {
            let target = self.report_favour(nonce, Outcome::Silent);
            // Whoever is silent for a helper is late for it too.
            if let Some(id) = target.filter(|id| self.is_fine(*id)) {
                self.set_phase(id, Phase::Pinged { until: now });
                self.check(now, id);
            }
        }
    }

    fn is_fine(&self, id: MachineId) -> bool {
        let watch = self.liveness.watches.get(&id);
        watch.is_some_and(|watch| matches!(watch.phase, Phase::Fine))
    }

    /// The transport counts packets of a peer.
    pub(super) fn on_received(&mut self, now: Tick, id: MachineId, packets: u64) {
        if let Some(watch) = self.liveness.watches.get_mut(&id)
            && watch.received.is_none_or(|(known, _)| known != packets)
        {
            watch.received = Some((packets, now));
        }
    }

    /// Pings those from whom no packet came for a while, or else whose turn it is: at each look one, and
    /// fewer while packets come from everybody.
    fn ping_some(&mut self, now: Tick) {
        let silence = self.config.silence;
        let is_silent =
            |watch: &Watch| watch.received.is_some_and(|(_, at)| now.since(at) >= silence);
        let watches = &self.liveness.watches;
        let fine = watches.iter().filter(|(_, watch)| matches!(watch.phase, Phase::Fine));
        let silent: Vec<MachineId> =
            fine.filter(|(_, watch)| is_silent(watch)).map(|(id, _)| *id).collect();
        let calm = watches.values().all(|watch| watch.received.is_some());
        for id in &silent {
            self.ping(now, *id);
        }
        if silent.is_empty() && (!calm || self.liveness.next_calm <= now) {
            self.liveness.next_calm = self.around(now, self.config.calm_ping_interval);
            self.ping_next(now);
        }
    }

    /// Pings the next neighbour of the round: each once, in random order.
    fn ping_next(&mut self, now: Tick) {
        for _ in 0..2 {
            while let Some(id) = self.liveness.round.pop() {
                if self.is_fine(id) {
                    return self.ping(now, id);
                }
            }
            self.liveness.round = self.active.ids().collect();
            self.rng.shuffle(&mut self.liveness.round);
        }
    }

    fn ping(&mut self, now: Tick, id: MachineId) {
        let until = now + self.liveness.health.scale(self.ping_timeout(id));
        self.send_ping(now, id);
        if let Some(watch) = self.liveness.watches.get_mut(&id) {
            watch.phase = Phase::Pinged { until };
        }
    }

    fn send_ping(&mut self, now: Tick, id: MachineId) {
        let nonce = self.liveness.number();
        let Some(watch) = self.liveness.watches.get_mut(&id) else { return };
        if watch.pings.len() >= MAX_PINGS {
            watch.pings.remove(0);
        }
        watch.pings.push((nonce, now));
        watch.pinged = Some(now);
        let suspected = watch.incarnation.filter(|_| watch.is_suspect());
        self.metrics.pings.inc();
        self.send(id, Message::Ping { nonce, suspected, sample: false });
    }

    /// How long the answer of a neighbour may take.
    fn ping_timeout(&self, id: MachineId) -> Duration {
        let rtt = self.sessions.get(&id).map_or(Duration::ZERO, |session| session.rtt);
        (rtt * 4).clamp(self.config.ping_timeout_min, self.config.ping_timeout_max)
    }

    /// What is due for one neighbour.
    fn check(&mut self, now: Tick, id: MachineId) {
        let Some(watch) = self.liveness.watches.get_mut(&id) else { return };
        match std::mem::take(&mut watch.phase) {
            Phase::Fine => {}
            Phase::Pinged { .. } if watch.replaced => self.judge(now, id, Verdict::Restarted),
            Phase::Pinged { .. } => {
                self.metrics.pings_late.inc();
                let mut helpers = Helpers::default();
                self.ask_helpers(id, &mut helpers);
                helpers.expected = helpers.asked.len();
                // There and back, twice: to the helper, and from it to the neighbour.
                let timeout = self.liveness.health.scale(self.ping_timeout(id));
                self.set_phase(id, Phase::Asked { until: now + timeout * 2, helpers });
            }
            Phase::Asked { helpers, .. } => {
                // Helpers that do not even answer say more about this node than about that one.
                let missed = helpers.expected - helpers.reported.min(helpers.expected);
                self.liveness.health.worsen(if helpers.expected == 0 { 1 } else { missed });
                self.metrics.suspicions.inc();
                self.suspect(now, id, now, helpers);
            }
            Phase::Suspect { since, next_ping, helpers } => {
                if since + helpers.suspicion(&self.config) <= now {
                    self.judge(now, id, Verdict::Dead);
                } else if next_ping <= now {
                    self.suspect(now, id, since, helpers);
                } else {
                    self.set_phase(id, Phase::Suspect { since, next_ping, helpers });
                }
            }
        }
    }

    /// Pings a suspect, and has it pinged by those who have not confirmed the suspicion.
    fn suspect(&mut self, now: Tick, id: MachineId, since: Tick, helpers: Helpers) {
        let next_ping = now + self.config.suspect_interval;
        self.set_phase(id, Phase::Suspect { since, next_ping, helpers: Helpers::default() });
        self.send_ping(now, id);
        let mut helpers = helpers;
        self.ask_helpers(id, &mut helpers);
        self.set_phase(id, Phase::Suspect { since, next_ping, helpers });
    }

    fn set_phase(&mut self, id: MachineId, phase: Phase) {
        if let Some(watch) = self.liveness.watches.get_mut(&id) {
            watch.phase = phase;
        }
    }

    fn ask_helpers(&mut self, about: MachineId, helpers: &mut Helpers) {
        let mut others: Vec<MachineId> = self.active.ids().collect();
        others.retain(|id| *id != about && !helpers.confirmed.contains(id));
        self.rng.shuffle(&mut others);
        let watch = self.liveness.watches.get(&about);
        let suspected = watch.and_then(|watch| watch.incarnation.filter(|_| watch.is_suspect()));
        helpers.asked.clear();
        for helper in others.into_iter().take(MAX_HELPERS) {
            let nonce = self.liveness.number();
            helpers.asked.insert(helper, nonce);
            self.send(helper, Message::PingRequest { nonce, target: about, suspected });
        }
    }

    /// A peer wants to know whether this node is there.
    pub(super) fn on_ping(
        &mut self,
        now: Tick,
        from: MachineId,
        nonce: u64,
        suspected: Option<u64>,
        sample: bool,
    ) {
        // Nobody can know of a later one, and an earlier one was refuted already.
        if suspected == Some(self.liveness.incarnation) {
            self.refute(now, from);
        }
        let entries = if sample { self.introductions(from) } else { Vec::new() };
        let incarnation = self.liveness.incarnation;
        self.send(from, Message::Ack { nonce, incarnation, entries });
    }

    /// A peer suspects this node, which shows that it lives. If neighbours do so, it may be slow; but one
    /// that says it again and again says no more than once.
    fn refute(&mut self, now: Tick, from: MachineId) {
        let Some(watch) = self.liveness.watches.get_mut(&from) else {
            return self.metrics.refused_suspicions.inc();
        };
        self.liveness.incarnation = self.liveness.incarnation.wrapping_add(1);
        self.metrics.refutations.inc();
        let rested = watch.blamed.is_none_or(|at| now.since(at) >= self.config.suspicion_max);
        if rested {
            watch.blamed = Some(now);
            self.liveness.health.worsen(1);
        } else {
            self.metrics.refused_suspicions.inc();
        }
    }

    /// An answer to a ping of this node.
    pub(super) fn on_ack(
        &mut self,
        now: Tick,
        from: MachineId,
        nonce: u64,
        incarnation: u64,
        entries: Vec<Peer>,
    ) {
        if self.liveness.favours.get(&nonce).is_some_and(|favour| favour.target == from) {
            self.report_favour(nonce, Outcome::Alive(incarnation));
            return;
        }
        if self.is_comparing(from, nonce) {
            return self.compare(now, from, entries);
        }
        let watch = self.liveness.watches.get_mut(&from);
        let ping = watch.and_then(|watch| {
            let place = watch.pings.iter().position(|(known, _)| *known == nonce)?;
            let (_, at) = watch.pings[place];
            watch.pings.drain(..=place);
            watch.incarnation = Some(incarnation);
            watch.phase = Phase::Fine;
            watch.detours = 0;
            watch.elsewhere = None;
            watch.replaced = false;
            Some(at)
        });
        let Some(at) = ping else { return self.metrics.refused_unsolicited.inc() };
        self.liveness.health.improve();
        if let Some(session) = self.sessions.get_mut(&from) {
            session.rtt = crate::health::smooth(session.rtt, now.since(at));
        }
    }

    /// A neighbour asks whether this node reaches another one.
    pub(super) fn on_ping_request(
        &mut self,
        now: Tick,
        from: MachineId,
        nonce: u64,
        target: MachineId,
        suspected: Option<u64>,
    ) {
        if !self.is_neighbour(from) {
            return;
        }
        let linked = self.active.contains(target) && target != from;
        if !linked || self.liveness.favours.len() >= MAX_FAVOURS {
            return self.send(from, Message::PingReport { nonce, outcome: Outcome::Unknown });
        }
        let until = now + self.ping_timeout(target);
        let number = self.liveness.number();
        self.liveness.favours.insert(number, Favour { origin: from, nonce, target, until });
        self.metrics.pings.inc();
        self.send(target, Message::Ping { nonce: number, suspected, sample: false });
    }

    /// Tells who asked; gives whom it was about.
    fn report_favour(&mut self, nonce: u64, outcome: Outcome) -> Option<MachineId> {
        let favour = self.liveness.favours.remove(&nonce)?;
        self.send(favour.origin, Message::PingReport { nonce: favour.nonce, outcome });
        Some(favour.target)
    }

    /// A helper tells of a neighbour that it was asked about.
    pub(super) fn on_ping_report(
        &mut self,
        now: Tick,
        from: MachineId,
        nonce: u64,
        outcome: Outcome,
    ) {
        let mut about = None;
        for (id, watch) in &mut self.liveness.watches {
            if let Phase::Asked { helpers, .. } | Phase::Suspect { helpers, .. } = &mut watch.phase
                && helpers.report(from, nonce, outcome)
            {
                about = Some(*id);
                break;
            }
        }
        let Some(id) = about else { return self.metrics.refused_unsolicited.inc() };
        let Some(watch) = self.liveness.watches.get_mut(&id) else { return };
        let Outcome::Alive(incarnation) = outcome else { return };
        if watch.is_another_run(incarnation) {
            // The helper may lie: the session is dead if its other end does not answer once more.
            watch.replaced = true;
            let until = now + self.liveness.health.scale(self.ping_timeout(id));
            self.set_phase(id, Phase::Pinged { until });
            return self.send_ping(now, id);
        }
        let refuted = watch.incarnation.is_none_or(|known| incarnation > known);
        if watch.is_suspect() && !refuted {
            return;
        }
        watch.incarnation = watch.incarnation.max(Some(incarnation));
        watch.detours += 1;
        if watch.detours >= MAX_DETOURS {
            return self.judge(now, id, Verdict::Cut);
        }
        // It lives; whether the path to it does shows the next ping, which comes soon.
        let until = now + self.config.suspect_interval;
        self.set_phase(id, Phase::Pinged { until });
        self.send_ping(now, id);
    }

    /// Ends a link whose other end is not there for this node, and the session below it.
    fn judge(&mut self, now: Tick, id: MachineId, verdict: Verdict) {
        let elsewhere = self.liveness.watches.remove(&id).and_then(|watch| watch.elsewhere);
        let Some(peer) = self.drop_link(now, id) else { return };
        self.close_session(now, id);
        match (verdict, elsewhere) {
            (Verdict::Restarted, Some(elsewhere)) => {
                self.metrics.neighbors_restarted.inc();
                self.learn(now, elsewhere, Source::Gossip, &[]);
            }
            (Verdict::Cut, _) => {
                self.metrics.neighbors_cut.inc();
                self.learn(now, peer, Source::Session, &[]);
                let later = self.around(now, self.config.refusal_min);
                self.passive.defer(id, later);
            }
            (Verdict::Dead | Verdict::Restarted, _) => {
                self.metrics.neighbors_dead.inc();
                self.note_lost(now, peer, true);
            }
        }
    }

    /// Has the transport end a session. What still comes over it is not heard.
    fn close_session(&mut self, now: Tick, id: MachineId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = Some(now);
            self.requests.remove(&id);
            self.exchanges.forget(id);
            self.outputs.push_back(Output::Disconnect(id));
        }
    }
}
