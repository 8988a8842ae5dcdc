//! What of the mail and the letters is not kept, and in which order it goes.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, ToSql, params};
use x0x_core::WallTime;
use x0x_direct::mail::{Consumer, Retention};

use super::{MailTables, STRANGER, Tally, millis, text_row};
use crate::config::{MAX_CONSUMERS, STEP_MAIL};

/// Ids remembered after their mail is pruned, so that a late retry is known: rows without a payload.
const REMEMBERED: u64 = 64 * 1024;

/// The oldest mail with a payload, between two numbers.
const OLDEST: &str = "SELECT number, time, length(payload), flags FROM mail
    WHERE number > ?1 AND number <= ?2 AND payload IS NOT NULL ORDER BY number LIMIT ?3";
/// The oldest that strangers left.
const OLDEST_OF_STRANGERS: &str = "SELECT number, time, length(payload), flags FROM mail
    INDEXED BY mail_stranger WHERE flags & 4 AND payload IS NOT NULL AND number <= ?1 ORDER BY number LIMIT ?2";
/// The oldest letters that are settled.
const OLDEST_LETTERS: &str = "SELECT number, changed, length(payload), flags FROM letter
    WHERE state >= 2 ORDER BY number LIMIT ?1";
/// The first mail with a payload after a number.
const FIRST_KEPT: &str = "SELECT number FROM mail WHERE number > ?1 AND payload IS NOT NULL
    ORDER BY number LIMIT 1";
/// What was pruned and is remembered no more.
const FORGET: &str = "DELETE FROM mail WHERE number IN (SELECT number FROM mail
    INDEXED BY mail_pruned WHERE payload IS NULL AND number <= ?1 ORDER BY number LIMIT ?2)";

/// A row that may go.
#[derive(Debug, Clone, Copy)]
struct Row {
    number: i64,
    /// When it came, or was settled.
    time: i64,
    bytes: i64,
    stranger: bool,
}

/// Which mail goes while there is too much of it.
#[derive(Debug, Clone, Copy)]
enum Pruned {
    /// Whatever is too old.
    Old,
    /// Strangers', beyond its part.
    StrangersPart,
    /// Strangers' up to a number.
    Strangers(i64),
    /// The oldest up to a number.
    Oldest(i64),
}

impl Tally {
    const fn exceeds(&self, retention: &Retention) -> bool {
        self.kept > retention.messages || self.bytes > retention.bytes
    }
}

impl MailTables {
    /// Deletes some of what is not kept. Returns whether there may be more.
    pub(crate) fn prune(
        &mut self,
        connection: &Connection,
        retention: Retention,
        now: WallTime,
    ) -> Result<bool> {
        let age = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
        let cutoff = millis(now).saturating_sub(age);
        let more_mail = self.prune_mail(connection, &retention, cutoff)?;
        let more_letters = self.prune_letters(connection, &retention, cutoff)?;
        self.finish(connection)?;
        Ok(more_mail || more_letters)
    }

    fn prune_mail(
        &mut self,
        connection: &Connection,
        retention: &Retention,
        cutoff: i64,
    ) -> Result<bool> {
        let seen = self.totals(connection)?.seen;
        let read = read_by_all(connection)?.unwrap_or(seen).cast_signed();
        let (seen, all) = (seen.cast_signed(), i64::MAX);
        // What nobody was handed is last; of strangers' there is no more than their part.
        let order = [
            Pruned::Old,
            Pruned::StrangersPart,
            Pruned::Oldest(read),
            Pruned::Strangers(seen),
            Pruned::Oldest(seen),
            Pruned::Strangers(all),
            Pruned::Oldest(all),
        ];
        let mut left = STEP_MAIL;
        for which in order {
            left -= self.prune_some(connection, (retention, cutoff), which, left)?;
            if left <= 0 {
                return Ok(true);
            }
        }
        let totals = self.totals(connection)?;
        let end = totals.mail.last.saturating_sub(REMEMBERED).cast_signed();
        let gone = connection.prepare_cached(FORGET)?.execute(params![end, STEP_MAIL])?;
        Ok(gone as i64 == STEP_MAIL)
    }

