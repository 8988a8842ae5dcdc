//! Searches: for a record, or for those who shall hold one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick};
use x0x_identity::Shown;

use super::{Finder, FinderOutput, SEARCH_HOPS};
use crate::{
    config::{COPIES, FinderConfig, MAX_SEARCHES, RECORD_VALIDITY},
    error::RecordError,
    frame::{Frame, Referral},
    key::{LookupKey, Ranker, Subject, open},
    record::SignedRecord,
};

/// Holders asked or dialled at once.
const PARALLEL: usize = 6;
/// The best holders that a search for a record asks; the search is over when all have answered.
const ASKED: usize = 16;
/// Candidates remembered, the best ones.
const MAX_CANDIDATES: usize = 96;
/// Candidates that a search begins with.
const SEEDS: usize = 32;
/// Candidates of one public network that a search turns to: its owner can have any number of ids.
const PER_SITE: usize = 2;
/// Candidates named by one peer that are dialled at once, and of which so many must not fail unless half
/// as many can be reached:
/// whoever invents machines must not keep a search busy.
const PER_NAMER: usize = 2;
/// Records of one topic that a search brings.
const ENOUGH: usize = 8;
/// A search without holders to ask still waits this long for those whom its links ask.
const WALK: Duration = Duration::from_millis(1200);
/// How long a filing may take.
const FILING: Duration = Duration::from_secs(30);

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    New,
    Dialling(Tick),
    Asked(Tick),
    /// It did not answer in time; it may still.
    Silent,
    Answered {
        holds: bool,
    },
    Failed,
}

impl Progress {
    /// How much longer others wait for this candidate: for the first half of the time that it has. Many
    /// are gone wherever machines come and go, and a search must not stand still for each.
    fn holds_up(self, now: Tick, config: &FinderConfig) -> Option<Duration> {
        let (until, time) = match self {
            Self::Dialling(until) => (until, config.dial_timeout),
            Self::Asked(until) => (until, config.ask_timeout),
            _ => return None,
        };
        until.since(now).checked_sub(time / 2).filter(|left| !left.is_zero())
    }
}

/// A machine that may hold the record.
#[derive(Debug)]
struct Candidate {
    progress: Progress,
    /// Who named it in this search; none if this node knew it.
    by: Option<MachineId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Find(u64),
    File,
}

/// What a peer answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sealed: Vec<Bytes>,
    pub(super) referrals: Vec<Referral>,
    pub(super) holds: bool,
}

/// One climb towards those who suit a key.
#[derive(Debug)]
pub(super) struct Search {
    subject: Subject,
    day: u64,
    key: LookupKey,
    ranker: Ranker,
    purpose: Purpose,
    begun: Tick,
    until: Tick,
    /// Best first.
    candidates: BTreeMap<(Reverse<u64>, MachineId), Candidate>,
    /// Links that were asked to ask on.
    walked: Vec<MachineId>,
    next: Tick,
}

/// A caller that waits for the searches of its subject, one for each day.
#[derive(Debug)]
pub(super) struct Ticket {
    subject: Subject,
    searches: BTreeSet<u64>,
    found: BTreeSet<(AgentId, MachineId)>,
}

impl Search {
    pub(super) const fn next(&self) -> Tick {
        self.next
    }

    fn place(&self, peer: MachineId) -> (Reverse<u64>, MachineId) {
        (Reverse(self.ranker.rank(&peer)), peer)
    }

    fn set(&mut self, peer: MachineId, progress: Progress) {
        let place = self.place(peer);
        if let Some(known) = self.candidates.get_mut(&place) {
            known.progress = progress;
        }
    }

    fn progress(&self, peer: MachineId) -> Option<Progress> {
        self.candidates.get(&self.place(peer)).map(|candidate| candidate.progress)
    }

