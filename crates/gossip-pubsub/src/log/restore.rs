//! Taking over what a store held.

use x0x_core::{AgentId, Tick};

use crate::{config::MAX_EPOCHS, run::EntryHash, store::RestoredTopic};

use super::{Arrival, Author, Chain, FREE_EPOCHS, Holes, Route, Sum, TopicLog};

/// Positions left out after a restart. Fewer entries than that can have been delivered without being
/// stored, since a store is told where they end each time that half as many were, so that no position
/// names two entries in one life of a log.
pub(crate) const SKIPPED: u64 = 1 << 20;

impl TopicLog {
    /// The log that was stored, with its positions.
    pub(crate) fn restored(stored: RestoredTopic) -> Self {
        let mut log = Self::new(stored.incarnation);
        let (now, before) = (Tick::from_millis(1), Tick::ZERO);
        let arrival = Arrival { now, by: None, before, most: 0, own: false };
        for held in stored.runs {
            let Some(key) = stored.keys.get(&held.run.body().author) else { continue };
            log.end = held.position;
            let author = held.run.body().author;
            log.append(held.run, key, Route::default(), 0);
            log.arrived(&author, arrival);
            if let Some(mut item) = log.items.last_entry() {
                let item = item.get_mut();
                (item.missed, item.begins) = (held.missed, held.begins);
            }
        }
        for former in stored.former {
            let author = log.authors.entry(former.author).or_default();
            let hash = EntryHash::new(former.hash);
            if author.replaced(former.epoch) {
                continue;
            }
            let (chain, _) = author.epochs.make(former.epoch, || Chain::begin(hash));
            let Some(chain) = chain else { continue };
            (chain.head, chain.hash, chain.time) = (former.head, hash, former.time);
            if chain.retained.is_empty() {
                let mark = Sum::of(&former.author, former.epoch, former.head);
                log.fingerprint.replace(std::mem::replace(&mut chain.mark, mark), mark);
                log.gone = Some(log.gone.map_or(former.time, |gone| gone.min(former.time)));
            }
        }
        for author in stored.blocked {
            log.authors.entry(author).or_default();
            log.block(&author);
        }
        log.recount();
        log.limit_restored();
        // A log of which nothing is retained lost all that was ever in it.
        log.evicted = if log.items.is_empty() { stored.end } else { log.base() };
        log.holes = Holes::before(log.evicted);
        log.taken = (stored.gone, log.holes.removals());
        log.end = stored.end + SKIPPED;
        log
    }

    /// Forgets what authors have too many epochs of: more than are kept may have been stored since they
    /// were forgotten before the restart.
    fn limit_restored(&mut self) {
        let many = self.authors.iter().filter(|(_, author)| author.epochs.len() > MAX_EPOCHS);
        let many: Vec<AgentId> = many.map(|(id, _)| *id).collect();
        for id in many {
            while let (epochs, Some(oldest)) = self.passing_epochs(&id)
                && epochs > MAX_EPOCHS
            {
                for place in self.places(&id, Some(oldest)) {
                    drop(self.expel(place));
                }
                self.forget_epoch(&id, oldest);
            }
        }
    }

    /// Of authors that were stored, this node's own is established, and those are that had published
    /// for so many milliseconds, as far as there is room for them.
    pub(crate) fn recognise(&mut self, me: &AgentId, span: u64, most: usize) {
        let long: Vec<AgentId> = self
            .authors
            .iter()
            .filter(|(id, author)| author.counted && (*id == me || author.span() >= span))
            .map(|(id, _)| *id)
            .collect();
        let began = Tick::from_millis(1);
        self.establish(me, began, usize::MAX);
        long.iter().for_each(|id| self.establish(id, began, most));
    }

    /// Forgets the former authors whose latest entry is oldest, until so few are left.
    pub(crate) fn limit_former(&mut self, most: usize) {
        let former = self.authors.iter().filter(|(_, author)| author.key.is_none());
        let mut former: Vec<_> =
            former.map(|(id, author)| (author.blocked, author.latest(), *id)).collect();
        former.sort_unstable();
        let surplus = former.len().saturating_sub(most);
        for (_, _, id) in former.drain(..surplus) {
            if let Some(author) = self.authors.remove(&id) {
                self.blocked -= usize::from(author.blocked);
                author.epochs.iter().for_each(|(_, chain)| self.fingerprint.remove(chain.mark));
            }
        }
        self.recount();
    }

    /// Counts the chains beyond the free ones anew, after some were added without a run.
    fn recount(&mut self) {
        let spare = |author: &Author| author.epochs.len().saturating_sub(FREE_EPOCHS);
        self.spare = self.authors.values().map(spare).sum();
    }
}
