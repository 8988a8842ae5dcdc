//! Keeping sessions on a path that works.
//!
//! A session that sends and hears nothing has perhaps lost its path, not its peer. Then each end asks by
//! probes: the end that dialled, at the peer's other addresses; the other end, where the dialler is, so that
//! the dialler learns where the peer's packets come from now. The first answer decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;
use x0x_core::{Machine, SeededRng, Tick, dialable};

use super::{Actor, Context, Event};
use crate::{
    dialback,
    link::Link,
    metrics::TransportMetrics,
    punch::{self, Victims, may_listen},
    sock::{
        FlowId, KnownFlows, ProbeIn, Prober,
        prober::{Input, Output, Validated},
        table::{MAX_SOURCES, is_detour},
    },
    state::{self, LinkId},
    wire::ControlOut,
};

/// Probe packets that wait for the actor, besides those that wait in the engine.
pub(super) const MAX_WAITING: usize = 16;
/// The nonce of the ping that moves a session: nobody waits for its answer.
const MOVING: u64 = u64::MAX;

/// How long questions are out before a relay is sought besides: longer than most round trips, so that the
/// other addresses of the peer come first.
const SEEK_AFTER: Duration = Duration::from_millis(250);
/// Helpers that are told where this machine is when one of its sessions falls silent.
const MAX_WOKEN: usize = 3;
/// Questions a second apart before they become seldomer.
const PATIENT: u32 = 3;
/// Packets between two checks of a link that is in use, as in a transfer: it does not fall silent by itself.
const BUSY: u64 = 16;

/// What the packets of a link tell of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Well,
    /// It was busy and fell silent, without anything of this end being on its way: this end's translator may
    /// have forgotten it, which this end finds out by sending.
    Fell,
    /// What this end sends is not answered.
    Silent,
}

/// Tells a silent link from one at rest.
#[derive(Debug, Default)]
struct Silence {
    sent: u64,
    received: u64,
    busy: bool,
    /// When it was noticed that something was sent and nothing came, or was last asked.
    since: Option<Tick>,
    /// How often was asked without hearing anything.
    asked: u32,
}

impl Silence {
    /// Judges a link that sends without hearing anything for `limit`; again after as long, since a path may change while
    /// another is sought, and then after twice as long each time, for the peer may be gone.
    fn check(&mut self, now: Tick, sent: u64, received: u64, limit: Duration) -> Verdict {
        let new = received.saturating_sub(self.received);
        if new > 0 {
            // What trickles in after a transfer is still a part of it.
            let busy = self.busy || new >= BUSY;
            *self = Self { sent, received, busy, since: None, asked: 0 };
            return Verdict::Well;
        }
        if std::mem::take(&mut self.busy) {
            self.since = (sent != self.sent).then_some(now);
            return Verdict::Fell;
        }
        let doublings = self.asked.saturating_sub(PATIENT).min(4);
        match self.since {
            None => {
                self.since = (sent != self.sent).then_some(now);
                Verdict::Well
            }
            Some(since) if now.since(since) >= limit * (1 << doublings) => {
                self.since = Some(now);
                self.asked += 1;
                Verdict::Silent
            }
            Some(_) => Verdict::Well,
        }
    }

    /// Whether nothing is waited for.
    const fn is_at_rest(&self) -> bool {
        self.since.is_none() && !self.busy
    }

    /// The path works, as a probe showed.
    fn works(&mut self, sent: u64) {
        self.sent = sent;
        self.since = None;
        self.asked = 0;
    }
}

#[derive(Debug)]
struct Watched {
    flow: FlowId,
    silence: Silence,
    /// How many packets had come when questions went out, while no further one came.
    asking: Option<u64>,
    /// Where the peer answered; at most [`MAX_SOURCES`].
    proven: BTreeSet<SocketAddr>,
    /// When a relay is sought, if nothing comes until then. Only the end that dialled does so.
    seek_at: Option<Tick>,
}

/// The flows of probes of all sessions. At most one for each session.
#[derive(Debug)]
pub(super) struct LinkPaths {
    prober: Prober,
    known: Arc<KnownFlows>,
    /// Addresses that peers named as theirs and that were probed a moment ago.
    victims: Victims,
    watched: BTreeMap<LinkId, Watched>,
    flows: BTreeMap<FlowId, LinkId>,
    check_at: Tick,
}

