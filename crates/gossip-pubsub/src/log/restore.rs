//! Taking over what a store held.

use crate::{run::EntryHash, store::RestoredTopic};

use super::{Author, Chain, FREE_EPOCHS, Holes, MAX_EPOCHS, Route, TopicLog};

/// Positions left out after a restart. Fewer entries than that can have been delivered without being
/// stored, since a store is told where they end each time that half as many were, so that no position
/// names two entries in one life of a log.
pub(crate) const SKIPPED: u64 = 1 << 20;

impl TopicLog {
    /// The log that was stored, with its positions.
    pub(crate) fn restored(stored: RestoredTopic) -> Self {
        let mut log = Self::new(stored.incarnation);
        for held in stored.runs {
            let Some(key) = stored.keys.get(&held.run.body().author) else { continue };
            log.end = held.position;
            log.append(held.run, key, Route::default(), 0);
            if let Some(mut item) = log.items.last_entry() {
                let item = item.get_mut();
                (item.missed, item.begins) = (held.missed, held.begins);
            }
        }
        for former in stored.former {
            let author = log.authors.entry(former.author).or_default();
            let hash = EntryHash::new(former.hash);
            let epoch = author.epochs.entry(former.epoch);
            let chain = epoch.or_insert_with(|| Chain::begin(hash));
            (chain.head, chain.hash, chain.time) = (former.head, hash, former.time);
        }
        for author in stored.blocked {
            log.authors.entry(author).or_default();
            log.block(&author);
        }
        // More than are kept may have been stored since they were forgotten here.
        for author in log.authors.values_mut().filter(|author| author.epochs.len() > MAX_EPOCHS) {
            author.forgot = true;
            while author.epochs.len() > MAX_EPOCHS {
                let Some((_, chain)) = author.epochs.pop_first() else { break };
                log.fingerprint.remove(chain.mark);
            }
        }
        // A log of which nothing is retained lost all that was ever in it.
        log.evicted = if log.items.is_empty() { stored.end } else { log.base() };
        log.holes = Holes::before(log.evicted);
        log.end = stored.end + SKIPPED;
        log.recount();
        log
    }

    /// Forgets the former authors whose latest entry is oldest, until so few are left.
    pub(crate) fn limit_former(&mut self, most: usize) {
        let former = self.authors.iter().filter(|(_, author)| author.key.is_none());
        let mut former: Vec<_> =
            former.map(|(id, author)| (author.blocked, author.latest(), *id)).collect();
        former.sort_unstable();
        let surplus = former.len().saturating_sub(most);
        for (_, _, id) in former.drain(..surplus) {
            self.authors.remove(&id);
        }
        self.recount();
    }

    /// Counts the chains beyond the free ones anew, after some were added without a run.
    fn recount(&mut self) {
        let spare = |author: &Author| author.epochs.len().saturating_sub(FREE_EPOCHS);
        self.spare = self.authors.values().map(spare).sum();
    }
}
