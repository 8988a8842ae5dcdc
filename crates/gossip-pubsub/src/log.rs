//! A topic's log: runs in the order of their arrival here, with an index of each author's chain.
//!
//! Positions are counted in entries since the log began. They only grow, so that a subscriber or a
//! link keeps its place as a plain number while the front of the log is evicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use x0x_core::{AgentId, MachineId, Tick, TokenBucket, WallTime};
use x0x_identity::PublicKey;

use crate::{
    config::{FREE_EPOCHS, Limits},
    retention::Retention,
    run::{Run, RunBody},
    time::HybridTime,
    wire::Head,
};

mod authors;
mod chain;
mod epochs;
mod fingerprint;
mod holes;
mod remove;
mod restore;

pub(crate) use authors::{Arrival, Introducer};
pub(crate) use fingerprint::{Fingerprint, Sum};
pub(crate) use remove::Removed;
pub(crate) use restore::SKIPPED;

use chain::{Author, Chain, begins};
use holes::Holes;

#[cfg(test)]
mod tests;

/// One run in its place.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) run: Arc<Run>,
    /// Position of the run's first entry.
    pub(crate) start: u64,
    /// Bytes appended to this log before the run.
    pub(crate) start_bytes: u64,
    /// Entries of the author that are missing just before the run.
    pub(crate) missed: u64,
    /// The author's epoch begins here: what is missing is from before anything was known of it.
    pub(crate) begins: bool,
    /// Links that the run crossed on its way here.
    pub(crate) hops: u32,
}

/// How a chain's latest run came here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The link that it came over; none when it is this author's own, or was stored.
    pub(crate) peer: Option<MachineId>,
    /// Links that it crossed when it was pushed all the way; a copy that was asked for tells nothing
    /// about the tree.
    pub(crate) hops: Option<u32>,
}

impl Item {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.run.len()
    }

    /// Whether it is kept for ever.
    fn is_durable(&self) -> bool {
        self.run.body().retention() == Retention::Durable
    }

    /// Whether a store is told of it.
    pub(crate) fn is_stored(&self) -> bool {
        self.run.body().retention() != Retention::Ephemeral
    }
}

/// How a run that arrives relates to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The next of its author, or the first heard of it.
    Next,
    /// Later than the next: entries from `head + 1` are missing.
    Gap { head: u64 },
    /// Held already, with the same content.
    Duplicate,
    /// Older than what is retained, so that its content cannot be compared.
    Old,
    /// Other content at a place that is taken: proof against the author, if it is signed.
    Conflict,
    /// Begins within what is held and ends beyond it: proof too, since an author signs an entry once.
    Overlap,
    /// The next in number, but after another history, or at an earlier time: proof too.
    Fork,
    /// Cannot be in any log that an honest peer accepts.
    Mischained,
    /// The author is blocked here for equivocation.
    Blocked,
}

/// The log of one topic.
#[derive(Debug, Default)]
pub(crate) struct TopicLog {
    /// Which life of the log this is.
    incarnation: u64,
    /// By position.
    items: BTreeMap<u64, Item>,
    end: u64,
    end_bytes: u64,
    entries: u64,
    bytes: u64,
    /// Runs, and their bytes, that are kept for ever.
    durable_runs: usize,
    durable_bytes: u64,
    /// Retention removed what was before this position.
    evicted: u64,
    /// Where retention removed something; no more than there are runs, and one.
    holes: Holes,
    /// Before a restart, retention took something up to this position; and the removals counted then.
    taken: (u64, u64),
    /// What is before this position is in the store, or need not be; none without a store.
    stored: Option<u64>,
    fingerprint: Fingerprint,
    /// No chain that counts in it without a retained run ends before this time; none when there are
    /// none of these.
    gone: Option<HybridTime>,
    /// Authors that are not established, by the link that brought them.
    newcomers: BTreeMap<Introducer, usize>,
    established: usize,
    /// Authors that are blocked.
    blocked: usize,
    /// Chains beyond the free ones of their authors.
    spare: usize,
    authors: BTreeMap<AgentId, Author>,
    /// Authors with retained runs, by their share of the log.
    shares: BTreeSet<(u64, AgentId)>,
    /// The sum of the shares.
    shared: u64,
    /// Authors with a key, and those of them without retained runs.
    keyed: usize,
    idle: usize,
}

