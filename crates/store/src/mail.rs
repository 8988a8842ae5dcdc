//! Mail and letters in the tables: what a change does to them.

use rusqlite::{Connection, OptionalExtension as _, Result, params};
use x0x_core::WallTime;
use x0x_direct::{
    DirectMessage, MessageId,
    mail::{Letter, LetterState, MailChange, MailOutcome},
};

use crate::{config::STEP_MAIL, seal::seal};

mod prune;

/// Words of at most so many bytes of a text can be searched for.
const MAX_INDEXED_BYTES: usize = 16 * 1024;

const STATE: &str = "SELECT last, floor, seen, messages, bytes, last_letter, letters,
    letter_bytes, indexed, letters_indexed, stranger_messages, stranger_bytes
    FROM mail_state WHERE id = 1";
const SET_STATE: &str = "UPDATE mail_state SET last = ?1, floor = ?2, seen = ?3, messages = ?4,
    bytes = ?5, last_letter = ?6, letters = ?7, letter_bytes = ?8, indexed = ?9,
    letters_indexed = ?10, stranger_messages = ?11, stranger_bytes = ?12 WHERE id = 1";
const ADD_MAIL: &str = "INSERT OR IGNORE INTO mail
    (number, key, id, sender, recipient, machine, time, reply_to, flags, seal, payload)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const ADD_LETTER: &str = "INSERT OR IGNORE INTO letter (number, key, id, sender, recipient, posted,
    expires, state, changed, reply_to, flags, seal, payload)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
const FIND_LETTER: &str = "SELECT number, state, recipient FROM letter WHERE key = ?1 AND id = ?2";
const SET_LETTER: &str = "UPDATE letter SET state = ?2, changed = ?3 WHERE number = ?1";
const SET_CONSUMER: &str = "INSERT INTO consumer (name, record) VALUES (?1, ?2)
    ON CONFLICT DO UPDATE SET record = excluded.record";

/// The flag of a message whose sender wants to know when it is read.
pub(crate) const WANTS_READ: i64 = 1;
/// The flag of a letter that is a note of what was read.
pub(crate) const READ_NOTE: i64 = 2;
/// The flag of a message whose sender was nobody that is known; the schema has an index on it.
pub(crate) const STRANGER: i64 = 4;

/// The texts that can be searched; made when somebody first searches.
const TEXTS: &str = "CREATE VIRTUAL TABLE IF NOT EXISTS mail_text
    USING fts5(body, content='', contentless_delete=1)";

/// What is counted in the tables, so that nobody has to count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) mail: Tally,
    pub(crate) floor: u64,
    pub(crate) seen: u64,
    letters: Tally,
    /// Of the mail, what strangers left.
    strangers: Tally,
}

/// What is counted of one list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// The number that was given last.
    pub(crate) last: u64,
    /// Rows that are kept, and their payload bytes.
    kept: u64,
    bytes: u64,
    /// Up to this number they can be searched.
    indexed: u64,
}

impl Tally {
    /// What an attempt to add the next row came to.
    const fn add(&mut self, rows: usize, payload: usize) -> MailOutcome {
        if rows == 0 {
            return MailOutcome::Duplicate;
        }
        self.last += 1;
        self.kept += 1;
        self.bytes += payload as u64;
        MailOutcome::Stored(self.last)
    }

    /// A row is not kept any more.
    const fn remove(&mut self, payload: i64) {
        self.kept = self.kept.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(payload.cast_unsigned());
    }
}

impl Totals {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        connection.prepare_cached(STATE)?.query_row([], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let tally = |last, kept, bytes, indexed| -> Result<Tally> {
                let (last, kept) = (number(last)?, number(kept)?);
                Ok(Tally { last, kept, bytes: number(bytes)?, indexed: number(indexed)? })
            };
            let (mail, letters) = (tally(0, 3, 4, 8)?, tally(5, 6, 7, 9)?);
            let strangers = Tally { kept: number(10)?, bytes: number(11)?, ..Tally::default() };
            Ok(Self { mail, floor: number(1)?, seen: number(2)?, letters, strangers })
        })
    }

    /// The numbers that were given last, to mail and to letters.
    pub(crate) const fn ends(&self) -> [u64; 2] {
        [self.mail.last, self.letters.last]
    }

    fn write(&self, connection: &Connection) -> Result<()> {
        connection.prepare_cached(SET_STATE)?.execute(params![
            self.mail.last.cast_signed(),
            self.floor.cast_signed(),
            self.seen.cast_signed(),
            self.mail.kept.cast_signed(),
            self.mail.bytes.cast_signed(),
            self.letters.last.cast_signed(),
            self.letters.kept.cast_signed(),
            self.letters.bytes.cast_signed(),
            self.mail.indexed.cast_signed(),
            self.letters.indexed.cast_signed(),
            self.strangers.kept.cast_signed(),
            self.strangers.bytes.cast_signed(),
        ])?;
        Ok(())
    }
}

