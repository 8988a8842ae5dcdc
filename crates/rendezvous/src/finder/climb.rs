//! How the finder runs its searches.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, PeerAddr, Tick};
use x0x_identity::{MAX_CLOCK_SKEW, Shown};

use super::{
    Finder, FinderOutput, SEARCH_HOPS,
    search::{Answer, Progress, Purpose, SEEDS, Search, Ticket},
};
use crate::{
    addresses::usable_addresses,
    config::MAX_SEARCHES,
    error::RecordError,
    frame::{Frame, Referral},
    key::{LookupKey, Subject, epoch, open},
    record::SignedRecord,
    wire::Stamp,
};

/// Records of one topic that a search brings.
const ENOUGH: usize = 8;
/// Answers that one link brings of those whom it asked on: as many as it passes on, and its own.
const WALK_ANSWERS: u8 = 5;
/// A search without holders to ask still waits this long for those whom its links ask.
const WALK: Duration = Duration::from_millis(1200);

impl Finder {
    pub(super) fn find(
        &mut self,
        now: Tick,
        ticket: u64,
        subject: Subject,
        after: Option<Stamp>,
        deadline: Tick,
    ) {
        let missed = self.misses.get(&subject).is_some_and(|until| now < *until);
        if missed || deadline <= now {
            return self.outputs.push_back(FinderOutput::Done { ticket });
        }
        let wall = self.wall_at(now);
        let mut days = vec![epoch(wall), epoch(wall + MAX_CLOCK_SKEW)];
        days.dedup();
        let finds = self.searches.values().filter(|search| search.is_find()).count();
        if finds + days.len() > MAX_SEARCHES {
            self.metrics.refused_searches.inc();
            return self.outputs.push_back(FinderOutput::Busy { ticket });
        }
        self.metrics.searches.inc();
        let mut searches = BTreeSet::new();
        for day in days {
            let key = LookupKey::of(&subject, day);
            let purpose = Purpose::Find(ticket);
            let id = self.begin(now, Search::new(subject, day, key, purpose, now, deadline));
            let walked = self.spread(key, id, SEARCH_HOPS, None);
            if let Some(search) = self.searches.get_mut(&id) {
                search.walked = walked.into_iter().map(|peer| (peer, WALK_ANSWERS)).collect();
            }
            searches.insert(id);
        }
        let ids: Vec<u64> = searches.iter().copied().collect();
        self.tickets.insert(ticket, Ticket { subject, after, searches, found: BTreeSet::new() });
        for id in ids {
            self.step(now, id);
        }
    }

    pub(super) fn begin(&mut self, now: Tick, mut search: Search) -> u64 {
        let id = self.rng.next_u64();
        let best = self.volunteers.best(now, &search.key, SEEDS).into_iter();
        search.seed(best.map(|peer| (peer, self.volunteers.addresses(&peer).to_vec())));
        self.searches.insert(id, search);
        id
    }

    pub(super) fn cancel(&mut self, ticket: u64) {
        if let Some(ticket) = self.tickets.remove(&ticket) {
            self.searches.retain(|id, _| !ticket.searches.contains(id));
        }
    }

    /// Asks on, or ends the search.
    pub(super) fn step(&mut self, now: Tick, id: u64) {
        let Some(mut search) = self.searches.remove(&id) else { return };
        search.expire(now);
        self.engage(now, id, &mut search);
        let waits = matches!(search.purpose, Purpose::Find(_)) && now < search.begun + WALK;
        if now >= search.until || (search.is_exhausted() && !waits) {
            return self.end(now, id, &search);
        }
        let walk = Some(search.begun + WALK).filter(|_| waits);
        let next = walk.into_iter().chain(search.next_deadline(now, &self.config));
        search.next = next.fold(search.until, Ord::min);
        self.searches.insert(id, search);
    }

    /// Turns to the best candidates that were not asked yet.
    fn engage(&mut self, now: Tick, id: u64, search: &mut Search) {
        search.starved = false;
        let (until, for_caller) = (now + self.config.dial_timeout, search.is_find());
        while let Some(peer) = search.fresh(now, &self.config) {
            if self.links.contains_key(&peer) {
                self.send(peer, &Frame::Lookup { key: search.key, id, hops: 1 });
                search.set(peer, Progress::Asked(now + self.config.ask_timeout));
            } else if let Some(dialled) = self.dials.addresses(&peer) {
                search.join(peer, until, dialled);
            } else if !self.dials.has_room(for_caller) {
                search.starved = true;
                return;
            } else if let Some(addresses) = search.dial(peer, until) {
                self.metrics.dials.inc();
                let deadline = now + self.config.dial_deadline();
                self.dials.begin(peer, addresses, for_caller, deadline);
                let address = PeerAddr::known(peer, addresses.iter().copied());
                self.outputs.push_back(FinderOutput::Dial(address));
            }
        }
    }