    fn add(&mut self, peer: MachineId, by: MachineId) {
        let place = self.place(peer);
        let fresh = Candidate { progress: Progress::New, by: Some(by) };
        self.candidates.entry(place).or_insert(fresh);
        if self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_last();
        }
    }

    fn expire(&mut self, now: Tick) {
        for candidate in self.candidates.values_mut() {
            match candidate.progress {
                Progress::Dialling(until) if until <= now => candidate.progress = Progress::Failed,
                Progress::Asked(until) if until <= now => candidate.progress = Progress::Silent,
                _ => {}
            }
        }
        // Who named several that cannot be reached, and few that can, is not believed further. Machines
        // come and go, so that everybody names some that are gone.
        let mut tried: BTreeMap<MachineId, (usize, usize)> = BTreeMap::new();
        for candidate in self.candidates.values() {
            let Some(by) = candidate.by else { continue };
            let (failed, reached) = tried.entry(by).or_default();
            match candidate.progress {
                Progress::Failed => *failed += 1,
                Progress::Answered { .. } | Progress::Asked(_) => *reached += 1,
                _ => {}
            }
        }
        let is_blamed =
            |(failed, reached): &(usize, usize)| *failed >= PER_NAMER && failed > &(reached * 2);
        for candidate in self.candidates.values_mut() {
            let blamed = candidate.by.is_some_and(|by| tried.get(&by).is_some_and(is_blamed));
            if blamed && candidate.progress == Progress::New {
                candidate.progress = Progress::Failed;
            }
        }
    }

    /// Those that may be turned to now, best first.
    fn fresh(&self, now: Tick, config: &FinderConfig) -> Option<MachineId> {
        let mut dialled: BTreeMap<MachineId, usize> = BTreeMap::new();
        for candidate in self.candidates.values() {
            if let (Progress::Dialling(_), Some(by)) = (candidate.progress, candidate.by)
                && candidate.progress.holds_up(now, config).is_some()
            {
                *dialled.entry(by).or_default() += 1;
            }
        }
        let mut fresh = self.front().filter(|(_, candidate)| {
            let waits = candidate.by.is_some_and(|by| dialled.get(&by) >= Some(&PER_NAMER));
            candidate.progress == Progress::New && !waits
        });
        fresh.next().map(|(peer, _)| peer)
    }

    /// The best candidates that may still matter.
    fn front(&self) -> impl Iterator<Item = (MachineId, &Candidate)> {
        let (count, file) = match self.purpose {
            Purpose::Find(_) => (ASKED, false),
            Purpose::File => (COPIES, true),
        };
        let matters = move |progress: &Progress| match progress {
            Progress::Failed => false,
            Progress::Silent => !file,
            Progress::Answered { holds } => *holds || !file,
            _ => true,
        };
        let all = self.candidates.iter().map(|((_, peer), known)| (*peer, known));
        all.filter(move |(_, known)| matters(&known.progress)).take(count)
    }

    fn busy(&self, now: Tick, config: &FinderConfig) -> usize {
        let busy = |known: &&Candidate| known.progress.holds_up(now, config).is_some();
        self.candidates.values().filter(busy).count()
    }

    /// Everybody who matters has been asked, and has answered or been given up.
    fn is_exhausted(&self) -> bool {
        let open = |(_, known): (_, &Candidate)| {
            matches!(known.progress, Progress::New | Progress::Dialling(_) | Progress::Asked(_))
        };
        !self.front().any(open)
    }
}

impl Finder {
    pub(super) fn find(&mut self, now: Tick, ticket: u64, subject: Subject, deadline: Tick) {
        let missed = self.misses.get(&subject).is_some_and(|until| now < *until);
        let full = self.searches.len() >= MAX_SEARCHES;
        if missed || full || deadline <= now {
            if full {
                self.metrics.refused_searches.inc();
            }
            return self.outputs.push_back(FinderOutput::Done { ticket });
        }
        self.metrics.searches.inc();
        let mut searches = BTreeSet::new();
        let wall = self.wall_at(now);
        let skew = x0x_identity::MAX_CLOCK_SKEW;
        let mut days = vec![super::epoch(wall), super::epoch(wall + skew)];
        days.dedup();
        let found = BTreeSet::new();
        for day in days {
            let id = self.begin(now, subject, day, Purpose::Find(ticket), deadline);
            let key = LookupKey::of(&subject, day);
            let walked = self.spread(key, id, SEARCH_HOPS, None);
            if let Some(search) = self.searches.get_mut(&id) {
                search.walked = walked;
            }
            searches.insert(id);
        }
        let ids: Vec<u64> = searches.iter().copied().collect();
        self.tickets.insert(ticket, Ticket { subject, searches, found });
        for id in ids {
            self.step(now, id);
        }
    }

    pub(super) fn begin_filing(&mut self, now: Tick, subject: Subject, day: u64) {
        if self.searches.len() < MAX_SEARCHES {
            let id = self.begin(now, subject, day, Purpose::File, now + FILING);
            self.step(now, id);
        } else {
            self.filed(now, &subject, 0);
        }
    }

    fn begin(
        &mut self,
        now: Tick,
        subject: Subject,
        day: u64,
        purpose: Purpose,
        until: Tick,
    ) -> u64 {
        let id = self.rng.next_u64();
        let key = LookupKey::of(&subject, day);
        let best = self.volunteers.best(now, &key, SEEDS).into_iter();
        let fresh =
            |(rank, peer)| ((Reverse(rank), peer), Candidate { progress: Progress::New, by: None });
        let candidates = best.map(fresh).collect();
        let walked = Vec::new();
        let (ranker, begun, next) = (key.ranker(), now, now);
        let search =
            Search { subject, day, key, ranker, purpose, begun, until, candidates, walked, next };
        self.searches.insert(id, search);
        id
    }

