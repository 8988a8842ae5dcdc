//! Topic logs in the tables: what a change does to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, params};
use x0x_core::{AgentId, TopicId, WallTime};
use x0x_gossip_pubsub::{HybridTime, LogChange, Retention, Run, StoredChain};

use crate::{
    config::{MAX_KNOWN_ROWS, STEP_RUNS},
    gone,
    seal::{ChainRow, RunRow, topic_seal},
};

const FIND_TOPIC: &str = "SELECT id, incarnation, end FROM topic WHERE topic = ?1";
const ADD_TOPIC: &str = "INSERT INTO topic (topic, incarnation, end, seal) VALUES (?1, ?2, ?3, ?4)";
const SET_END: &str = "UPDATE topic SET end = ?2, seal = ?3 WHERE id = ?1";
const FIND_AUTHOR: &str = "SELECT id FROM author WHERE agent = ?1";
const ADD_AUTHOR: &str = "INSERT INTO author (agent, key) VALUES (?1, ?2)";
const ADD_RUN: &str = "INSERT OR REPLACE INTO run
    (topic, position, entries, missed, begins, author, time, seal, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const SET_CHAIN: &str = "INSERT INTO chain (topic, author, epoch, head, hash, time, seal)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET
    head = excluded.head, hash = excluded.hash, time = excluded.time, seal = excluded.seal
    WHERE excluded.head > chain.head";

/// A run that readers may still want; like the next two it returns where what it takes was.
const REMOVE_RUN: &str = "DELETE FROM run WHERE topic = ?1 AND position = ?2
    RETURNING topic, position + entries";
/// Runs that are past their time, the oldest first.
const EXPIRE_RUNS: &str = "DELETE FROM run WHERE id IN
    (SELECT id FROM run WHERE time < ?1 ORDER BY time LIMIT ?2)
    RETURNING topic, position + entries";
/// The time of runs that are kept for ever.
const NEVER: i64 = i64::MAX;
/// The runs that arrived first and are not kept for ever, so many or just above so many bytes.
const EVICT_RUNS: &str = "DELETE FROM run WHERE id IN (SELECT id FROM
    (SELECT id, SUM(bytes) OVER (ORDER BY id) - bytes AS before FROM
        (SELECT id, length(data) AS bytes FROM run WHERE time < 9223372036854775807
            ORDER BY id LIMIT ?1))
    WHERE before < ?2)
    RETURNING topic, position + entries";

/// Chains that are past their time; the class is in the epoch.
const EXPIRE_CHAINS: &str = "DELETE FROM chain WHERE time < ?1 AND (epoch >> 18) & 3 <> 3";

/// What remains without a chain, once chains are gone.
const SWEEP: [&str; 3] = [
    "DELETE FROM topic WHERE id NOT IN (SELECT topic FROM chain)",
    "DELETE FROM gone WHERE topic NOT IN (SELECT id FROM topic)",
    "DELETE FROM author WHERE id NOT IN (SELECT author FROM chain)",
];
/// Blocked authors that nothing is known of any more.
const UNBLOCK: &str = "DELETE FROM blocked WHERE NOT EXISTS (SELECT 1 FROM chain, author
    WHERE author.agent = blocked.agent
    AND chain.topic = blocked.topic AND chain.author = author.id)";

/// What the writer knows of the tables, so that a run costs two statements: row numbers, and what is
/// written once at the end of a transaction.
#[derive(Debug, Default)]
pub(crate) struct LogTables {
    topics: BTreeMap<TopicId, Topic>,
    authors: BTreeMap<AgentId, i64>,
    /// Heads that moved, by the rows of topic and author, and the epoch.
    heads: BTreeMap<(i64, i64, i64), Head>,
}

#[derive(Debug, Clone, Copy)]
struct Topic {
    id: i64,
    incarnation: i64,
    end: i64,
    /// The end moved.
    moved: bool,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    topic: TopicId,
    author: AgentId,
    row: ChainRow,
}

/// A run that joined a log, as the tables take it.
#[derive(Debug, Clone)]
pub(crate) struct AppendedRun {
    pub(crate) topic: TopicId,
    pub(crate) incarnation: u64,
    pub(crate) position: u64,
    pub(crate) entries: u64,
    pub(crate) missed: u64,
    pub(crate) begins: bool,
    pub(crate) author: AgentId,
    pub(crate) epoch: u64,
    /// Number and hash of its last entry.
    pub(crate) head: u64,
    pub(crate) hash: [u8; 32],
    /// Time of its last entry.
    pub(crate) time: u64,
    /// The author's key; empty when the author is known.
    pub(crate) key: Bytes,
    pub(crate) data: Bytes,
}