impl LinkPaths {
    pub(super) fn new(rng: SeededRng, known: Arc<KnownFlows>, metrics: &TransportMetrics) -> Self {
        known.count(metrics.probes.clone());
        Self {
            prober: Prober::new(rng, metrics.probes.clone()),
            known,
            victims: Victims::default(),
            watched: BTreeMap::new(),
            flows: BTreeMap::new(),
            check_at: Tick::ZERO,
        }
    }

    pub(super) fn next(&self) -> Option<Tick> {
        let check = (!self.watched.is_empty()).then_some(self.check_at);
        let seek = self.watched.values().filter_map(|watched| watched.seek_at);
        self.prober.poll_timeout().into_iter().chain(check).chain(seek).min()
    }

    /// The flow of a session's link.
    pub(super) fn flow(&self, link: LinkId) -> Option<FlowId> {
        self.watched.get(&link).map(|watched| watched.flow)
    }

    /// Questions go out to find another path for a link, over which so many packets have come.
    pub(super) fn ask(&mut self, link: LinkId, received: u64) {
        if let Some(watched) = self.watched.get_mut(&link) {
            watched.asking = Some(received);
            watched.seek_at = None;
        }
    }

    /// Tells the prober something of a flow.
    pub(super) fn probe(&mut self, now: Tick, input: Input) {
        match &input {
            Input::Open(keys) => self.known.open(keys.clone()),
            Input::Close(flow) => self.known.close(*flow),
            _ => {}
        }
        self.prober.handle(now, input);
    }
}

