//! The authors of a log: who came by which link, who stays, and what is remembered of those who do
//! not.

use std::sync::Arc;

use x0x_core::{AgentId, MachineId, Tick, WallTime};

use crate::{config::FREE_EPOCHS, retention::Retention, run::Run, time::HybridTime};

use super::{Author, Holes, Item, TopicLog, epochs::Epochs};

/// The link that brought an author; none for what was stored.
pub(crate) type Introducer = Option<MachineId>;

/// How an author is new to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) now: Tick,
    pub(crate) by: Introducer,
    /// Those who began before are established, while there are fewer than so many.
    pub(crate) before: Tick,
    pub(crate) most: usize,
    /// It is this node's own.
    pub(crate) own: bool,
}

impl TopicLog {
    /// Bytes that an author takes beside its key and runs: places in three trees, of which half may be
    /// empty, and a list of chains.
    pub(crate) const AUTHOR_PLACE: usize = 2 * size_of::<(AgentId, Author)>()
        + 2 * size_of::<(u64, AgentId)>()
        + 2 * size_of::<(Introducer, usize)>()
        + 16;
    /// Bytes of each chain, in a list with room for a quarter more.
    pub(crate) const CHAIN_PLACE: usize = Epochs::EACH * 5 / 4;
    /// Bytes that a run takes beside its own: places in the log, in its chain, and of a hole before it.
    pub(crate) const RUN_PLACE: usize = 2 * size_of::<(u64, Item)>()
        + 4 * size_of::<(Arc<Run>, u64)>()
        + Holes::EACH
        + 4 * size_of::<(Tick, u64)>();

    /// Chains beyond the free ones of their authors.
    pub(crate) const fn spare(&self) -> usize {
        self.spare
    }

    /// Authors that are no former ones.
    pub(crate) const fn authors(&self) -> usize {
        self.keyed
    }

    pub(crate) fn former_authors(&self) -> usize {
        self.authors.len() - self.keyed
    }

    /// Authors that can be made former ones.
    pub(crate) const fn idle_authors(&self) -> usize {
        self.idle
    }

    /// Bytes that the authors take, beside keys and runs.
    pub(crate) fn author_bytes(&self) -> usize {
        let chains: usize = self.authors.values().map(|author| author.epochs.capacity()).sum();
        self.authors.len() * Self::AUTHOR_PLACE + chains * Epochs::EACH
    }

    /// Notes how the author of the run appended last came here, if it is new, or that it went on for
    /// long.
    pub(crate) fn arrived(&mut self, id: &AgentId, arrival: Arrival) {
        let Some(author) = self.authors.get_mut(id).filter(|author| !author.established) else {
            return;
        };
        if author.counted {
            if author.began <= arrival.before {
                self.establish(id, arrival.before, arrival.most);
            }
            return;
        }
        (author.began, author.introducer) = (arrival.now, arrival.by);
        author.established = arrival.own;
        author.counted = !arrival.own;
        if arrival.own {
            self.established += 1;
        } else {
            *self.newcomers.entry(arrival.by).or_default() += 1;
        }
    }

    /// An author that went on publishing for so long is established, while there is room for it among
    /// those: who makes up authors cannot have them known for long at once.
    pub(crate) fn establish(&mut self, id: &AgentId, before: Tick, most: usize) {
        if self.established >= most {
            return;
        }
        let Some(author) = self.authors.get_mut(id) else { return };
        if author.counted && author.began <= before {
            (author.counted, author.established) = (false, true);
            let by = author.introducer;
            self.established += 1;
            self.leaves(by);
        }
    }

    /// A newcomer of a link is none any more.
    fn leaves(&mut self, by: Introducer) {
        if let Some(count) = self.newcomers.get_mut(&by) {
            *count -= 1;
            if *count == 0 {
                self.newcomers.remove(&by);
            }
        }
    }

    /// Newcomers that a link brought.
    pub(crate) fn newcomers_of(&self, by: &Introducer) -> usize {
        self.newcomers.get(by).copied().unwrap_or(0)
    }