impl AppendedRun {
    pub(crate) fn new(
        run: &Run,
        (incarnation, position): (u64, u64),
        missed: u64,
        begins: bool,
        key: Bytes,
    ) -> Self {
        let (body, chain) = (run.body(), StoredChain::after(run));
        Self {
            topic: body.topic(),
            incarnation,
            position,
            entries: body.entries().len() as u64,
            missed,
            begins,
            author: chain.author,
            epoch: chain.epoch,
            head: chain.head,
            hash: chain.hash,
            time: chain.time.as_u64(),
            key,
            data: run.encoded().clone(),
        }
    }
}

impl LogTables {
    /// Forgets everything, since the transaction was undone.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Applies a change within the transaction that is open. Expiry is left to [`expire`].
    pub(crate) fn apply(&mut self, connection: &Connection, change: &LogChange) -> Result<()> {
        match change {
            LogChange::Append { incarnation, position, missed, begins, run, key } => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let place = (*incarnation, *position);
                self.append(connection, &AppendedRun::new(run, place, *missed, *begins, key))
            }
            LogChange::EvictTo { topic, position } => {
                let sql = "DELETE FROM run WHERE topic = ?1 AND position < ?2";
                self.of_topic(connection, topic, sql, position.cast_signed())
            }
            LogChange::Remove { topic, position } => {
                if let Some(topic) = self.find_topic(connection, topic)? {
                    gone::delete(connection, REMOVE_RUN, [topic.id, position.cast_signed()])?;
                }
                Ok(())
            }
            LogChange::Replace { topic, position } => {
                let sql = "DELETE FROM run WHERE topic = ?1 AND position = ?2";
                self.of_topic(connection, topic, sql, position.cast_signed())
            }
            LogChange::Reach { topic, incarnation, position } => {
                self.reach(connection, topic, incarnation.cast_signed(), position.cast_signed())
            }
            LogChange::Block { topic, author } => {
                let sql = "INSERT OR IGNORE INTO blocked (topic, agent) VALUES (?1, ?2)";
                self.of_topic(connection, topic, sql, author.as_bytes())
            }
            LogChange::DropTopic { topic } => self.drop_topic(connection, topic),
            _ => Ok(()),
        }
    }

    /// Adds a run. One whose author is not known and who has no key here is left out.
    pub(crate) fn append(&mut self, connection: &Connection, run: &AppendedRun) -> Result<()> {
        let Some(author) = self.author(connection, run.author, &run.key)? else { return Ok(()) };
        let topic = self.topic(connection, run.topic, run.incarnation.cast_signed())?;
        let row = RunRow {
            position: run.position.cast_signed(),
            entries: run.entries.cast_signed(),
            missed: run.missed.cast_signed(),
            begins: run.begins,
            time: run.time.cast_signed(),
        };
        let durable = Retention::of_epoch(run.epoch) == Retention::Durable;
        let kept = RunRow { time: if durable { NEVER } else { row.time }, ..row };
        add_run(connection, (topic, author), &kept, run)?;
        self.note_head((topic, author), &row, run);
        Ok(())
    }

    /// Writes what was put off to the end of the transaction.
    pub(crate) fn finish(&mut self, connection: &Connection) -> Result<()> {
        self.write_heads(connection)?;
        for (id, topic) in &mut self.topics {
            if std::mem::take(&mut topic.moved) {
                let seal = topic_seal(id.as_bytes(), topic.incarnation, topic.end);
                connection.prepare_cached(SET_END)?.execute(params![topic.id, topic.end, seal])?;
            }
        }
        if self.topics.len() > MAX_KNOWN_ROWS {
            self.topics.clear();
        }
        if self.authors.len() > MAX_KNOWN_ROWS {
            self.authors.clear();
        }
        Ok(())
    }

    /// Deletes some of what is from before a time. Returns how many runs, and whether that was all;
    /// chains and what hangs on them go in the last step only.
    pub(crate) fn expire(
        &mut self,
        connection: &Connection,
        before: WallTime,
    ) -> Result<(u64, bool)> {
        let before = HybridTime::from_wall(before).as_u64().cast_signed();
        let limit = i64::try_from(STEP_RUNS).unwrap_or(i64::MAX);
        let runs = gone::delete(connection, EXPIRE_RUNS, [before, limit])?;
        let last = runs < STEP_RUNS;
        if last {
            self.finish(connection)?;
            if connection.execute(EXPIRE_CHAINS, [before])? > 0 {
                for statement in SWEEP {
                    connection.execute(statement, [])?;
                }
                self.forget();
            }
            connection.execute(UNBLOCK, [])?;
        }
        Ok((runs as u64, last))
    }

    fn write_heads(&mut self, connection: &Connection) -> Result<()> {
        if self.heads.is_empty() {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(SET_CHAIN)?;
        for ((topic, author, epoch), head) in std::mem::take(&mut self.heads) {
            let ChainRow { head: seq, hash, time, .. } = head.row;
            let seal = head.row.seal(head.topic.as_bytes(), head.author.as_bytes());
            statement.execute(params![topic, author, epoch, seq, hash, time, seal])?;
        }
        Ok(())
    }

    /// The row of a topic in this incarnation; another one is dropped.
    fn topic(&mut self, connection: &Connection, id: TopicId, incarnation: i64) -> Result<i64> {
        match self.find_topic(connection, &id)? {
            Some(topic) if topic.incarnation == incarnation => return Ok(topic.id),
            Some(_) => self.drop_topic(connection, &id)?,
            None => {}
        }
        let seal = topic_seal(id.as_bytes(), incarnation, 0);
        let row = params![id.as_bytes(), incarnation, 0, seal];
        let row = connection.prepare_cached(ADD_TOPIC)?.insert(row)?;
        self.topics.insert(id, Topic { id: row, incarnation, end: 0, moved: false });
        Ok(row)
    }

    fn find_topic(&mut self, connection: &Connection, id: &TopicId) -> Result<Option<Topic>> {
        if let Some(topic) = self.topics.get(id) {
            return Ok(Some(*topic));
        }
        let found = connection
            .prepare_cached(FIND_TOPIC)?
            .query_row([id.as_bytes()], |row| {
                let (id, incarnation, end) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Topic { id, incarnation, end, moved: false })
            })
            .optional()?;
        if let Some(topic) = found {
            self.topics.insert(*id, topic);
        }
        Ok(found)
    }

    fn author(&mut self, connection: &Connection, id: AgentId, key: &[u8]) -> Result<Option<i64>> {
        if let Some(row) = self.authors.get(&id) {
            return Ok(Some(*row));
        }
        let found = connection
            .prepare_cached(FIND_AUTHOR)?
            .query_row([id.as_bytes()], |row| row.get(0))
            .optional()?;
        let row = match found {
            Some(row) => row,
            None if key.is_empty() => return Ok(None),
            None => connection.prepare_cached(ADD_AUTHOR)?.insert(params![id.as_bytes(), key])?,
        };
        self.authors.insert(id, row);
        Ok(Some(row))
    }

    fn note_head(&mut self, (topic, author): (i64, i64), row: &RunRow, run: &AppendedRun) {
        let head = ChainRow {
            epoch: run.epoch.cast_signed(),
            head: run.head.cast_signed(),
            hash: run.hash,
            time: row.time,
        };
        let noted = Head { topic: run.topic, author: run.author, row: head };
        let held = self.heads.entry((topic, author, head.epoch)).or_insert(noted);
        if held.row.head < head.head {
            *held = noted;
        }
        if let Some(topic) = self.topics.get_mut(&run.topic) {
            let end = row.position.saturating_add(row.entries);
            topic.moved |= end > topic.end;
            topic.end = topic.end.max(end);
        }
    }

    /// Notes that positions of a topic were given out up to here.
    fn reach(
        &mut self,
        connection: &Connection,
        topic: &TopicId,
        incarnation: i64,
        position: i64,
    ) -> Result<()> {
        self.find_topic(connection, topic)?;
        let held = self.topics.get_mut(topic).filter(|held| held.incarnation == incarnation);
        if let Some(held) = held {
            held.moved |= position > held.end;
            held.end = held.end.max(position);
        }
        Ok(())
    }

    /// Runs a statement with a topic's row and one more value, if the topic is held.
    fn of_topic(
        &mut self,
        connection: &Connection,
        topic: &TopicId,
        sql: &str,
        value: impl rusqlite::ToSql,
    ) -> Result<()> {
        if let Some(topic) = self.find_topic(connection, topic)? {
            connection.prepare_cached(sql)?.execute(params![topic.id, value])?;
        }
        Ok(())
    }

    fn drop_topic(&mut self, connection: &Connection, id: &TopicId) -> Result<()> {
        let Some(topic) = self.find_topic(connection, id)? else { return Ok(()) };
        self.heads.retain(|(row, _, _), _| *row != topic.id);
        for sql in [
            "DELETE FROM run WHERE topic = ?1",
            "DELETE FROM chain WHERE topic = ?1",
            "DELETE FROM blocked WHERE topic = ?1",
            "DELETE FROM gone WHERE topic = ?1",
            "DELETE FROM topic WHERE id = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([topic.id])?;
        }
        self.topics.remove(id);
        Ok(())
    }
}

/// Deletes some of the runs that arrived first, about so many bytes at most. Returns how many.
pub(crate) fn evict(connection: &Connection, bytes: u64) -> Result<usize> {
    let limit = i64::try_from(STEP_RUNS).unwrap_or(i64::MAX);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    gone::delete(connection, EVICT_RUNS, [limit, bytes])
}

fn add_run(
    connection: &Connection,
    (topic, author): (i64, i64),
    row: &RunRow,
    run: &AppendedRun,
) -> Result<()> {
    let data = &run.data;
    let seal = row.seal(run.topic.as_bytes(), run.author.as_bytes(), data);
    let RunRow { position, entries, missed, begins, time } = *row;
    connection.prepare_cached(ADD_RUN)?.execute(params![
        topic,
        position,
        entries,
        missed,
        begins,
        author,
        time,
        seal,
        &data[..],
    ])?;
    Ok(())
}