/// What the writer knows of the mail tables.
#[derive(Debug, Default)]
pub(crate) struct MailTables {
    totals: Option<Totals>,
    changed: bool,
}

/// A number that a message's id is found by: rows with the same one are told apart by the id.
pub(crate) fn key(owner: &[u8], id: &MessageId) -> i64 {
    seal(b'k', &[], &[owner, id])
}

/// The seal of a mail's row; `None` for its payload once that is pruned.
pub(crate) fn mail_seal(message: &DirectMessage) -> i64 {
    let numbers = [
        message.number.cast_signed(),
        message.received_at.as_millis().cast_signed(),
        mail_flags(message),
        i64::from(message.reply_to.is_some()),
    ];
    let reply_to = message.reply_to.unwrap_or_default();
    let (from, to) = (message.from.as_bytes(), message.to.as_bytes());
    let parts: [&[u8]; 6] =
        [&message.id, from, to, message.machine.as_bytes(), &reply_to, &message.payload];
    seal(b'm', &numbers, &parts)
}

/// The seal of a letter's row, but for how far it came.
pub(crate) fn letter_seal(letter: &Letter) -> i64 {
    let numbers = [
        letter.number.cast_signed(),
        letter.posted_at.as_millis().cast_signed(),
        letter.expires_at.as_millis().cast_signed(),
        letter_flags(letter),
        i64::from(letter.reply_to.is_some()),
    ];
    let reply_to = letter.reply_to.unwrap_or_default();
    let (from, to) = (letter.from.as_bytes(), letter.to.as_bytes());
    seal(b'l', &numbers, &[&letter.id, from, to, &reply_to, &letter.payload])
}

fn mail_flags(message: &DirectMessage) -> i64 {
    i64::from(message.wants_read) * WANTS_READ + i64::from(message.from_stranger) * STRANGER
}

fn letter_flags(letter: &Letter) -> i64 {
    let note = if letter.is_read_note { READ_NOTE } else { 0 };
    i64::from(letter.wants_read) * WANTS_READ + note
}

/// Time in milliseconds.
fn millis(time: WallTime) -> i64 {
    time.as_millis().cast_signed()
}

impl MailTables {
    /// What a transaction did that was rolled back is not known any more.
    pub(crate) const fn forget(&mut self) {
        self.totals = None;
        self.changed = false;
    }

    fn totals(&mut self, connection: &Connection) -> Result<&mut Totals> {
        let totals = match self.totals {
            Some(totals) => totals,
            None => Totals::read(connection)?,
        };
        Ok(self.totals.insert(totals))
    }

    /// The same, to be changed and written by [`finish`](Self::finish).
    fn change(&mut self, connection: &Connection) -> Result<&mut Totals> {
        self.changed = true;
        self.totals(connection)
    }

    pub(crate) fn apply(
        &mut self,
        connection: &Connection,
        change: &MailChange,
    ) -> Result<MailOutcome> {
        match change {
            MailChange::Receive(message) => self.receive(connection, message),
            MailChange::Seen(number) => {
                let totals = self.change(connection)?;
                totals.seen = totals.seen.max((*number).min(totals.mail.last));
                Ok(MailOutcome::Done)
            }
            MailChange::Post(letter) => self.post(connection, letter),
            MailChange::Advance { id, by, state, at } => {
                let by = by.as_ref().map(|by| &by.as_bytes()[..]);
                advance(connection, id, by, *state, *at)
            }
            MailChange::Consumer { name, record } => {
                connection.prepare_cached(SET_CONSUMER)?.execute(params![name, &record[..]])?;
                Ok(MailOutcome::Done)
            }
            MailChange::DropConsumer(name) => {
                let gone = connection.execute("DELETE FROM consumer WHERE name = ?1", [name])?;
                Ok(if gone > 0 { MailOutcome::Done } else { MailOutcome::Missing })
            }
            // A change that this version does not know changes nothing; pruning is done in steps.
            _ => Ok(MailOutcome::Done),
        }
    }

    /// Writes what was put off to the end of the transaction.
    pub(crate) fn finish(&mut self, connection: &Connection) -> Result<()> {
        if std::mem::take(&mut self.changed)
            && let Some(totals) = &self.totals
        {
            totals.write(connection)?;
        }
        Ok(())
    }

