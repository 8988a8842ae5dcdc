//! Reading mail back. Rows are bounded and their seals checked before anything is made of them.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params, types::ValueRef};
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::{
    DirectMessage, MAX_PAYLOAD, MessageId, Unread,
    mail::{
        HistoryEntry, HistoryList, HistoryPage, HistoryPlace, HistoryQuery, Letter, LetterState,
        PendingLetter, StoredMail,
    },
};

use crate::{
    config::{MAX_CONSUMERS, MAX_UNREAD},
    mail::{READ_NOTE, STRANGER, Totals, WANTS_READ, key, letter_seal, mail_seal},
    metrics::StoreMetrics,
};

pub(crate) const MAIL: &str =
    "number, id, sender, recipient, machine, time, reply_to, flags, seal, payload";
pub(crate) const LETTER: &str =
    "number, id, sender, recipient, posted, expires, state, changed, reply_to,
    flags, seal, payload";
/// Most rows that a search looks at beyond what it returns.
const MAX_SEARCHED: usize = 10_000;
/// Bytes of messages, and of letters, that one answer about the past holds; or one of them, if it is larger.
const MAX_HISTORY_BYTES: usize = 8 * 1024 * 1024;

/// What a service that starts needs.
pub(crate) fn load(connection: &Connection) -> Result<StoredMail> {
    let totals = Totals::read(connection)?;
    let mut stored = StoredMail::new();
    (stored.last, stored.floor, stored.seen) = (totals.mail.last, totals.floor, totals.seen);
    let mut statement = connection.prepare(
        "SELECT number, sender, machine, length(payload) FROM mail
         WHERE number > ?1 AND payload IS NOT NULL ORDER BY number LIMIT ?2",
    )?;
    let mut rows = statement.query(params![totals.seen.cast_signed(), MAX_UNREAD])?;
    while let Some(row) = rows.next()? {
        if let (Some(from), Some(machine)) = (id(row, 1)?, id(row, 2)?) {
            let (from, machine) = (AgentId::new(from), MachineId::new(machine));
            let (number, bytes) = (unsigned(row, 0)?, unsigned(row, 3)?);
            stored.unread.push(Unread { number, from, machine, bytes });
        }
    }
    let mut statement = connection.prepare(
        "SELECT number, id, recipient, length(payload), expires FROM letter
         WHERE state < 2 ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (Some(message), Some(to)) = (id(row, 1)?, id(row, 2)?) else { continue };
        stored.pending.push(PendingLetter {
            number: unsigned(row, 0)?,
            id: message,
            to: AgentId::new(to),
            bytes: unsigned(row, 3)?,
            expires_at: WallTime::from_millis(unsigned(row, 4)?),
        });
    }
    let mut statement =
        connection.prepare("SELECT name, record FROM consumer ORDER BY name LIMIT ?1")?;
    let mut rows = statement.query([MAX_CONSUMERS])?;
    while let Some(row) = rows.next()? {
        if let (ValueRef::Text(name), ValueRef::Blob(record)) = (row.get_ref(0)?, row.get_ref(1)?)
            && let Ok(name) = std::str::from_utf8(name)
        {
            stored.consumers.push((name.to_owned(), Bytes::copy_from_slice(record)));
        }
    }
    Ok(stored)
}

/// Mail above a number, up to a count and payload bytes.
pub(crate) fn mail(
    connection: &Connection,
    (after, limit, bytes): (u64, usize, u64),
    metrics: &StoreMetrics,
) -> Result<Vec<DirectMessage>> {
    let sql = format!(
        "SELECT {MAIL} FROM mail WHERE number > ?1 AND payload IS NOT NULL ORDER BY number LIMIT ?2"
    );
    let mut statement = connection.prepare(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after.cast_signed(), limit])?;
    let (mut found, mut held) = (Vec::new(), 0);
    while held < bytes
        && let Some(row) = rows.next()?
    {
        match message(row)? {
            Some(message) => {
                held += message.payload.len() as u64;
                found.push(message);
            }
            None => metrics.rows_damaged.inc(),
        }
    }
    Ok(found)
}