    /// The link that brought most of the newcomers: this one if no other brought more.
    pub(crate) fn crowding(&self, by: &Introducer) -> Option<Introducer> {
        let most = self.newcomers.iter().max_by_key(|(other, count)| (**count, *other == by));
        most.map(|(by, _)| *by)
    }

    /// Of the newcomers of a link the one that is missed least: with a single entry, and silent for
    /// longest.
    pub(crate) fn least(&self, by: &Introducer) -> Option<AgentId> {
        let newcomers = self.authors.iter().filter(|(_, author)| author.counted);
        let theirs =
            newcomers.filter(|(_, author)| author.introducer == *by && author.retained > 0);
        let least = theirs.min_by_key(|(_, author)| (author.entries > 1, author.active));
        least.map(|(id, _)| *id)
    }

    /// Where the retained runs of an author are; with an epoch, of that one.
    pub(crate) fn places(&self, author: &AgentId, of: Option<u64>) -> Vec<u64> {
        let chains = self.authors.get(author).into_iter().flat_map(|author| author.epochs.iter());
        let chains = chains.filter(|(epoch, _)| of.is_none_or(|of| of == *epoch));
        let mut places: Vec<u64> =
            chains.flat_map(|(_, chain)| chain.retained.iter().map(|(_, at)| *at)).collect();
        places.sort_unstable();
        places
    }

    /// How many epochs of an author are known.
    pub(crate) fn epochs(&self, author: &AgentId) -> usize {
        self.authors.get(author).map_or(0, |author| author.epochs.len())
    }

    /// How many epochs of an author may be forgotten, and the oldest of them.
    pub(crate) fn passing_epochs(&self, author: &AgentId) -> (usize, Option<u64>) {
        let author = self.authors.get(author);
        author.map_or((0, None), |author| (author.passing().count(), author.passing().next()))
    }

    /// Of the author with most epochs that may be forgotten, how many.
    pub(crate) fn longest(&self) -> usize {
        self.authors.values().map(|author| author.passing().count()).max().unwrap_or(0)
    }

    /// The author with most epochs that may be forgotten; none when there are none beyond the free ones.
    pub(crate) fn most_epochs(&self) -> Option<AgentId> {
        let spare = self.authors.iter().filter(|(_, author)| author.epochs.len() > FREE_EPOCHS);
        let passing = spare.map(|(id, author)| (author.passing().count(), *id));
        passing.filter(|(count, _)| *count > 0).max_by_key(|(count, _)| *count).map(|(_, id)| id)
    }

    /// Forgets an author's epoch, of which nothing is retained, so that nothing of it is accepted again.
    pub(crate) fn forget_epoch(&mut self, author: &AgentId, epoch: u64) {
        let Some(author) = self.authors.get_mut(author) else { return };
        let spare = usize::from(author.epochs.len() > FREE_EPOCHS);
        if let Some(chain) = author.epochs.remove(epoch) {
            author.forgot = author.forgot.max(epoch);
            self.spare -= spare;
            self.fingerprint.remove(chain.mark);
        }
    }

    /// Forgets what a later epoch of the latest-only class took the place of: that it did is known
    /// without it.
    pub(super) fn forget_replaced(&mut self, author: &AgentId) {
        let Some(author) = self.authors.get_mut(author) else { return };
        let latest = |epoch: &u64| Retention::of_epoch(*epoch) == Retention::Latest;
        let newest = author.epochs.iter().map(|(epoch, _)| epoch).rfind(latest);
        let before = author.epochs.len().saturating_sub(FREE_EPOCHS);
        let fingerprint = &mut self.fingerprint;
        author.epochs.retain(|epoch, chain| {
            let kept = !latest(&epoch) || Some(epoch) == newest || !chain.retained.is_empty();
            if !kept {
                fingerprint.remove(chain.mark);
            }
            kept
        });
        self.spare -= before - author.epochs.len().saturating_sub(FREE_EPOCHS);
    }