    /// Lets go at most so much of some mail. Returns how many messages that were.
    fn prune_some(
        &mut self,
        connection: &Connection,
        (retention, cutoff): (&Retention, i64),
        which: Pruned,
        most: i64,
    ) -> Result<i64> {
        let totals = self.totals(connection)?;
        let goes = |mail: &Tally, strangers: &Tally, row: &Row| match which {
            Pruned::Old => row.time < cutoff,
            Pruned::StrangersPart => strangers.exceeds(&retention.of_strangers()),
            Pruned::Strangers(_) | Pruned::Oldest(_) => mail.exceeds(retention),
        };
        if !matches!(which, Pruned::Old)
            && !totals.mail.exceeds(retention)
            && !totals.strangers.exceeds(&retention.of_strangers())
        {
            return Ok(0);
        }
        let floor = totals.floor.cast_signed();
        let rows = match which {
            Pruned::StrangersPart => oldest(connection, OLDEST_OF_STRANGERS, &[&i64::MAX, &most])?,
            Pruned::Strangers(through) => {
                oldest(connection, OLDEST_OF_STRANGERS, &[&through, &most])?
            }
            Pruned::Oldest(through) => oldest(connection, OLDEST, &[&floor, &through, &most])?,
            Pruned::Old => oldest(connection, OLDEST, &[&floor, &i64::MAX, &most])?,
        };
        let (mut pruned, mut unsearched) = (0, Vec::new());
        for row in rows {
            if !goes(&totals.mail, &totals.strangers, &row) {
                break;
            }
            connection
                .prepare_cached("UPDATE mail SET payload = NULL WHERE number = ?1")?
                .execute([row.number])?;
            totals.mail.remove(row.bytes);
            if row.stranger {
                totals.strangers.remove(row.bytes);
            }
            if row.number.cast_unsigned() <= totals.mail.indexed {
                unsearched.push(text_row(row.number, 0));
            }
            pruned += 1;
        }
        if pruned > 0 {
            let first: Option<i64> = connection
                .prepare_cached(FIRST_KEPT)?
                .query_row([floor], |row| row.get(0))
                .optional()?;
            totals.floor = first.map_or(totals.mail.last, |first| first.cast_unsigned() - 1);
            self.changed = true;
            forget_texts(connection, &unsearched)?;
        }
        Ok(pruned)
    }

    fn prune_letters(
        &mut self,
        connection: &Connection,
        retention: &Retention,
        cutoff: i64,
    ) -> Result<bool> {
        let tally = &mut self.totals(connection)?.letters;
        let (mut pruned, mut unsearched) = (0, Vec::new());
        for row in oldest(connection, OLDEST_LETTERS, &[&STEP_MAIL])? {
            if !tally.exceeds(retention) && row.time >= cutoff {
                break;
            }
            connection
                .prepare_cached("DELETE FROM letter WHERE number = ?1")?
                .execute([row.number])?;
            if row.number.cast_unsigned() <= tally.indexed {
                unsearched.push(text_row(row.number, 1));
            }
            tally.remove(row.bytes);
            pruned += 1;
        }
        self.changed |= pruned > 0;
        forget_texts(connection, &unsearched)?;
        Ok(pruned == STEP_MAIL)
    }
}

/// Up to which number every consumer has acknowledged all mail; `None` without any.
fn read_by_all(connection: &Connection) -> Result<Option<u64>> {
    let mut statement = connection.prepare_cached("SELECT record FROM consumer LIMIT ?1")?;
    let records = statement.query_map([MAX_CONSUMERS], |row| {
        Ok(row.get_ref(0)?.as_blob().map(Bytes::copy_from_slice).unwrap_or_default())
    })?;
    Ok(Consumer::acked_by_all(records.collect::<Result<Vec<Bytes>>>()?))
}

fn oldest(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| {
        let (number, time, bytes) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let stranger = row.get::<_, i64>(3)? & STRANGER != 0;
        Ok(Row { number, time, bytes, stranger })
    })?;
    rows.collect()
}

fn forget_texts(connection: &Connection, rows: &[i64]) -> Result<()> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'mail_text'";
    if rows.is_empty() || connection.query_row(exists, [], |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    let mut forget = connection.prepare_cached("DELETE FROM mail_text WHERE rowid = ?1")?;
    rows.iter().try_for_each(|row| forget.execute([row]).map(drop))
}
