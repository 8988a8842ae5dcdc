//! The local agent's own records: when they are signed, with whom they are filed, and how often.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{MachineId, Scope, Tick};
use x0x_identity::MAX_CLOCK_SKEW;

use super::{Finder, FinderOutput, search::Search};
use crate::{
    config::{COPIES, MAX_OFFERS, MIN_REFILE, RECORD_VALIDITY},
    frame::Frame,
    key::{LookupKey, Subject, epoch, seal},
    record::SignedRecord,
};

/// First pause after a filing that reached too few holders; doubles up to the refresh.
const RETRY: Duration = Duration::from_secs(5);
/// Holders below which a filing is tried again soon.
const FEW: usize = 3;
/// First pause after a filing that reached enough holders, but not all that there might be.
const GROWS: Duration = Duration::from_secs(60);
/// The time between filings at first, and at least, as a part of the longest. Short: the machines that a
/// young node knows are often not the nearest to its key.
const SHORTEST: u32 = 60;
/// How long the machines near the local id are known well enough.
const SETTLED: Duration = Duration::from_secs(3600);
/// Leading bytes of a sealed record that no other has.
const MARK: usize = 16;

/// An own record as it is filed for a day, sealed.
#[derive(Debug, Clone)]
pub(super) struct Filed {
    pub(super) key: LookupKey,
    /// With all addresses, for this site.
    near: Bytes,
    /// With addresses of global scope.
    far: Bytes,
}

impl Filed {
    pub(super) fn sealed(&self, path: Scope) -> Bytes {
        if path < Scope::Global { self.near.clone() } else { self.far.clone() }
    }

    fn marks(&self) -> [Bytes; 2] {
        [&self.near, &self.far]
            .map(|sealed| Bytes::copy_from_slice(&sealed[..MARK.min(sealed.len())]))
    }
}

/// A subject of the local agent.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) filed: Vec<Filed>,
    /// The keys of the filing before, and by what its records are recognised.
    earlier: Vec<(LookupKey, [Bytes; 2])>,
    /// With how many it was filed.
    copies: usize,
    pub(super) due: Tick,
    /// When it was signed last.
    signed: Option<Tick>,
    /// The time between filings.
    interval: Duration,
    pause: Duration,
    /// Its signature was asked for.
    pub(super) signing: bool,
}

impl Finder {
    pub(super) fn offer(&mut self, now: Tick, subject: Subject) {
        if self.offers.len() >= MAX_OFFERS && !self.offers.contains_key(&subject) {
            return self.metrics.refused_offers.inc();
        }
        let fresh = Offer {
            filed: Vec::new(),
            earlier: Vec::new(),
            copies: 0,
            due: now,
            signed: None,
            interval: self.config.refresh / SHORTEST,
            pause: RETRY,
            signing: false,
        };
        self.offers.entry(subject).or_insert(fresh).due = now;
        self.sign(now);
    }

    /// Asks for the signatures that are due.
    pub(super) fn sign(&mut self, now: Tick) {
        for (subject, offer) in &mut self.offers {
            if offer.due <= now && !offer.signing {
                offer.signing = true;
                self.outputs.push_back(FinderOutput::Sign(*subject));
            }
        }
    }

    /// All records are filed anew, each at its next turn.
    pub(super) fn moved(&mut self, now: Tick) {
        for offer in self.offers.values_mut() {
            let soonest = offer.signed.map_or(now, |at| now.max(at + MIN_REFILE));
            offer.due = offer.due.min(soonest);
        }
        self.sign(now);
    }

    pub(super) fn publish(
        &mut self,
        now: Tick,
        subject: Subject,
        near: &SignedRecord,
        far: &SignedRecord,
    ) {
        let longest = self.config.refresh;
        let Some(offer) = self.offers.get_mut(&subject) else { return };
        offer.signing = false;
        offer.signed = Some(now);
        let tenth = u64::try_from((offer.interval / 10).as_micros()).unwrap_or(u64::MAX);
        offer.due = now + (offer.interval - Duration::from_micros(self.rng.range(0, tenth)));
        // Whoever looks after midnight, before the next filing, looks under the next day's key.
        let wall = self.wall.1 + now.since(self.wall.0);
        let mut days = vec![epoch(wall), epoch(wall + longest + MAX_CLOCK_SKEW)];
        days.dedup();
        let filed = |day: &u64| {
            let far_sealed = seal(&subject, *day, &far.encode());
            let same = near == far;
            let near = if same { far_sealed.clone() } else { seal(&subject, *day, &near.encode()) };
            Filed { key: LookupKey::of(&subject, *day), near, far: far_sealed }
        };
        offer.earlier = offer.filed.iter().map(|filed| (filed.key, filed.marks())).collect();
        offer.filed = days.iter().map(filed).collect();
        let settled = self.settled.is_some_and(|at| now.since(at) < SETTLED);
        if matches!(subject, Subject::Agent(_)) && !settled {
            self.queue_settling(now, subject);
        }
        for day in days {
            self.queue_filing(now, subject, day);
        }
    }

    /// Whether a sealed record is the one that was filed under this key before.
    pub(super) fn is_earlier(&self, subject: &Subject, key: &LookupKey, sealed: &[Bytes]) -> bool {
        let earlier = self.offers.get(subject).into_iter().flat_map(|offer| &offer.earlier);
        let mut marks = earlier.filter(|(of, _)| of == key).flat_map(|(_, marks)| marks);
        marks.any(|mark| sealed.iter().any(|sealed| sealed.starts_with(mark)))
    }

    pub(super) fn was_filed(&self, subject: &Subject, key: &LookupKey) -> bool {
        let earlier = self.offers.get(subject).map(|offer| &offer.earlier);
        earlier.is_some_and(|earlier| earlier.iter().any(|(of, _)| of == key))
    }

    pub(super) fn hand_out(&mut self, search: &Search, holders: &[MachineId]) {
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

    /// A filing reached so many holders; of those of the filing before so many still had the record.
    pub(super) fn filed(
        &mut self,
        now: Tick,
        subject: &Subject,
        copies: usize,
        left: Option<usize>,
    ) {
        self.metrics.filings.inc();
        let longest = self.config.refresh;
        let Some(offer) = self.offers.get_mut(subject) else { return };
        // Where machines come and go, records go with them: more often there, seldom elsewhere.
        if let Some(left) = left.filter(|_| offer.copies >= FEW) {
            if left * 2 < offer.copies {
                offer.interval = (offer.interval / 2).max(longest / SHORTEST);
                offer.due = offer.due.min(now + offer.interval);
            } else if left * 4 >= offer.copies * 3 {
                offer.interval = (offer.interval * 3 / 2).min(longest);
            }
        }
        offer.copies = copies;
        if copies >= COPIES {
            offer.pause = RETRY;
            return;
        }
        if copies >= FEW {
            // Enough for now; in a network that grows there are more soon.
            offer.pause = offer.pause.max(GROWS);
        }
        offer.due = offer.due.min(now + offer.pause);
        offer.pause = (offer.pause * 2).min(longest);
    }
}
