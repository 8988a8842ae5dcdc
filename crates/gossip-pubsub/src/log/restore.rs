//! Taking over what a store held.

use crate::{run::EntryHash, store::RestoredTopic};

use super::{Author, Chain, FREE_EPOCHS, Route, TopicLog};

/// Positions left out after a restart. Fewer entries than that can have been delivered without being
/// stored, so that no position names two entries in one life of a log.
const SKIPPED: u64 = 1 << 20;

impl TopicLog {
    /// The log that was stored, with its positions.
    pub(crate) fn restored(stored: RestoredTopic) -> Self {
        let mut log = Self::new(stored.incarnation);
        for held in stored.runs {
            let Some(key) = stored.keys.get(&held.run.body().author) else { continue };
            log.end = held.position;
            log.append(held.run, key, Route::default(), 0);
            if let Some(item) = log.items.back_mut() {
                (item.missed, item.begins) = (held.missed, held.begins);
            }
        }
        for former in stored.former {
            let author = log.authors.entry(former.author).or_default();
            let hash = EntryHash::from_bytes(former.hash);
            let epoch = author.epochs.entry(former.epoch);
            let chain = epoch.or_insert_with(|| Chain::begin(hash));
            (chain.head, chain.hash, chain.time) = (former.head, hash, former.time);
        }
        for author in stored.blocked {
            log.authors.entry(author).or_default();
            log.block(&author);
        }
        log.evicted = log.base();
        log.end = stored.end + SKIPPED;
        log.recount();
        log
    }

    /// Counts the chains beyond the free ones anew, after some were added without a run.
    fn recount(&mut self) {
        let spare = |author: &Author| author.epochs.len().saturating_sub(FREE_EPOCHS);
        self.spare = self.authors.values().map(spare).sum();
    }
}
