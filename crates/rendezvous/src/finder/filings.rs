//! Filings in their turn: a few climbs for the own records at once, apart from those for callers.

use std::time::Duration;

use x0x_core::Tick;

use super::{
    Finder,
    search::{Purpose, Search},
};
use crate::{
    config::{MAX_FILINGS, MAX_WAITING_FILINGS},
    key::{LookupKey, Subject, epoch},
};

/// How long a filing may take.
const FILING: Duration = Duration::from_secs(30);

impl Finder {
    pub(super) fn queue_filing(&mut self, now: Tick, subject: Subject, day: u64) {
        if self.filings.len() < MAX_WAITING_FILINGS {
            self.queue(Purpose::File, subject, day);
        } else {
            self.filed(now, &subject, 0, None);
        }
    }

    /// Climbs to the local id: those near it are met, and come to know this node.
    pub(super) fn queue_settling(&mut self, now: Tick, subject: Subject) {
        self.queue(Purpose::Settle, subject, epoch(self.wall_at(now)));
    }

    fn queue(&mut self, purpose: Purpose, subject: Subject, day: u64) {
        let entry = (purpose, subject, day);
        // One that is under way hands out the newest record when it ends.
        let runs = |search: &Search| (search.purpose, search.subject, search.day) == entry;
        if !self.filings.contains(&entry) && !self.searches.values().any(runs) {
            self.filings.push_back(entry);
        }
    }

    /// Begins those that wait, as far as there are places.
    pub(super) fn begin_filings(&mut self, now: Tick) {
        let filings = |of: &Self| of.searches.values().filter(|search| !search.is_find()).count();
        while !self.filings.is_empty() && filings(self) < MAX_FILINGS {
            let Some((purpose, subject, day)) = self.filings.pop_front() else { return };
            if !self.offers.contains_key(&subject) {
                continue;
            }
            let key = match purpose {
                Purpose::Settle => LookupKey::new(*self.local.as_bytes()),
                _ => LookupKey::of(&subject, day),
            };
            let search = Search::new(subject, day, key, purpose, now, now + FILING);
            let id = self.begin(now, search);
            self.step(now, id);
        }
    }
}
