//! Letters in the tables: those kept for others, the mailboxes of others, and where copies of the own
//! ones are.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_direct::{
    MessageId,
    letters::{
        Deposit, Digest, Grant, Held, LetterChange, LetterStore, MAX_CORRESPONDENTS, MAX_GRANTS,
        MAX_SEALED, Met, StoredLetters,
    },
    mail::MailError,
};
use x0x_identity::{Pickup, Tag};
use x0x_transport::BoxFuture;

use crate::{
    handle::{SqliteStore, mail_error},
    mail::key,
    metrics::StoreMetrics,
    writer::{Command, LettersCommit},
};

/// Letters of others that are told to a service that starts: more than fit in what it may keep.
const MAX_HELD: i64 = 256 * 1024;
/// Copies of own letters that are told to it.
const MAX_COPIES: i64 = 128 * 1024;

const HOLD: &str = "INSERT OR IGNORE INTO held (tag, digest, bytes, expires, stranger, sealed)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const GRANT: &str = "INSERT INTO mailbox (agent, record) VALUES (?1, ?2)
    ON CONFLICT DO UPDATE SET record = excluded.record";
const MET: &str = "INSERT INTO correspondent (agent, machine, met) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET met = excluded.met";
const COPY: &str = "INSERT OR REPLACE INTO letter_copy
    (id, holder, recipient, digest, pickup, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Applies changes, within a transaction.
pub(crate) fn apply(connection: &Connection, changes: &[LetterChange]) -> Result<()> {
    for change in changes {
        match change {
            LetterChange::Hold { held, sealed } => {
                connection.prepare_cached(HOLD)?.execute(params![
                    held.tag.as_bytes(),
                    held.digest.as_bytes(),
                    held.bytes,
                    held.expires_at.as_millis().cast_signed(),
                    held.stranger,
                    &sealed[..],
                ])?
            }
            LetterChange::Remove { tag, digest } => connection
                .prepare_cached("DELETE FROM held WHERE tag = ?1 AND digest = ?2")?
                .execute(params![tag.as_bytes(), digest.as_bytes()])?,
            LetterChange::Grant(grant) => connection
                .prepare_cached(GRANT)?
                .execute(params![grant.owner.as_bytes(), &grant.encode()[..]])?,
            LetterChange::DropGrant(agent) => connection
                .prepare_cached("DELETE FROM mailbox WHERE agent = ?1")?
                .execute([agent.as_bytes()])?,
            LetterChange::Met(Met { agent, machine, at }) => {
                let at = at.as_millis().cast_signed();
                let values = params![agent.as_bytes(), machine.as_bytes(), at];
                connection.prepare_cached(MET)?.execute(values)?
            }
            LetterChange::DropMet { agent, machine } => connection
                .prepare_cached("DELETE FROM correspondent WHERE agent = ?1 AND machine = ?2")?
                .execute([agent.as_bytes(), machine.as_bytes()])?,
            LetterChange::Deposited(Deposit { id, to, holder, digest, pickup, until }) => {
                connection.prepare_cached(COPY)?.execute(params![
                    id,
                    holder.as_bytes(),
                    to.as_bytes(),
                    digest.as_bytes(),
                    pickup.as_bytes(),
                    until.as_millis().cast_signed(),
                ])?
            }
            LetterChange::Lapsed { id, holder } => connection
                .prepare_cached("DELETE FROM letter_copy WHERE id = ?1 AND holder = ?2")?
                .execute(params![id, holder.as_bytes()])?,
            LetterChange::Settled(id) => {
                connection.prepare_cached("DELETE FROM letter_copy WHERE id = ?1")?.execute([id])?
            }
            // A change that this version does not know changes nothing.
            _ => 0,
        };
    }
    Ok(())
}

/// Bytes that changes add to the file, nearly.
pub(crate) fn bytes(changes: &[LetterChange]) -> u64 {
    let of = |change: &LetterChange| match change {
        LetterChange::Hold { sealed, .. } => sealed.len() as u64 + 256,
        LetterChange::Grant(_) => 2048,
        _ => 256,
    };
    changes.iter().map(of).sum()
}

fn load(connection: &Connection, metrics: &StoreMetrics) -> Result<StoredLetters> {
    let mut stored = StoredLetters::new();
    let held = "SELECT tag, digest, bytes, expires, stranger FROM held ORDER BY rowid LIMIT ?1";
    stored.held = rows(connection, held, MAX_HELD, metrics, held_row)?;
    let most = i64::try_from(MAX_GRANTS).unwrap_or(i64::MAX);
    let grants = "SELECT record FROM mailbox LIMIT ?1";
    stored.grants = rows(connection, grants, most, metrics, |row| {
        Ok(row.get_ref(0)?.as_blob().ok().and_then(|record| Grant::decode(record).ok()))
    })?;
    let most = i64::try_from(MAX_CORRESPONDENTS).unwrap_or(i64::MAX);
    let met = "SELECT agent, machine, met FROM correspondent ORDER BY met DESC LIMIT ?1";
    stored.met = rows(connection, met, most, metrics, met_row)?;
    let copies = "SELECT id, holder, recipient, digest, pickup, until FROM letter_copy LIMIT ?1";
    stored.deposits = rows(connection, copies, MAX_COPIES, metrics, copy_row)?;
    Ok(stored)
}

/// What can be read of some rows; the rest is counted as damaged.
fn rows<T>(
    connection: &Connection,
    sql: &str,
    most: i64,
    metrics: &StoreMetrics,
    read: impl Fn(&Row<'_>) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([most])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row)? {
            Some(value) => found.push(value),
            None => metrics.rows_damaged.inc(),
        }
    }
    Ok(found)
}