    pub(super) fn cancel(&mut self, ticket: u64) {
        if let Some(ticket) = self.tickets.remove(&ticket) {
            self.searches.retain(|id, _| !ticket.searches.contains(id));
        }
    }

    /// Asks on, or ends the search.
    fn step(&mut self, now: Tick, id: u64) {
        let Some(mut search) = self.searches.remove(&id) else { return };
        search.expire(now);
        self.engage(now, id, &mut search);
        let waits = matches!(search.purpose, Purpose::Find(_)) && now < search.begun + WALK;
        if now >= search.until || (search.is_exhausted() && !waits) {
            return self.end(now, id, &search);
        }
        let deadlines = search.candidates.values().filter_map(|known| match known.progress {
            Progress::Dialling(until) | Progress::Asked(until) => Some(until),
            _ => None,
        });
        let walk = Some(search.begun + WALK).filter(|_| waits);
        let slow = search.candidates.values();
        let slow = slow.filter_map(|known| known.progress.holds_up(now, &self.config));
        let slow = slow.map(|left| now + left);
        search.next =
            deadlines.chain(walk).chain(slow).chain([search.until]).min().unwrap_or(search.until);
        self.searches.insert(id, search);
    }

    /// Turns to the best candidates that were not asked yet.
    fn engage(&mut self, now: Tick, id: u64, search: &mut Search) {
        let mut room = PARALLEL.saturating_sub(search.busy(now, &self.config));
        let mut sites: BTreeMap<_, usize> = BTreeMap::new();
        for ((_, peer), known) in &search.candidates {
            let engaged = !matches!(known.progress, Progress::New | Progress::Failed);
            if engaged && let Some(site) = self.volunteers.site(peer) {
                *sites.entry(site).or_default() += 1;
            }
        }
        while room > 0 {
            let Some(peer) = search.fresh(now, &self.config) else { return };
            let site = self.volunteers.site(&peer);
            let crowded = site.is_some_and(|site| sites.get(&site) >= Some(&PER_SITE));
            let progress = if crowded {
                Progress::Failed
            } else if self.links.contains_key(&peer) {
                self.send(peer, &Frame::Lookup { key: search.key, id, hops: 1 });
                Progress::Asked(now + self.config.ask_timeout)
            } else if let Some(address) = self.volunteers.address(&peer) {
                self.metrics.dials.inc();
                self.outputs.push_back(FinderOutput::Dial(address));
                Progress::Dialling(now + self.config.dial_timeout)
            } else {
                Progress::Failed
            };
            if progress != Progress::Failed {
                room -= 1;
                if let Some(site) = site {
                    *sites.entry(site).or_default() += 1;
                }
            }
            search.set(peer, progress);
        }
    }

    /// The end of a search: a filing hands its record out, a caller is told.
    fn end(&mut self, now: Tick, id: u64, search: &Search) {
        match search.purpose {
            Purpose::File => {
                let holds = |(peer, known): (MachineId, &Candidate)| {
                    (known.progress == Progress::Answered { holds: true }).then_some(peer)
                };
                let holders: Vec<MachineId> = search.front().filter_map(holds).collect();
                self.hand_out(search, &holders);
                self.filed(now, &search.subject, holders.len());
            }
            Purpose::Find(ticket) => {
                let Some(caller) = self.tickets.get_mut(&ticket) else { return };
                caller.searches.remove(&id);
                if caller.searches.is_empty() {
                    if caller.found.is_empty() {
                        self.misses.put(caller.subject, now + self.config.miss);
                        self.metrics.misses.inc();
                    }
                    self.tickets.remove(&ticket);
                    self.outputs.push_back(FinderOutput::Done { ticket });
                }
            }
        }
    }

    fn hand_out(&mut self, search: &Search, holders: &[MachineId]) {
        let offer = self.offers.get(&search.subject);
        let filed =
            offer.and_then(|offer| offer.filed.iter().find(|filed| filed.key == search.key));
        let Some(filed) = filed.cloned() else { return };
        let topic = matches!(search.subject, Subject::Topic(_));
        for peer in holders {
            let Some(link) = self.links.get(peer) else { continue };
            let sealed = filed.sealed(link.path);
            let (key, lifetime) = (search.key, RECORD_VALIDITY);
            self.send(*peer, &Frame::Store { key, topic, sealed, lifetime });
        }
    }