impl TopicLog {
    /// An empty log.
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// Which life of the log this is.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Position after the last entry.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Position of the oldest entry retained.
    pub(crate) fn base(&self) -> u64 {
        self.items.keys().next().map_or(self.end, |start| *start)
    }

    /// From now on entries are readable only once they are stored; those that are here are.
    pub(crate) const fn follow_store(&mut self) {
        self.stored = Some(self.end);
    }

    /// Subscribers may read what is before this position: it outlives a crash, as far as it is to.
    pub(crate) fn readable(&self) -> u64 {
        self.stored.unwrap_or(self.end)
    }

    /// The store has what is before a position.
    pub(crate) fn set_stored(&mut self, position: u64) {
        if let Some(stored) = &mut self.stored {
            *stored = position.max(*stored);
            self.pass_unstored();
        }
    }

    /// Moves on over entries that are not stored at all.
    fn pass_unstored(&mut self) {
        let Some(stored) = self.stored else { return };
        let items = self.from(stored).take_while(|item| !item.is_stored());
        self.stored = items.last().map(Item::end).or(self.stored);
    }

    /// Bytes that the store does not have yet.
    pub(crate) fn unstored_bytes(&self) -> u64 {
        self.stored.map_or(0, |stored| self.bytes_after(stored))
    }

    /// Entries that retention removed between two positions; those that were removed before this
    /// point are not counted. None when there are none, 0 when nobody knows how many.
    pub(crate) fn lost(&self, from: u64, to: u64, since: u64) -> Option<u64> {
        self.holes.count(from, to, since)
    }

    /// Whether retention took something behind a position before a restart: the removals counted then.
    /// Nobody knows any more how much that was.
    pub(crate) fn taken_behind(&self, position: u64) -> Option<u64> {
        (position < self.taken.0).then_some(self.taken.1)
    }

    /// How often retention removed something.
    pub(crate) const fn removals(&self) -> u64 {
        self.holes.removals()
    }

    /// Retention removed everything before this position.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Entries retained.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes retained.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is retained, in one number.
    pub(crate) const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Bytes from a position to the end.
    pub(crate) fn bytes_after(&self, position: u64) -> u64 {
        self.at(position).map_or(0, |item| self.end_bytes - item.start_bytes)
    }

    /// The run that holds a position, or the first one behind it.
    pub(crate) fn at(&self, position: u64) -> Option<&Item> {
        self.from(position).next()
    }

    /// The runs from a position on.
    pub(crate) fn from(&self, position: u64) -> impl Iterator<Item = &Item> {
        let before = self.items.range(..=position).next_back();
        let holding = before.filter(|(_, item)| item.end() > position);
        let from = holding.map_or(position, |(start, _)| *start);
        self.items.range(from..).map(|(_, item)| item)
    }

    /// The author's key, known since its first run was verified.
    pub(crate) fn key(&self, author: &AgentId) -> Option<&PublicKey> {
        self.authors.get(author)?.key.as_ref()
    }

    /// What an author may bring in; none when it is new.
    pub(crate) fn allowance(
        &mut self,
        author: &AgentId,
        now: Tick,
        limits: &Limits,
    ) -> Option<&mut TokenBucket> {
        let author = self.authors.get_mut(author)?;
        let fresh = || crate::link::bucket(now, limits.author_burst, limits.author_rate);
        Some(author.allowance.get_or_insert_with(fresh))
    }

    /// Whether runs of this chain beyond its head could be accepted.
    pub(crate) fn takes(&self, author: &AgentId, epoch: u64) -> bool {
        let Some(author) = self.authors.get(author) else { return true };
        let replaced = author.replaced(epoch);
        !author.blocked
            && !replaced
            && (author.epochs.get(epoch).is_some() || !author.supersedes(epoch))
    }