fn array<const N: usize>(row: &Row<'_>, column: usize) -> Result<Option<[u8; N]>> {
    Ok(row.get_ref(column)?.as_blob().ok().and_then(|bytes| bytes.try_into().ok()))
}

fn number(row: &Row<'_>, column: usize) -> Result<Option<i64>> {
    Ok(row.get_ref(column)?.as_i64().ok())
}

fn time(row: &Row<'_>, column: usize) -> Result<Option<WallTime>> {
    Ok(number(row, column)?.map(|millis| WallTime::from_millis(millis.cast_unsigned())))
}

fn held_row(row: &Row<'_>) -> Result<Option<Held>> {
    let (tag, digest) = (array(row, 0)?.map(Tag::new), array(row, 1)?.map(Digest::new));
    let bytes = number(row, 2)?.and_then(|bytes| u32::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| *bytes as usize <= MAX_SEALED);
    let (expires_at, stranger) = (time(row, 3)?, number(row, 4)?);
    let (Some(tag), Some(digest), Some(bytes)) = (tag, digest, bytes) else { return Ok(None) };
    let (Some(expires_at), Some(stranger)) = (expires_at, stranger) else { return Ok(None) };
    Ok(Some(Held { tag, digest, bytes, expires_at, stranger: stranger != 0 }))
}

fn met_row(row: &Row<'_>) -> Result<Option<Met>> {
    let (agent, machine) = (array(row, 0)?.map(AgentId::new), array(row, 1)?.map(MachineId::new));
    let (Some(agent), Some(machine), Some(at)) = (agent, machine, time(row, 2)?) else {
        return Ok(None);
    };
    Ok(Some(Met { agent, machine, at }))
}

fn copy_row(row: &Row<'_>) -> Result<Option<Deposit>> {
    let id: Option<MessageId> = array(row, 0)?;
    let (holder, to) = (array(row, 1)?.map(MachineId::new), array(row, 2)?.map(AgentId::new));
    let (digest, pickup) = (array(row, 3)?.map(Digest::new), array(row, 4)?.map(Pickup::new));
    let (Some(id), Some(holder), Some(to)) = (id, holder, to) else { return Ok(None) };
    let (Some(digest), Some(pickup), Some(until)) = (digest, pickup, time(row, 5)?) else {
        return Ok(None);
    };
    Ok(Some(Deposit { id, to, holder, digest, pickup, until }))
}

/// The content of a letter, unless it is damaged: its name is its hash.
fn sealed(
    connection: &Connection,
    tag: Tag,
    digest: Digest,
    metrics: &StoreMetrics,
) -> Result<Option<Bytes>> {
    let sql = "SELECT sealed FROM held WHERE tag = ?1 AND digest = ?2 AND length(sealed) <= ?3";
    let found = connection
        .prepare(sql)?
        .query_row(params![tag.as_bytes(), digest.as_bytes(), MAX_SEALED], |row| {
            Ok(row.get_ref(0)?.as_blob().ok().map(Bytes::copy_from_slice))
        })
        .optional()?;
    let whole = found.flatten().filter(|sealed| Digest::of(sealed) == digest);
    if whole.is_none() {
        metrics.rows_damaged.inc();
    }
    Ok(whole)
}

fn has_mail(connection: &Connection, machine: &MachineId, id: &MessageId) -> Result<bool> {
    let sql = "SELECT 1 FROM mail WHERE key = ?1 AND id = ?2";
    let key = key(machine.as_bytes(), id);
    let found = connection.prepare(sql)?.query_row(params![key, id], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

impl LetterStore for SqliteStore {
    fn load(&self) -> BoxFuture<'_, std::result::Result<StoredLetters, MailError>> {
        Box::pin(self.read_mail(load))
    }

    fn commit(
        &self,
        changes: Vec<LetterChange>,
    ) -> BoxFuture<'_, std::result::Result<(), MailError>> {
        Box::pin(async move {
            let commit = self.ask(|reply| Command::Letters(LettersCommit { changes, reply }));
            commit.await.map_err(mail_error)
        })
    }

    fn sealed(
        &self,
        tag: Tag,
        digest: Digest,
    ) -> BoxFuture<'_, std::result::Result<Option<Bytes>, MailError>> {
        Box::pin(
            self.read_mail(move |connection, metrics| sealed(connection, tag, digest, metrics)),
        )
    }

    fn has_mail(
        &self,
        machine: MachineId,
        id: MessageId,
    ) -> BoxFuture<'_, std::result::Result<bool, MailError>> {
        Box::pin(self.read_mail(move |connection, _| has_mail(connection, &machine, &id)))
    }
}