/// Mail with these numbers.
pub(crate) fn mail_by_number(
    connection: &Connection,
    numbers: &[u64],
    metrics: &StoreMetrics,
) -> Result<Vec<DirectMessage>> {
    let sql = format!("SELECT {MAIL} FROM mail WHERE number = ?1 AND payload IS NOT NULL");
    let mut statement = connection.prepare(&sql)?;
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut rows = statement.query([number.cast_signed()])?;
        let Some(row) = rows.next()? else { continue };
        match message(row)? {
            Some(message) => found.push(message),
            None => metrics.rows_damaged.inc(),
        }
    }
    Ok(found)
}

/// Letters with these numbers.
pub(crate) fn letters(
    connection: &Connection,
    numbers: &[u64],
    metrics: &StoreMetrics,
) -> Result<Vec<Letter>> {
    let mut statement =
        connection.prepare(&format!("SELECT {LETTER} FROM letter WHERE number = ?1"))?;
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut rows = statement.query([number.cast_signed()])?;
        let Some(row) = rows.next()? else { continue };
        match letter_of(row)? {
            Some(letter) => found.push(letter),
            None => metrics.rows_damaged.inc(),
        }
    }
    Ok(found)
}

/// The letter with an id.
pub(crate) fn letter(connection: &Connection, id: &MessageId) -> Result<Option<Letter>> {
    let sql = format!("SELECT {LETTER} FROM letter WHERE key = ?1 AND id = ?2");
    let found = connection.query_row(&sql, params![key(&[], id), id], letter_of);
    Ok(found.optional()?.flatten())
}

/// What matches a query, the newest first.
pub(crate) fn history(connection: &Connection, query: &HistoryQuery) -> Result<HistoryPage> {
    let place = query.from.unwrap_or(HistoryPlace::START);
    let mail = list(connection, query, &RECEIVED, place.mail)?;
    let letters = list(connection, query, &SENT, place.letter)?;
    Ok(HistoryPage::merge(mail, letters, place, query.limit))
}

/// One of the two lists of a history.
struct Table {
    name: &'static str,
    columns: &'static str,
    time: &'static str,
    /// What of it is no message.
    others: i64,
    /// The remainder of its rows in the index of texts.
    texts: i64,
    read: fn(&Row<'_>) -> Result<Option<HistoryEntry>>,
}

const RECEIVED: Table = Table {
    name: "mail",
    columns: MAIL,
    time: "time",
    others: 0,
    texts: 0,
    read: |row| Ok(message(row)?.map(HistoryEntry::Received)),
};
const SENT: Table = Table {
    name: "letter",
    columns: LETTER,
    time: "posted",
    others: READ_NOTE,
    texts: 1,
    read: |row| Ok(letter_of(row)?.map(HistoryEntry::Sent)),
};

/// What of one list matches a query, from a number down.
fn list(
    connection: &Connection,
    query: &HistoryQuery,
    table: &Table,
    from: u64,
) -> Result<HistoryList> {
    let Table { name, columns, time, others, texts, read } = table;
    let words = (!query.words.is_empty()).then(|| match_words(&query.words));
    let matching = match &words {
        Some(_) => format!(
            "number IN (SELECT rowid / 2 FROM mail_text
             WHERE mail_text MATCH ?2 AND rowid % 2 = {texts})"
        ),
        None => "?2 IS NULL".to_owned(),
    };
    let sql = format!(
        "SELECT {columns} FROM {name} WHERE payload IS NOT NULL AND {time} < ?1 AND {matching}
         AND (?3 IS NULL OR sender = ?3 OR recipient = ?3) AND flags & {others} = 0
         AND number < ?4 ORDER BY number DESC LIMIT ?5"
    );
    let before = query.before.and_then(|time| i64::try_from(time.as_millis()).ok());
    let agent = query.agent.map(|agent| agent.as_bytes().to_vec());
    let most = query.limit.min(MAX_SEARCHED);
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(&sql)?;
    let before = before.unwrap_or(i64::MAX);
    let mut rows = statement.query(params![before, words, agent, from.cast_signed(), limit])?;
    let mut list = HistoryList { entries: Vec::new(), left_at: None };
    let (mut bytes, mut looked_at) = (0, 0);
    while let Some(row) = rows.next()? {
        let number = unsigned(row, 0)?;
        looked_at += 1;
        if let Some(entry) = read(row)? {
            bytes += entry.payload().len();
            if bytes > MAX_HISTORY_BYTES && bytes > entry.payload().len() {
                list.left_at = Some(number + 1);
                break;
            }
            list.entries.push(entry);
        }
        if looked_at == most {
            list.left_at = Some(number);
        }
    }
    Ok(list)
}