/// Hands the engine's probes to the actor.
pub(super) async fn forward_probes(
    context: Arc<Context>,
    probes: mpsc::Sender<(SocketAddr, ProbeIn)>,
) {
    let forward = async {
        while let Some(probe) = context.engine.next_probe().await {
            if probes.send(probe).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = context.closing.cancelled() => {}
        () = forward => {}
    }
}

/// Tells the actor of changes of this machine's addresses.
pub(super) async fn watch_addresses(context: Arc<Context>) {
    let watch = async {
        let mut known = context.engine.local_addresses();
        loop {
            context.engine.addresses_changed().await;
            let now = context.engine.local_addresses();
            if std::mem::replace(&mut known, now) != known {
                context.event(Event::AddressesChanged).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = context.closing.cancelled() => {}
        () = watch => {}
    }
}

impl Actor {
    /// This machine is somewhere else: each peer is asked at once whether it hears us, so that it follows
    /// before anything is lost, and what was seen of the old place counts no more.
    pub(super) fn on_addresses_changed(&mut self) {
        let (context, now) = (self.context.clone(), self.now());
        context.metrics.addresses_changed.inc();
        context.observations.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.handle(state::Input::LocalAddresses(context.engine.local_addresses()));
        let mut sessions = Vec::new();
        for (id, watched) in &mut self.paths.watched {
            let received = self.links.get(id).and_then(|handle| handle.link.received());
            watched.asking = Some(received.unwrap_or(0));
            sessions.push((*id, watched.flow));
        }
        for (id, flow) in sessions {
            self.send_control(id, &ControlOut::Ping(MOVING));
            self.ask_places(now, id, flow);
        }
        self.carry_probes();
    }

    fn ask_places(&mut self, now: Tick, id: LinkId, flow: FlowId) {
        for address in self.places(now, id) {
            self.paths.probe(now, Input::Probe { flow, address });
        }
    }

    /// Begins to watch the path of a link that became a session.
    pub(super) fn watch_path(&mut self, id: LinkId, link: &dyn Link) {
        let Some(keys) = link.flow_keys() else { return };
        let flow = keys.flow();
        self.paths.probe(self.now(), Input::Open(keys));
        let (silence, proven) = (Silence::default(), BTreeSet::new());
        let watched = Watched { flow, silence, asking: None, proven, seek_at: None };
        self.paths.watched.insert(id, watched);
        self.paths.flows.insert(flow, id);
    }

    pub(super) fn unwatch_path(&mut self, id: LinkId) {
        self.upgrades.forget(id);
        if let Some(watched) = self.paths.watched.remove(&id) {
            self.paths.flows.remove(&watched.flow);
            self.paths.probe(self.now(), Input::Close(watched.flow));
        }
    }

    pub(super) fn on_probe(&mut self, from: SocketAddr, packet: ProbeIn) {
        self.paths.probe(self.now(), Input::Received { from, packet });
        self.carry_probes();
    }

    pub(super) fn on_path_timeout(&mut self, now: Tick) {
        self.paths.prober.handle_timeout(now);
        if now >= self.paths.check_at {
            self.check_paths(now);
            self.check_carriers();
            self.check_upgrades(now);
            self.watch_or_rest(now);
        }
        self.seek_relays(now);
        self.carry_probes();
    }

    /// While nothing is sent, the next look at the paths is as seldom as that at addresses. Sessions that go by
    /// a relay or a stream are always looked after, for a better path.
    fn watch_or_rest(&mut self, now: Tick) {
        let config = &self.context.config;
        let is_calm = |watched: &Watched| watched.silence.is_at_rest() && watched.asking.is_none();
        let at_rest = self.paths.watched.values().all(is_calm)
            && !self.links.values().any(|handle| is_detour(handle.link.remote_address()));
        self.paths.check_at = now
            + match at_rest {
                true => config.observe_interval,
                false => config.path_check_interval,
            };
        if at_rest {
            self.context.engine.rest();
        }
    }

    /// Something is sent after a rest.
    pub(super) fn watch_paths_soon(&mut self) {
        let soon = self.now() + self.context.config.path_check_interval;
        self.paths.check_at = self.paths.check_at.min(soon);
    }

    fn check_paths(&mut self, now: Tick) {
        let limit = self.context.config.path_silence;
        let (mut questions, mut pings) = (Vec::new(), Vec::new());
        for (id, watched) in &mut self.paths.watched {
            let Some(handle) = self.links.get(id) else { continue };
            let (Some(sent), Some(received)) = (handle.link.sent(), handle.link.received()) else {
                continue;
            };
            watched.asking = watched.asking.filter(|before| *before == received);
            let dialled = handle.session.as_ref().is_some_and(|session| session.is_dialled());
            match watched.silence.check(now, sent, received, limit) {
                Verdict::Well => {}
                // The peer follows any packet of a dialler by itself.
                Verdict::Fell if dialled => pings.push(*id),
                Verdict::Fell => questions.push((*id, watched.flow)),
                Verdict::Silent => {
                    watched.asking = watched.asking.or(Some(received));
                    watched.seek_at = dialled.then_some(now + SEEK_AFTER);
                    self.context.metrics.paths_silent.inc();
                    questions.push((*id, watched.flow));
                }
            }
        }
        for id in pings {
            self.send_control(id, &ControlOut::Ping(MOVING));
        }
        if !questions.is_empty() {
            self.wake_helpers();
        }
        for (id, flow) in questions {
            self.ask_places(now, id, flow);
        }
    }

    /// A translator that forgot one session's mapping may have forgotten all: those that could help see where this
    /// machine is as soon as it sends them something, and else only at the next keep-alive.
    fn wake_helpers(&self) {
        for helper in self.helpers(self.context.local).into_iter().take(MAX_WOKEN) {
            let ping = ControlOut::Ping(MOVING).encode();
            self.context.table.with(&helper, |session| session.control(ping));
        }
    }

    /// Seeks relays and streams for sessions whose questions were not answered.
    fn seek_relays(&mut self, now: Tick) {
        let mut lost = Vec::new();
        for (id, watched) in &mut self.paths.watched {
            if watched.seek_at.is_none_or(|at| at > now) {
                continue;
            }
            watched.seek_at = None;
            let Some(handle) = self.links.get(id) else { continue };
            let silent = handle.link.received() == Some(watched.silence.received);
            if let Some(session) = handle.session.as_ref().filter(|_| silent) {
                lost.push((*id, session.peer, handle.link.remote_address()));
            }
        }
        for (id, peer, from) in lost {
            self.seek_stream(id);
            let relay = self.context.ways.relay(from).map(|(relay, _)| relay);
            self.seek_relay(peer, relay);
        }
    }

    /// Where the peer of a session may be: where it was last or answered once, and for the end that dialled, where it
    /// says that it listens. Of the latter each is probed once in a while, whoever names it.
    pub(super) fn places(&mut self, now: Tick, id: LinkId) -> Vec<SocketAddr> {
        let Some(handle) = self.links.get(&id) else { return Vec::new() };
        let here = self.context.engine.local_addresses();
        let current = handle.link.remote_address();
        let mut places = vec![current];
        let Some(session) = handle.session.as_ref().filter(|session| session.is_dialled()) else {
            return places;
        };
        let proven = self.paths.watched.get(&id).map(|watched| &watched.proven);
        places.extend(proven.into_iter().flatten().filter(|at| **at != current));
        places.truncate(MAX_SOURCES);
        let listens = session.listen_addresses().iter().copied().filter_map(dialable);
        let new = listens.filter(|at| !here.contains(at) && !places.contains(at));
        let named: Vec<_> = new.take(MAX_SOURCES - places.len()).collect();
        let may = named.iter().copied().filter(|at| may_listen(*at)).collect();
        let (spared, _) = self.paths.victims.spare(now, may, 0);
        let left_out = (named.len() - spared.len()) as u64;
        self.context.metrics.punches.addresses_refused.add(left_out);
        places.extend(spared);
        places
    }

    pub(super) fn carry_probes(&mut self) {
        while let Some(output) = self.paths.prober.poll_output() {
            match output {
                Output::Send { to, packet } => self.context.engine.send_probe(to, &packet),
                Output::Validated(path) => self.on_path(&path),
                Output::Failed { .. } => {}
            }
        }
    }

    /// The peer answers at an address. A link that the peer dialled follows it without us.
    fn on_path(&mut self, path: &Validated) {
        let Some(id) = self.paths.flows.get(&path.flow).copied() else {
            return self.on_punched_path(path);
        };
        let Some(watched) = self.paths.watched.get_mut(&id) else { return };
        let Some(handle) = self.links.get(&id) else { return };
        let current = handle.link.remote_address();
        if path.asked && path.address == current {
            watched.silence.works(handle.link.sent().unwrap_or(0));
        }
        let (was_detour, detour) = (is_detour(current), is_detour(path.address));
        if !detour && watched.proven.len() < MAX_SOURCES {
            watched.proven.insert(path.address);
        }
        // The other end asks when it does not hear us: it follows that we do not reach it where we think.
        let wanted = watched.asking.is_some() || !path.asked || (was_detour && !detour);
        if !handle.link.add_path(path.address) || !wanted {
            return;
        }
        (watched.asking, watched.seek_at) = (None, None);
        if current != path.address && handle.link.use_path(path.address) {
            self.context.ways.part_large(path.address);
            let metrics = &self.context.metrics;
            metrics.paths_changed.inc();
            match (was_detour, detour) {
                (true, false) => metrics.paths_upgraded.inc(),
                (false, true) => metrics.paths_fell_back.inc(),
                _ => {}
            }
            tracing::debug!(link = id.0, detour, "session moved");
            self.tell_ways_in_use(self.now());
        }
        // What was lost is sent again at once, and the peer sees the path in use.
        self.send_control(id, &ControlOut::Ping(MOVING));
    }
}

impl Actor {
    /// An agreement to send at once, or a question whether this machine is reachable, has come to something.
    fn on_punched_path(&mut self, path: &Validated) {
        let found = punch::Input::Validated { flow: path.flow, address: path.address };
        self.punches.handle(self.now(), found);
        self.carry_punches();
        let Validated { flow, address, seen, asked, .. } = *path;
        if !asked {
            let came = dialback::Input::Validated { flow, from: address, seen };
            self.dial_backs.handle(self.now(), came);
            self.carry_dial_backs();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_sending_without_hearing() {
        let limit = Duration::from_secs(1);
        let at = |secs: u64| Tick::from_millis(secs * 1000);
        let mut silence = Silence::default();
        let mut check = |now, sent, received| silence.check(at(now), sent, received, limit);
        assert_eq!(check(0, 5, 5), Verdict::Well, "just begun");
        assert_eq!(check(50, 5, 5), Verdict::Well, "at rest");
        assert_eq!(check(51, 6, 5), Verdict::Well);
        let silent = |secs: &u64| check(*secs, 6 + secs / 60, 5) == Verdict::Silent;
        let asked: Vec<u64> = (52..64).filter(silent).collect();
        assert_eq!(asked, [52, 53, 54, 55, 57, 61], "and again, then more seldom");
        assert_eq!(check(65, 9, 6), Verdict::Well, "it answers");
        assert_eq!(check(66, 20, 6 + BUSY), Verdict::Well);
        assert_eq!(check(67, 20, 6 + BUSY), Verdict::Fell, "in the middle of something");
        assert_eq!(check(68, 20, 6 + BUSY), Verdict::Well, "once");
        assert_eq!(check(69, 21, 6 + BUSY), Verdict::Well);
        assert_eq!(silence.check(at(70), 21, 6 + 2 * BUSY, limit), Verdict::Well);
        assert_eq!(silence.check(at(71), 21, 9 + 2 * BUSY, limit), Verdict::Well, "its last words");
        assert_eq!(silence.check(at(72), 21, 9 + 2 * BUSY, limit), Verdict::Fell);
        let _ = silence.check(at(73), 22, 9 + 2 * BUSY, limit);
        silence.works(22);
        assert_eq!(silence.check(at(99), 22, 9 + 2 * BUSY, limit), Verdict::Well, "it came back");
    }
}