    /// A session with a machine that a search may have dialled began.
    pub(super) fn link_came(&mut self, now: Tick, peer: MachineId) {
        let until = now + self.config.ask_timeout;
        let mut ask = Vec::new();
        for (id, search) in &mut self.searches {
            // One that came too late for its time is asked all the same.
            if let Some(Progress::Dialling(_) | Progress::Failed) = search.progress(peer) {
                search.set(peer, Progress::Asked(until));
                search.next = search.next.min(until);
                ask.push(Frame::Lookup { key: search.key, id: *id, hops: 1 });
            }
        }
        for frame in ask {
            self.send(peer, &frame);
        }
    }

    /// A candidate cannot be reached, or its session ended.
    pub(super) fn candidate_lost(&mut self, now: Tick, peer: MachineId) {
        let mut touched = Vec::new();
        for (id, search) in &mut self.searches {
            if let Some(Progress::Dialling(_) | Progress::Asked(_)) = search.progress(peer) {
                search.set(peer, Progress::Failed);
                touched.push(*id);
            }
        }
        for id in touched {
            self.step(now, id);
        }
    }

    pub(super) fn run_searches(&mut self, now: Tick) {
        let due = self.searches.iter().filter(|(_, search)| search.next <= now);
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.step(now, id);
        }
    }

    /// A peer answered a search of this node.
    pub(super) fn answered(
        &mut self,
        now: Tick,
        peer: MachineId,
        id: u64,
        key: LookupKey,
        answer: &Answer,
    ) {
        let Some(search) = self.searches.get_mut(&id) else { return };
        let asked = matches!(search.progress(peer), Some(Progress::Asked(_) | Progress::Silent));
        if key != search.key || !(asked || search.walked.contains(&peer)) {
            return self.metrics.refused_unasked.inc();
        }
        if asked {
            search.set(peer, Progress::Answered { holds: answer.holds });
            for referral in &answer.referrals {
                self.refer(now, peer, id, referral);
            }
        }
        self.open_all(now, peer, id, &answer.sealed);
        self.step(now, id);
    }

    fn refer(&mut self, now: Tick, peer: MachineId, id: u64, referral: &Referral) {
        let Some(path) = self.links.get(&peer).map(|link| link.path) else { return };
        let machine = referral.machine;
        if machine == self.local || self.volunteers.is_shunned(now, &machine) {
            return;
        }
        let named = referral.addresses.iter().copied().filter(|address| path.may_name(*address));
        let named: Vec<_> = named.collect();
        self.volunteers.told(machine, &named, self.config.allow_loopback, &mut self.rng);
        if let Some(search) = self.searches.get_mut(&id) {
            search.add(machine, peer);
        }
    }

    /// Opens and verifies what came; lies are remembered.
    fn open_all(&mut self, now: Tick, peer: MachineId, id: u64, sealed: &[Bytes]) {
        let wall = self.wall_at(now);
        for sealed in sealed {
            let Some(search) = self.searches.get(&id) else { return };
            let Purpose::Find(ticket) = search.purpose else { return };
            let opened = open(&search.subject, search.day, sealed);
            let record = opened.and_then(|record| SignedRecord::decode(&record).ok());
            let verified = record.map(|record| record.verify(&search.subject, wall));
            match verified {
                Some(Ok(record)) => self.found(ticket, record),
                // A record that ended on its way is no lie.
                Some(Err(RecordError::Expired)) => self.metrics.refused_expired.inc(),
                None | Some(Err(_)) => {
                    self.metrics.refused_records.inc();
                    // Passed back by a link it may be the lie of another.
                    if self.searches.get(&id).is_some_and(|search| !search.walked.contains(&peer)) {
                        self.volunteers.lied(now, peer);
                    }
                }
            }
        }
    }

    fn found(&mut self, ticket: u64, record: SignedRecord) {
        let Some(caller) = self.tickets.get_mut(&ticket) else { return };
        let stated = record.record();
        if stated.machine == self.local || caller.found.contains(&(stated.agent, stated.machine)) {
            return;
        }
        if !self.policy.accepts(&stated.binding(), Shown::Record) {
            return self.metrics.refused_policy.inc();
        }
        caller.found.insert((stated.agent, stated.machine));
        self.metrics.found.inc();
        let enough = match caller.subject {
            Subject::Agent(_) => true,
            Subject::Topic(_) => caller.found.len() >= ENOUGH,
        };
        self.outputs.push_back(FinderOutput::Found { ticket, record });
        if enough {
            self.cancel(ticket);
            self.outputs.push_back(FinderOutput::Done { ticket });
        }
    }
}