    /// Forgets epochs of authors that have many, where nothing of them would be accepted again: what is
    /// from before a time, which differs for what is ephemeral.
    pub(crate) fn forget_epochs(&mut self, before: WallTime, ephemeral: WallTime) {
        if self.spare == 0 {
            return;
        }
        let fingerprint = &mut self.fingerprint;
        for author in self.authors.values_mut() {
            let mut spare = author.epochs.len().saturating_sub(FREE_EPOCHS);
            if spare == 0 {
                continue;
            }
            author.epochs.retain(|epoch, chain| {
                let of_class = match Retention::of_epoch(epoch) {
                    Retention::Ephemeral => ephemeral,
                    _ => before,
                };
                let old = chain.retained.is_empty() && chain.time.wall() < of_class;
                let forgotten = old && spare > 0;
                if forgotten {
                    spare -= 1;
                    self.spare -= 1;
                    fingerprint.remove(chain.mark);
                }
                !forgotten
            });
        }
    }

    /// Chains of which nothing is retained do not count any more when they end before this time:
    /// nobody retains anything of them.
    pub(crate) fn expire(&mut self, before: WallTime) {
        if self.gone.is_none_or(|gone| gone.wall() >= before) {
            return;
        }
        self.gone = None;
        for author in self.authors.values_mut() {
            let gone = author.epochs.iter_mut().map(|(_, chain)| chain);
            for chain in gone.filter(|chain| chain.retained.is_empty() && !chain.mark.is_zero()) {
                if chain.time.wall() < before {
                    self.fingerprint.remove(std::mem::take(&mut chain.mark));
                } else {
                    self.gone = Some(self.gone.map_or(chain.time, |gone| gone.min(chain.time)));
                }
            }
        }
    }

    /// When the oldest of what is retained, or counts as it did, is from.
    pub(crate) fn oldest_counted(&self) -> Option<HybridTime> {
        self.oldest().into_iter().chain(self.gone).min()
    }

    pub(crate) fn is_blocked(&self, author: &AgentId) -> bool {
        self.blocked > 0 && self.authors.get(author).is_some_and(|author| author.blocked)
    }

    /// Stops accepting and forwarding an author.
    pub(crate) fn block(&mut self, author: &AgentId) {
        let Some(author) = self.authors.get_mut(author) else { return };
        self.blocked += usize::from(!author.blocked);
        author.blocked = true;
        author.epochs.iter_mut().for_each(|(_, chain)| {
            self.fingerprint.remove(std::mem::take(&mut chain.mark));
        });
    }

    /// The authors that are blocked.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = AgentId> {
        self.authors.iter().filter(|(_, author)| author.blocked).map(|(id, _)| *id)
    }

    /// The authors that can be made former ones, with the time of their latest entry.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (HybridTime, AgentId)> {
        let idle = self.authors.iter().filter(|(_, a)| a.key.is_some() && a.retained == 0);
        idle.map(|(id, author)| (author.latest(), *id))
    }

    /// Makes an author without retained runs a former one: its key goes, its heads stay.
    pub(crate) fn forget_key(&mut self, author: &AgentId) {
        let Some(author) = self.authors.get_mut(author) else { return };
        if author.retained > 0 || author.key.take().is_none() {
            return;
        }
        self.keyed -= 1;
        self.idle -= 1;
        author.allowance = None;
        let (counted, by) = (std::mem::take(&mut author.counted), author.introducer);
        self.established -= usize::from(std::mem::take(&mut author.established));
        if counted {
            self.leaves(by);
        }
    }

    /// Forgets former authors of whom everything is from before this time, so that nothing of them
    /// would be accepted again.
    pub(crate) fn forget_former(&mut self, before: WallTime) {
        let (spare, fingerprint) = (&mut self.spare, &mut self.fingerprint);
        let blocked = &mut self.blocked;
        self.authors.retain(|_, author| {
            let kept = author.key.is_some() || author.latest().wall() >= before;
            if !kept {
                *spare -= author.epochs.len().saturating_sub(FREE_EPOCHS);
                *blocked -= usize::from(author.blocked);
                author.epochs.iter().for_each(|(_, chain)| fingerprint.remove(chain.mark));
            }
            kept
        });
    }
}