    fn receive(&mut self, connection: &Connection, message: &DirectMessage) -> Result<MailOutcome> {
        let totals = self.change(connection)?;
        let number = totals.mail.last + 1;
        let message = DirectMessage { number, ..message.clone() };
        let added = connection.prepare_cached(ADD_MAIL)?.execute(params![
            number.cast_signed(),
            key(message.machine.as_bytes(), &message.id),
            &message.id,
            message.from.as_bytes(),
            message.to.as_bytes(),
            message.machine.as_bytes(),
            millis(message.received_at),
            message.reply_to.as_ref().map(|id| &id[..]),
            mail_flags(&message),
            mail_seal(&message),
            &message.payload[..],
        ])?;
        if message.from_stranger {
            totals.strangers.add(added, message.payload.len());
        }
        Ok(totals.mail.add(added, message.payload.len()))
    }

    fn post(&mut self, connection: &Connection, letter: &Letter) -> Result<MailOutcome> {
        let tally = &mut self.change(connection)?.letters;
        let number = tally.last + 1;
        let letter = Letter { number, ..letter.clone() };
        let added = connection.prepare_cached(ADD_LETTER)?.execute(params![
            number.cast_signed(),
            key(&[], &letter.id),
            &letter.id,
            letter.from.as_bytes(),
            letter.to.as_bytes(),
            millis(letter.posted_at),
            millis(letter.expires_at),
            letter.state as u8,
            millis(letter.changed_at),
            letter.reply_to.as_ref().map(|id| &id[..]),
            letter_flags(&letter),
            letter_seal(&letter),
            &letter.payload[..],
        ])?;
        Ok(tally.add(added, letter.payload.len()))
    }

    /// Lets some more texts be searched. Returns whether there are more.
    pub(crate) fn index(&mut self, connection: &Connection) -> Result<bool> {
        connection.execute_batch(TEXTS)?;
        let totals = self.change(connection)?;
        let Totals { mail, floor, letters, .. } = totals;
        let before = (mail.indexed, letters.indexed);
        let after = mail.indexed.max(*floor).cast_signed();
        mail.indexed = index_table(connection, "mail", after, 0)?.unwrap_or(mail.last);
        let after = letters.indexed.cast_signed();
        letters.indexed = index_table(connection, "letter", after, 1)?.unwrap_or(letters.last);
        let more = mail.indexed < mail.last || letters.indexed < letters.last;
        if before == (mail.indexed, letters.indexed) {
            self.changed = false;
        }
        self.finish(connection)?;
        Ok(more)
    }
}

fn advance(
    connection: &Connection,
    id: &MessageId,
    by: Option<&[u8]>,
    state: LetterState,
    at: WallTime,
) -> Result<MailOutcome> {
    let found: Option<(i64, u8, Vec<u8>)> = connection
        .prepare_cached(FIND_LETTER)?
        .query_row(params![key(&[], id), id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((number, before, recipient)) = found else { return Ok(MailOutcome::Missing) };
    let before = LetterState::from_number(before);
    if by.is_some_and(|by| by != recipient) || !before.is_some_and(|b| state.may_follow(b)) {
        return Ok(MailOutcome::Missing);
    }
    let row = params![number, state as u8, millis(at)];
    connection.prepare_cached(SET_LETTER)?.execute(row)?;
    Ok(MailOutcome::Stored(number.cast_unsigned()))
}

/// Row of a text: two lists of numbers share the table.
pub(crate) const fn text_row(number: i64, list: i64) -> i64 {
    number * 2 + list
}

/// Indexes some rows of a table. The number of the last one, or `None` when there is no more.
fn index_table(connection: &Connection, table: &str, after: i64, list: i64) -> Result<Option<u64>> {
    let sql =
        format!("SELECT number, payload FROM {table} WHERE number > ?1 ORDER BY number LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after, STEP_MAIL])?;
    let mut add =
        connection.prepare_cached("INSERT INTO mail_text (rowid, body) VALUES (?1, ?2)")?;
    let (mut last, mut count) = (None, 0);
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let payload = row.get_ref(1)?.as_blob().unwrap_or_default();
        if let Some(text) = text(payload) {
            add.execute(params![text_row(number, list), text])?;
        }
        last = Some(number.cast_unsigned());
        count += 1;
    }
    Ok(last.filter(|_| count == STEP_MAIL))
}

/// The beginning of a payload, if it is text.
fn text(payload: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(payload).ok()?;
    let end = (0..=MAX_INDEXED_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end?).filter(|text| !text.is_empty())
}