    /// Begins what waited for a place: searches that may dial again, and filings.
    pub(super) fn go_on(&mut self, now: Tick) {
        loop {
            let room = [true, false].map(|find| self.dials.has_room(find));
            let starved = |search: &Search| search.starved && room[usize::from(!search.is_find())];
            let starved = self.searches.iter().filter(|(_, search)| starved(search));
            let next = starved.min_by_key(|(id, search)| (search.dialling(), search.begun, **id));
            let Some(id) = next.map(|(id, _)| *id) else { break };
            self.step(now, id);
        }
        self.begin_filings(now);
    }

    /// The end of a search: a filing hands its record out, a caller is told.
    fn end(&mut self, now: Tick, id: u64, search: &Search) {
        let (answers, had) = search.answers();
        match search.purpose {
            Purpose::File => {
                let holders = search.holders();
                self.hand_out(search, &holders);
                let known_before = self.was_filed(&search.subject, &search.key);
                self.filed(now, &search.subject, holders.len(), known_before.then_some(had));
            }
            Purpose::Settle if answers > 0 => {
                self.settled = Some(now);
                self.metrics.settled.inc();
            }
            Purpose::Settle => {}
            Purpose::Find(ticket) => {
                let Some(caller) = self.tickets.get_mut(&ticket) else { return };
                caller.searches.remove(&id);
                if caller.searches.is_empty() {
                    if caller.found.is_empty() {
                        // Nothing newer is not nothing.
                        if caller.after.is_none() {
                            self.misses.put(caller.subject, now + self.config.miss);
                        }
                        self.metrics.misses.inc();
                    }
                    self.tickets.remove(&ticket);
                    self.outputs.push_back(FinderOutput::Done { ticket });
                }
            }
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
                search.failed(peer);
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
        let walks = |search: &mut Search| match search.walked.get_mut(&peer) {
            Some(left @ 1..) => {
                *left -= 1;
                true
            }
            _ => false,
        };
        if key != search.key || !(asked || walks(search)) {
            return self.metrics.refused_unasked.inc();
        }
        let (subject, holds) = (search.subject, answer.holds);
        let had =
            search.purpose == Purpose::File && self.is_earlier(&subject, &key, &answer.sealed);
        self.open_all(now, id, &answer.sealed);
        let Some(search) = self.searches.get_mut(&id) else { return };
        if asked {
            search.set(peer, Progress::Answered { holds, had });
            for referral in &answer.referrals {
                self.refer(now, peer, id, referral);
            }
        }
        self.step(now, id);
    }

    /// A peer names a machine. It is a candidate of this search and no more until somebody meets it: what
    /// a liar invents is not passed on.
    fn refer(&mut self, now: Tick, peer: MachineId, id: u64, referral: &Referral) {
        let Some(path) = self.links.get(&peer).map(|link| link.path) else { return };
        let machine = referral.machine;
        if machine == self.local || self.volunteers.is_shunned(now, &machine) {
            return;
        }
        let named = referral.addresses.iter().copied().filter(|address| path.may_name(*address));
        let named = usable_addresses(named, self.config.allow_loopback);
        let mut addresses = self.volunteers.addresses(&machine).to_vec();
        addresses.extend(named);
        let addresses = usable_addresses(addresses, self.config.allow_loopback);
        if let Some(search) = self.searches.get_mut(&id) {
            search.named(machine, peer, addresses);
        }
    }

    /// Opens and verifies what came. What is no record of the subject counts as if it were not there, and
    /// against nobody: a holder cannot open what it keeps, so that whoever filed it may have lied.
    fn open_all(&mut self, now: Tick, id: u64, sealed: &[Bytes]) {
        let wall = self.wall_at(now);
        for sealed in sealed {
            let Some(search) = self.searches.get(&id) else { break };
            let Purpose::Find(ticket) = search.purpose else { break };
            let opened = open(&search.subject, search.day, sealed);
            let record = opened.and_then(|record| SignedRecord::decode(&record).ok());
            let verified = record.map(|record| record.verify(&search.subject, wall));
            match verified {
                Some(Ok(record)) => self.found(ticket, record),
                Some(Err(RecordError::Expired)) => self.metrics.refused_expired.inc(),
                None | Some(Err(_)) => self.metrics.refused_records.inc(),
            }
        }
    }

    fn found(&mut self, ticket: u64, record: SignedRecord) {
        let Some(caller) = self.tickets.get_mut(&ticket) else { return };
        let stated = record.record();
        let is_old = caller.after.is_some_and(|after| stated.stamp <= after);
        let is_known = caller.found.contains(&(stated.agent, stated.machine));
        if stated.machine == self.local || is_known || is_old {
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
