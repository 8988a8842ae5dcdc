//! Reading a topic back. Rows are bounded and their seals checked before anything is made of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params, types::ValueRef};
use x0x_core::{AgentId, TopicId};
use x0x_gossip_pubsub::{
    HeldOf, HybridTime, LoadLimits, MAX_RUN_BYTES, StoredChain, StoredRun, StoredTopic,
};
use x0x_identity::PUBLIC_KEY_LEN;

use crate::{
    gone,
    metrics::StoreMetrics,
    seal::{ChainRow, RunRow, topic_seal},
};

const TOPIC: &str = "SELECT id, incarnation, end, seal FROM topic WHERE topic = ?1";
const RUNS: &str = "SELECT r.position, r.entries, r.missed, r.begins, r.time, r.seal, r.author,
    a.agent, iif(length(r.data) <= ?3, r.data, NULL)
    FROM run r LEFT JOIN author a ON a.id = r.author
    WHERE r.topic = ?1 ORDER BY r.position DESC LIMIT ?2";
const KEY: &str = "SELECT key FROM author WHERE id = ?1 AND length(key) = ?2";
const CHAINS: &str = "SELECT a.agent, c.epoch, c.head, c.hash, c.time, c.seal
    FROM chain c LEFT JOIN author a ON a.id = c.author
    WHERE c.topic = ?1 ORDER BY c.time DESC, a.agent DESC LIMIT ?2";
const BLOCKED: &str = "SELECT agent FROM blocked WHERE topic = ?1 ORDER BY agent LIMIT ?2";

const HELD_OF: &str = "SELECT t.topic FROM chain c
    JOIN author a ON a.id = c.author JOIN topic t ON t.id = c.topic
    WHERE a.agent = ?1 GROUP BY c.topic ORDER BY MAX(c.time) DESC, t.topic DESC LIMIT ?2";
const GREATEST_EPOCH: &str = "SELECT MAX(c.epoch) FROM chain c JOIN author a ON a.id = c.author
    WHERE a.agent = ?1";

/// A topic as one connection sees it at one point.
struct Loader<'a> {
    connection: &'a Connection,
    topic: TopicId,
    /// The topic's row.
    row: i64,
    limits: LoadLimits,
    metrics: &'a StoreMetrics,
}

/// Reads what is held of a topic, the newest first, up to the limits.
pub(crate) fn load(
    connection: &Connection,
    topic: TopicId,
    limits: LoadLimits,
    metrics: &StoreMetrics,
) -> Result<Option<StoredTopic>> {
    let transaction = connection.unchecked_transaction()?;
    let found =
        transaction.query_row(TOPIC, [topic.as_bytes()], |row| numbers(row, 0)).optional()?;
    metrics.loads.inc();
    let Some([row, incarnation, end, seal]) = found else { return Ok(None) };
    if seal != topic_seal(topic.as_bytes(), incarnation, end) {
        // Where positions stand is unknown, so that the log has to begin anew.
        metrics.rows_damaged.inc();
        return Ok(None);
    }
    let loader = Loader { connection: &transaction, topic, row, limits, metrics };
    let (runs, authors) = loader.runs()?;
    metrics.runs_loaded.add(runs.len() as u64);
    let (gone, is_damaged) = gone::of_topic(&transaction, row, end)?;
    metrics.rows_damaged.add(u64::from(is_damaged));
    Ok(Some(StoredTopic {
        incarnation: incarnation.cast_unsigned(),
        end: end.cast_unsigned(),
        gone: gone.cast_unsigned(),
        runs,
        chains: loader.chains()?,
        keys: loader.keys(authors)?,
        blocked: loader.blocked()?,
    }))
}

/// Of which topics something of an author is held. Seals are looked at when a topic is read.
pub(crate) fn held_of(connection: &Connection, author: AgentId, most: usize) -> Result<HeldOf> {
    let transaction = connection.unchecked_transaction()?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = transaction.prepare(HELD_OF)?;
    let mut rows = statement.query(params![author.as_bytes(), most])?;
    let mut topics = Vec::new();
    while let Some(row) = rows.next()? {
        let topic = row.get_ref(0)?.as_blob().ok();
        topics.extend(topic.and_then(|topic| topic.try_into().ok()).map(TopicId::new));
    }
    let epoch = transaction
        .query_row(GREATEST_EPOCH, [author.as_bytes()], |row| row.get::<_, Option<i64>>(0))?;
    Ok(HeldOf { topics, epoch: epoch.unwrap_or(0).cast_unsigned() })
}

