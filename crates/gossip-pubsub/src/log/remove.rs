//! How runs leave a log: replaced by something newer, too old, or to make room.

use x0x_core::AgentId;

use crate::retention::{ChainEnd, Retention};

use super::{Author, Item, TopicLog};

/// A run that left the log.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub(crate) item: Item,
    /// Nothing older is left.
    pub(crate) oldest: bool,
}

impl TopicLog {
    /// Removes what a run of the latest-only class takes the place of.
    pub(super) fn replace(&mut self, author: &AgentId, newest: u64) -> Vec<Item> {
        let chains = self.authors.get(author).into_iter().flat_map(|author| author.epochs.iter());
        let latest = chains.filter(|(epoch, _)| Retention::of_epoch(*epoch) == Retention::Latest);
        let retained = latest.flat_map(|(_, chain)| chain.retained.iter().map(|(_, at)| *at));
        let before: Vec<u64> = retained.filter(|at| *at != newest).collect();
        let replaced: Vec<Item> =
            before.into_iter().filter_map(|position| self.take(position)).collect();
        // Holes on both sides of one are not apart any more.
        for item in &replaced {
            self.holes.join(self.room(item.start));
        }
        self.forget_replaced(author);
        replaced
    }

    /// Between which retained runs a position is where there is none: where they end and begin.
    fn room(&self, position: u64) -> (u64, u64) {
        let before = self.items.range(..position).next_back().map(|(_, item)| item.end());
        let after = self.items.range(position..).next().map(|(start, _)| *start);
        (before.unwrap_or(0), after.unwrap_or(u64::MAX))
    }

    /// Removes a run to make room: the oldest one, unless its author has less than its share of the
    /// log; then the oldest of the author who has most, so that nobody's flood takes the others'
    /// entries (dominant resource fairness; Ghodsi et al., NSDI 2011).
    pub(crate) fn evict(&mut self) -> Option<Removed> {
        let item = self.oldest_passing()?;
        let (oldest, author) = (item.start, item.run.body().author);
        if self.durable_runs > 0 {
            // Shares count what cannot go, too.
            return self.expel(oldest);
        }
        let share = self.authors.get(&author).map_or(0, Author::share);
        if share.saturating_mul(self.shares.len() as u64) >= self.shared {
            return self.expel(oldest);
        }
        let heaviest = self.shares.last().and_then(|(_, author)| self.authors.get(author));
        let chains = heaviest.into_iter().flat_map(|author| author.epochs.iter());
        let first = chains.filter_map(|(_, chain)| chain.retained.front()).map(|(_, at)| *at).min();
        self.expel(first.unwrap_or(oldest))
    }

    /// Removes the oldest run that is not kept for ever.
    pub(crate) fn evict_oldest(&mut self) -> Option<Removed> {
        let oldest = self.oldest_passing()?.start;
        self.expel(oldest)
    }

    /// The places of a chain's runs that are kept for ever and end no later than this.
    pub(crate) fn released(&self, end: &ChainEnd) -> Vec<u64> {
        let author = self.authors.get(&end.author);
        let chain = author.and_then(|author| author.epochs.get(end.epoch));
        let retained = chain.into_iter().flat_map(|chain| &chain.retained);
        let durable = retained.filter(|(run, _)| run.body().retention() == Retention::Durable);
        let past = durable.take_while(|(run, _)| run.body().last_seq() <= end.seq);
        past.map(|(_, position)| *position).collect()
    }

    /// Removes the run at a position, as retention asks. Readers who have not read it are told.
    pub(crate) fn expel(&mut self, position: u64) -> Option<Removed> {
        let oldest = self.items.keys().next() == Some(&position);
        let item = self.take(position)?;
        if oldest {
            self.evicted = item.end();
        }
        self.holes.add((item.start, item.end()), self.room(position));
        Some(Removed { item, oldest })
    }

    fn take(&mut self, position: u64) -> Option<Item> {
        let item = self.items.remove(&position)?;
        self.weigh(&item, false);
        let body = item.run.body();
        if let Some(author) = self.authors.get_mut(&body.author)
            && let Some(chain) = author.epochs.get_mut(body.epoch)
        {
            chain.release(item.start);
            let time = chain.time;
            if chain.retained.is_empty() && !chain.mark.is_zero() {
                // What is ephemeral is gone everywhere in a moment.
                if item.is_stored() {
                    self.gone = Some(self.gone.map_or(time, |gone| gone.min(time)));
                } else {
                    self.fingerprint.remove(std::mem::take(&mut chain.mark));
                }
            }
        }
        Some(item)
    }

    /// Counts a run in or out of what is retained.
    pub(super) fn weigh(&mut self, item: &Item, joins: bool) {
        let (entries, bytes) = (item.run.len(), item.run.size() as u64);
        let id = item.run.body().author;
        let Some(author) = self.authors.get_mut(&id) else { return };
        let before = author.share();
        if item.is_durable() {
            if joins {
                self.durable_runs += 1;
                self.durable_bytes += bytes;
            } else {
                self.durable_runs -= 1;
                self.durable_bytes -= bytes;
            }
        }
        if joins {
            self.entries += entries;
            self.bytes += bytes;
            author.retained += 1;
            author.entries += entries;
            author.bytes += bytes;
        } else {
            self.entries -= entries;
            self.bytes -= bytes;
            author.retained -= 1;
            author.entries -= entries;
            author.bytes -= bytes;
            self.idle += usize::from(author.retained == 0);
        }
        let share = author.share();
        self.shares.remove(&(before, id));
        if share > 0 {
            self.shares.insert((share, id));
        }
        self.shared = self.shared - before + share;
    }
}
