//! Up to where retention took runs out of a topic's log, so that a reader who stopped before that is told
//! after a restart, too.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Params, Result, params};

use crate::seal::gone_seal;

/// Only ever moves on.
const MARK: &str = "INSERT INTO gone (topic, position, seal) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET position = excluded.position, seal = excluded.seal
    WHERE excluded.position > gone.position";
const FIND: &str = "SELECT position, seal FROM gone WHERE topic = ?1";

/// Runs a statement that deletes runs and returns the topic and the end of each, and marks the topics.
/// Returns how many runs.
pub(crate) fn delete(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let (mut runs, mut ends) = (0, BTreeMap::new());
    while let Some(row) = rows.next()? {
        let (topic, end): (i64, i64) = (row.get(0)?, row.get(1)?);
        let furthest = ends.entry(topic).or_insert(end);
        *furthest = end.max(*furthest);
        runs += 1;
    }
    let mut mark = connection.prepare_cached(MARK)?;
    for (topic, end) in ends {
        mark.execute(params![topic, end, gone_seal(topic, end)])?;
    }
    Ok(runs)
}

/// The mark of the topic in this row; where its positions end, if the mark is damaged, so that a reader is
/// rather told once too often. The latter is said too.
pub(crate) fn of_topic(connection: &Connection, topic: i64, end: i64) -> Result<(i64, bool)> {
    let found = connection
        .query_row(FIND, [topic], |row| {
            let whole: Option<(i64, i64)> = row.get(0).ok().zip(row.get(1).ok());
            Ok(whole.filter(|(position, seal)| *seal == gone_seal(topic, *position)))
        })
        .optional()?;
    Ok(match found {
        None => (0, false),
        Some(Some((position, _))) => (position.min(end), false),
        Some(None) => (end, true),
    })
}