impl Loader<'_> {
    /// The newest runs in order, and their authors with the rows of those.
    fn runs(&self) -> Result<(Vec<StoredRun>, BTreeMap<AgentId, i64>)> {
        let mut statement = self.connection.prepare(RUNS)?;
        let most = i64::try_from(self.limits.runs).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![self.row, most, MAX_RUN_BYTES])?;
        let (mut runs, mut authors, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        while let Some(row) = rows.next()? {
            let Some((run, author)) = self.run(row)? else {
                self.metrics.rows_damaged.inc();
                continue;
            };
            bytes += run.run.len() as u64;
            if bytes > self.limits.bytes {
                break;
            }
            let [row] = numbers(row, 6)?;
            authors.insert(author, row);
            runs.push(run);
        }
        runs.reverse();
        Ok((runs, authors))
    }

    /// A run, unless its row is damaged.
    fn run(&self, row: &Row<'_>) -> Result<Option<(StoredRun, AgentId)>> {
        let (ValueRef::Blob(agent), ValueRef::Blob(data)) = (row.get_ref(7)?, row.get_ref(8)?)
        else {
            return Ok(None);
        };
        let [position, entries, missed, begins, time, seal] = numbers(row, 0)?;
        let held = RunRow { position, entries, missed, begins: begins != 0, time };
        let Ok(author) = <[u8; 32]>::try_from(agent) else { return Ok(None) };
        if seal != held.seal(self.topic.as_bytes(), agent, data) {
            return Ok(None);
        }
        let run = StoredRun {
            position: position.cast_unsigned(),
            missed: missed.cast_unsigned(),
            begins: held.begins,
            run: Bytes::copy_from_slice(data),
        };
        Ok(Some((run, AgentId::new(author))))
    }

    fn chains(&self) -> Result<Vec<StoredChain>> {
        let mut statement = self.connection.prepare(CHAINS)?;
        let most = i64::try_from(self.limits.chains).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![self.row, most])?;
        let mut chains = Vec::new();
        while let Some(row) = rows.next()? {
            match self.chain(row)? {
                Some(chain) => chains.push(chain),
                None => self.metrics.rows_damaged.inc(),
            }
        }
        chains.sort_unstable_by_key(|chain| (chain.author, chain.epoch));
        Ok(chains)
    }

    /// A chain's head, unless its row is damaged.
    fn chain(&self, row: &Row<'_>) -> Result<Option<StoredChain>> {
        let (ValueRef::Blob(agent), ValueRef::Blob(hash)) = (row.get_ref(0)?, row.get_ref(3)?)
        else {
            return Ok(None);
        };
        let (Ok(author), Ok(hash)) = (<[u8; 32]>::try_from(agent), hash.try_into()) else {
            return Ok(None);
        };
        let [epoch, head] = numbers(row, 1)?;
        let [time, seal] = numbers(row, 4)?;
        let held = ChainRow { epoch, head, hash, time };
        if seal != held.seal(self.topic.as_bytes(), agent) {
            return Ok(None);
        }
        Ok(Some(StoredChain {
            author: AgentId::new(author),
            epoch: epoch.cast_unsigned(),
            head: head.cast_unsigned(),
            hash,
            time: HybridTime::from_u64(time.cast_unsigned()),
        }))
    }

    fn keys(&self, authors: BTreeMap<AgentId, i64>) -> Result<Vec<(AgentId, Bytes)>> {
        let mut statement = self.connection.prepare(KEY)?;
        let mut keys = Vec::with_capacity(authors.len());
        for (author, row) in authors {
            let mut rows = statement.query(params![row, PUBLIC_KEY_LEN])?;
            match rows.next()?.map(|row| row.get_ref(0)).transpose()? {
                Some(ValueRef::Blob(key)) => keys.push((author, Bytes::copy_from_slice(key))),
                _ => self.metrics.rows_damaged.inc(),
            }
        }
        Ok(keys)
    }

    fn blocked(&self) -> Result<Vec<AgentId>> {
        let mut statement = self.connection.prepare(BLOCKED)?;
        let most = i64::try_from(self.limits.chains).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![self.row, most])?;
        let mut blocked = Vec::new();
        while let Some(row) = rows.next()? {
            match row.get_ref(0)?.as_blob().ok().and_then(|agent| agent.try_into().ok()) {
                Some(agent) => blocked.push(AgentId::new(agent)),
                None => self.metrics.rows_damaged.inc(),
            }
        }
        Ok(blocked)
    }
}

/// The numbers in `N` columns from the first on. A damaged one is 0, which its seal does not allow.
fn numbers<const N: usize>(row: &Row<'_>, first: usize) -> Result<[i64; N]> {
    let mut numbers = [0; N];
    for (column, number) in (first..).zip(&mut numbers) {
        if let ValueRef::Integer(value) = row.get_ref(column)? {
            *number = value;
        }
    }
    Ok(numbers)
}