/// A full-text query of which every word is a literal string: quoted, with its quotes doubled.
fn match_words(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A message, unless its row is damaged.
fn message(row: &Row<'_>) -> Result<Option<DirectMessage>> {
    let (Some(message), Some(from), Some(to), Some(machine), Some(reply_to), Some(payload)) =
        (id(row, 1)?, id(row, 2)?, id(row, 3)?, id(row, 4)?, reply(row, 6)?, payload(row, 9)?)
    else {
        return Ok(None);
    };
    let flags = unsigned(row, 7)?.cast_signed();
    let message = DirectMessage {
        id: message,
        from: AgentId::new(from),
        to: AgentId::new(to),
        machine: MachineId::new(machine),
        payload,
        received_at: WallTime::from_millis(unsigned(row, 5)?),
        number: unsigned(row, 0)?,
        reply_to,
        wants_read: flags & WANTS_READ != 0,
        from_stranger: flags & STRANGER != 0,
    };
    let sealed = unsigned(row, 8)?.cast_signed() == mail_seal(&message);
    Ok(sealed.then_some(message))
}

/// Whether a row, with the key behind its other columns, is that of a message, or of one whose payload is
/// pruned.
pub(crate) fn is_mail(row: &Row<'_>) -> Result<bool> {
    if row.get_ref(9)? != ValueRef::Null {
        return Ok(message(row)?.is_some());
    }
    let (Some(message), Some(machine)) = (id(row, 1)?, id::<32>(row, 4)?) else { return Ok(false) };
    Ok(unsigned(row, 10)?.cast_signed() == key(&machine, &message))
}

/// Whether a row is that of a letter.
pub(crate) fn is_letter(row: &Row<'_>) -> Result<bool> {
    Ok(letter_of(row)?.is_some())
}

/// A letter, unless its row is damaged.
fn letter_of(row: &Row<'_>) -> Result<Option<Letter>> {
    let (Some(message), Some(from), Some(to), Some(reply_to), Some(payload)) =
        (id(row, 1)?, id(row, 2)?, id(row, 3)?, reply(row, 8)?, payload(row, 11)?)
    else {
        return Ok(None);
    };
    let state = u8::try_from(unsigned(row, 6)?).ok().and_then(LetterState::from_number);
    let Some(state) = state else { return Ok(None) };
    let flags = unsigned(row, 9)?.cast_signed();
    let letter = Letter {
        number: unsigned(row, 0)?,
        id: message,
        from: AgentId::new(from),
        to: AgentId::new(to),
        payload,
        reply_to,
        wants_read: flags & WANTS_READ != 0,
        is_read_note: flags & READ_NOTE != 0,
        posted_at: WallTime::from_millis(unsigned(row, 4)?),
        expires_at: WallTime::from_millis(unsigned(row, 5)?),
        state,
        changed_at: WallTime::from_millis(unsigned(row, 7)?),
    };
    let sealed = unsigned(row, 10)?.cast_signed() == letter_seal(&letter);
    Ok(sealed.then_some(letter))
}

/// A number; a damaged one is 0, which no seal allows.
fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(value) => value.cast_unsigned(),
        _ => 0,
    })
}

/// Bytes of a fixed length, unless they are damaged.
fn id<const N: usize>(row: &Row<'_>, column: usize) -> Result<Option<[u8; N]>> {
    Ok(row.get_ref(column)?.as_blob().ok().and_then(|bytes| bytes.try_into().ok()))
}

/// The id of the message that was answered, if any, unless it is damaged.
#[expect(clippy::option_option, reason = "the outer layer is damage, the inner absence")]
fn reply(row: &Row<'_>, column: usize) -> Result<Option<Option<MessageId>>> {
    if row.get_ref(column)? == ValueRef::Null {
        return Ok(Some(None));
    }
    Ok(id(row, column)?.map(Some))
}

fn payload(row: &Row<'_>, column: usize) -> Result<Option<Bytes>> {
    let bytes = row.get_ref(column)?.as_blob().ok().filter(|bytes| bytes.len() <= MAX_PAYLOAD);
    Ok(bytes.map(Bytes::copy_from_slice))
}