    /// The last contiguous entry of an author's epoch; 0 when nothing is known of it.
    pub(crate) fn head(&self, author: &AgentId, epoch: u64) -> u64 {
        self.chain(author, epoch).map_or(0, |chain| chain.head)
    }

    /// The heads of the chains between two of them, in order: what is compared with peers. All that are
    /// within the retention count, whether anything of them is retained here or not: else what each
    /// node removed to make room would differ for ever.
    pub(crate) fn heads(
        &self,
        from: (AgentId, u64),
        to: Option<(AgentId, u64)>,
    ) -> impl Iterator<Item = (Head, Sum)> + '_ {
        let authors = self.authors.range(from.0..);
        let chains = authors.flat_map(|(id, author)| {
            author.epochs.iter().map(move |(epoch, chain)| {
                let gone = chain.retained.is_empty();
                (Head { author: *id, epoch, seq: chain.head, gone }, chain.mark)
            })
        });
        let chains = chains.skip_while(move |(head, _)| (head.author, head.epoch) < from);
        let chains =
            chains.take_while(move |(head, _)| to.is_none_or(|to| (head.author, head.epoch) < to));
        chains.filter(|(_, mark)| !mark.is_zero())
    }

    /// A chain's head, and its part of the fingerprint.
    pub(crate) fn counted(&self, author: &AgentId, epoch: u64) -> (u64, Sum) {
        self.chain(author, epoch).map_or((0, Sum::ZERO), |chain| (chain.head, chain.mark))
    }

    /// All heads that are compared with peers.
    pub(crate) fn all_heads(&self) -> Vec<Head> {
        self.heads((AgentId::new([0; 32]), 0), None).map(|(head, _)| head).collect()
    }

    /// How the chain's latest run came here.
    pub(crate) fn route(&self, author: &AgentId, epoch: u64) -> Option<Route> {
        self.chain(author, epoch).map(|chain| chain.route)
    }

    /// The retained run that holds a sequence number, or the chain's first after it.
    pub(crate) fn serve(&self, author: &AgentId, epoch: u64, seq: u64) -> Option<&Item> {
        self.at(self.position(author, epoch, seq)?)
    }

    /// Whether any run of this author is retained.
    pub(crate) fn retains_author(&self, author: &AgentId) -> bool {
        self.authors.get(author).is_some_and(|author| author.retained > 0)
    }

    /// Relates a run to what is held. Cheap unless the run is at a place that is taken.
    pub(crate) fn relation(&self, run: &RunBody, signature: &[u8]) -> Relation {
        let Some(author) = self.authors.get(&run.author) else { return begins(run) };
        if author.blocked {
            return Relation::Blocked;
        }
        if author.replaced(run.epoch) {
            return Relation::Old;
        }
        let Some(chain) = author.epochs.get(run.epoch) else {
            return if author.supersedes(run.epoch) { Relation::Old } else { begins(run) };
        };
        let latest = run.retention() == Retention::Latest;
        if run.first_seq > chain.head + 1 {
            // What was before the newest one is not missing: this takes its place. By its number alone,
            // which everybody sees alike, whatever they hold.
            return if latest { Relation::Next } else { Relation::Gap { head: chain.head } };
        }
        if run.first_seq == chain.head + 1 {
            // A time that runs backwards is the author's doing if the signature is: who forwards it need
            // not know the entry before.
            let follows = run.prev == chain.hash && (latest || run.first_time() > chain.time);
            return if follows { Relation::Next } else { Relation::Fork };
        }
        chain.compare(run, signature)
    }

    /// Where to read an author's chain from to get a sequence number: the position of the run that
    /// holds it, or of the oldest one retained.
    pub(crate) fn position(&self, author: &AgentId, epoch: u64, seq: u64) -> Option<u64> {
        let retained = &self.chain(author, epoch)?.retained;
        let index = retained.partition_point(|(run, _)| run.body().last_seq() < seq);
        retained.get(index).map(|(_, position)| *position)
    }

    /// Whether nothing older of the run's chain is retained that is not past `oldest`.
    pub(crate) fn is_floor(&self, run: &Run, oldest: WallTime) -> bool {
        let body = run.body();
        let Some(chain) = self.chain(&body.author, body.epoch) else { return true };
        let held = chain.retained.iter().map(|(held, _)| held);
        let mut older = held.take_while(|held| held.body().first_seq < body.first_seq);
        !older.any(|held| !held.body().is_expired(oldest))
    }

    /// An author's retained entries from this time on: epoch, first and last.
    pub(crate) fn recent(
        &self,
        author: &AgentId,
        since: WallTime,
    ) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let epochs = self.authors.get(author).into_iter().flat_map(|author| author.epochs.iter());
        epochs.filter_map(move |(epoch, chain)| {
            let old =
                chain.retained.partition_point(|(run, _)| run.body().last_time().wall() < since);
            let (first, _) = chain.retained.get(old)?;
            Some((epoch, first.body().first_seq, chain.head))
        })
    }

    /// The retained run that holds a sequence number.
    pub(crate) fn find(&self, author: &AgentId, epoch: u64, seq: u64) -> Option<&Arc<Run>> {
        self.chain(author, epoch)?.find(seq)
    }

    /// Appends a run that is the next of its author, or follows a gap that is accepted. Returns the
    /// runs whose place it takes.
    pub(crate) fn append(
        &mut self,
        run: Arc<Run>,
        key: &PublicKey,
        route: Route,
        hops: u32,
    ) -> Vec<Item> {
        let body = run.body();
        let (id, epoch, start) = (body.author, body.epoch, self.end);
        let author = self.authors.entry(id).or_default();
        if author.key.is_none() {
            author.key = Some(key.clone());
            self.keyed += 1;
        } else if author.retained == 0 {
            self.idle -= 1;
        }
        author.active = start;
        let (chain, begins) = author.epochs.make(epoch, || Chain::begin(body.prev));
        let Some(chain) = chain else { return Vec::new() };
        let missed = body.missed_after(chain.head);
        chain.head = body.last_seq();
        chain.hash = run.hash();
        chain.time = body.last_time();
        chain.retained.push_back((Arc::clone(&run), start));
        chain.route = route;
        let mark = Sum::of(&id, epoch, chain.head);
        self.fingerprint.replace(std::mem::replace(&mut chain.mark, mark), mark);
        if begins {
            self.spare += usize::from(author.epochs.len() > FREE_EPOCHS);
        }
        let retention = run.body().retention();
        let item = Item { run, start, start_bytes: self.end_bytes, missed, begins, hops };
        self.end = item.end();
        self.end_bytes += item.run.size() as u64;
        self.weigh(&item, true);
        self.items.insert(start, item);
        match retention {
            Retention::Latest => self.replace(&id, start),
            Retention::Ephemeral => {
                self.pass_unstored();
                Vec::new()
            }
            Retention::Standard | Retention::Durable => Vec::new(),
        }
    }

    /// The run appended last.
    pub(crate) fn last(&self) -> Option<&Item> {
        self.items.last_key_value().map(|(_, item)| item)
    }

    /// The greatest time in it.
    pub(crate) fn latest(&self) -> HybridTime {
        self.items.values().map(|item| item.run.body().last_time()).max().unwrap_or_default()
    }

    /// The last time of the oldest run that grows too old.
    pub(crate) fn oldest(&self) -> Option<HybridTime> {
        self.oldest_passing().map(|item| item.run.body().last_time())
    }

    /// The oldest run that is not kept for ever.
    fn oldest_passing(&self) -> Option<&Item> {
        if self.durable_runs == self.items.len() {
            return None;
        }
        self.items.values().find(|item| !item.is_durable())
    }

    /// Bytes retained that are kept for ever.
    pub(crate) const fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    fn chain(&self, author: &AgentId, epoch: u64) -> Option<&Chain> {
        self.authors.get(author)?.epochs.get(epoch)
    }
}
