//! What of a damaged file goes into the one in its place: mail, letters, consumers and what belongs to them, and
//! replicated objects, row by row as far as they can be read. Topic logs come back from neighbours; mail comes
//! back from nobody, and neither does an object that nobody else has or that others pruned.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Result, Row, params, params_from_iter, types::Value};

use crate::{
    file,
    mail::Totals,
    mail_read::{LETTER, MAIL, is_letter, is_mail},
};

/// Rows carried over in one transaction.
const CHUNK: usize = 64;
/// Damaged places that are stepped over in one table.
const MAX_DAMAGED_PLACES: usize = 4096;
/// Numbers from here on are damage.
const MAX_NUMBER: u64 = 1 << 61;

/// Tables without numbers, small ones: the columns, and by what they are ordered.
const SMALL: [(&str, &str, &str); 6] = [
    ("consumer", "name, record", "name"),
    ("mailbox", "agent, record", "agent"),
    ("correspondent", "agent, machine, met", "rowid"),
    ("letter_copy", "id, holder, recipient, digest, pickup, until", "rowid"),
    ("held", "tag, digest, bytes, expires, stranger, sealed", "rowid"),
    ("object", "id, kind, name, owner", "id"),
];
/// The replicas of objects, which are large, by their objects.
const REPLICA: &str = "SELECT digest, data FROM replica WHERE object = ?1";

/// What the counts are when the rows are there. Where the numbers stood is not always known.
const SETTLE: &str = "UPDATE mail_state SET
    last = max(?1, ifnull((SELECT max(number) FROM mail), 0)),
    floor = ifnull((SELECT min(number) - 1 FROM mail WHERE payload IS NOT NULL), ?1),
    seen = ifnull(?2, ifnull((SELECT min(number) - 1 FROM mail WHERE payload IS NOT NULL), ?1)),
    messages = (SELECT count(*) FROM mail WHERE payload IS NOT NULL),
    bytes = (SELECT ifnull(sum(length(payload)), 0) FROM mail),
    stranger_messages = (SELECT count(*) FROM mail WHERE flags & 4 AND payload IS NOT NULL),
    stranger_bytes = (SELECT ifnull(sum(length(payload)), 0) FROM mail WHERE flags & 4),
    last_letter = max(?3, ifnull((SELECT max(number) FROM letter), 0)),
    letters = (SELECT count(*) FROM letter),
    letter_bytes = (SELECT ifnull(sum(length(payload)), 0) FROM letter),
    indexed = 0, letters_indexed = 0 WHERE id = 1";
/// What the numbers go on from when nothing says where they stood, so that they rise for every reader: seconds
/// since the epoch, with room for a million messages in each.
const ANEW: &str = "SELECT unixepoch() * 1048576";

/// A table of numbered rows, each of which is checked before it is believed.
struct Numbered {
    table: &'static str,
    columns: String,
    is_whole: fn(&Row<'_>) -> Result<bool>,
}

/// Carries what can be read of the damaged file over into a new one that is empty. Returns how many rows that
/// were.
pub(crate) fn carry_over(damaged: &Path, into: &Connection) -> Result<u64> {
    let before = file::companions(damaged);
    let carried = carry_all(damaged, into);
    // A connection that only reads leaves an empty journal behind.
    for left in file::companions(damaged) {
        if !before.contains(&left) {
            let _ = std::fs::remove_file(left);
        }
    }
    carried
}

fn carry_all(damaged: &Path, into: &Connection) -> Result<u64> {
    let (mut carried, mut state) = (0, None);
    match open(damaged) {
        Ok(from) => {
            let totals = Totals::read(&from).ok();
            state = totals.filter(|totals| totals.ends().iter().all(|end| *end < MAX_NUMBER));
            let numbered = [
                Numbered { table: "mail", columns: format!("{MAIL}, key"), is_whole: is_mail },
                Numbered {
                    table: "letter",
                    columns: format!("{LETTER}, key"),
                    is_whole: is_letter,
                },
            ];
            for table in numbered {
                carried += table.carry(&from, into)?;
            }
            for small in SMALL {
                carried += carry_small(&from, into, small)?;
            }
            carried += carry_replicas(&from, into)?;
        }
        Err(error) => tracing::warn!(%error, "nothing of the damaged database can be read"),
    }
    let last = match state {
        Some(totals) => totals.ends()[0].cast_signed(),
        None => into.query_row(ANEW, [], |row| row.get(0))?,
    };
    let seen = state.map(|totals| totals.seen.cast_signed());
    let letters = state.map_or(0, |totals| totals.ends()[1].cast_signed());
    into.execute(SETTLE, params![last, seen, letters])?;
    Ok(carried)
}

/// Opens the file to be read alone; one that was cut short is read as far as it goes.
fn open(damaged: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(damaged, flags)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "writable_schema", true)?;
    Ok(connection)
}

fn insert(table: &str, columns: &str) -> String {
    let places = vec!["?"; columns.split(',').count()].join(", ");
    format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})")
}

/// The values of a row; an error where one of them cannot be read.
fn values(row: &Row<'_>) -> Result<Vec<Value>> {
    (0..row.as_ref().column_count()).map(|column| row.get(column)).collect()
}

impl Numbered {
    fn carry(&self, from: &Connection, into: &Connection) -> Result<u64> {
        let (mut after, mut carried) = (0, 0);
        for _ in 0..MAX_DAMAGED_PLACES {
            loop {
                let transaction = into.unchecked_transaction()?;
                let (rows, read, through) = self.carry_chunk(from, &transaction, after)?;
                transaction.commit()?;
                (carried, after) = (carried + rows, through);
                match read {
                    Ok(CHUNK) => {}
                    Ok(_) => return Ok(carried),
                    Err(()) => break,
                }
            }
            let Some(next) = self.beyond(from, after) else { break };
            after = next;
        }
        Ok(carried)
    }

    /// Carries over some of the rows after a number. Returns how many were whole, how many were read unless a
    /// damaged place came first, and the number of the last.
    fn carry_chunk(
        &self,
        from: &Connection,
        into: &Connection,
        mut through: i64,
    ) -> Result<(u64, std::result::Result<usize, ()>, i64)> {
        let Ok(mut statement) = from.prepare_cached(&self.select(CHUNK)) else {
            return Ok((0, Err(()), through));
        };
        let Ok(mut rows) = statement.query([through]) else { return Ok((0, Err(()), through)) };
        let mut add = into.prepare_cached(&insert(self.table, &self.columns))?;
        let (mut whole, mut read) = (0, 0);
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok((whole, Ok(read), through)),
                Err(_) => return Ok((whole, Err(()), through)),
            };
            let (Ok(number), Ok(is_whole)) = (row.get(0), (self.is_whole)(row)) else {
                return Ok((whole, Err(()), through));
            };
            (through, read) = (number, read + 1);
            if is_whole && let Ok(values) = values(row) {
                whole += add.execute(params_from_iter(values))? as u64;
            }
        }
    }

    fn select(&self, limit: usize) -> String {
        let Self { table, columns, .. } = self;
        format!("SELECT {columns} FROM {table} WHERE number > ?1 ORDER BY number LIMIT {limit}")
    }

    /// Whether the first row after a number can be read, or there is none.
    fn reads(&self, from: &Connection, after: i64) -> bool {
        let Ok(mut statement) = from.prepare_cached(&self.select(1)) else { return false };
        let Ok(mut rows) = statement.query([after]) else { return false };
        match rows.next() {
            Ok(Some(row)) => values(row).is_ok(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// The first number beyond a damaged place, about: looked for in growing steps, then between the last two.
    fn beyond(&self, from: &Connection, after: i64) -> Option<i64> {
        let (mut bad, mut step) = (after, 1_i64);
        let mut good = loop {
            let next = after.checked_add(step)?;
            if self.reads(from, next) {
                break next;
            }
            (bad, step) = (next, step.checked_mul(2)?);
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            *if self.reads(from, middle) { &mut good } else { &mut bad } = middle;
        }
        Some(good)
    }
}

/// Carries a small table over from both of its ends, each as far as the first damaged place.
fn carry_small(
    from: &Connection,
    into: &Connection,
    (table, columns, order): (&str, &str, &str),
) -> Result<u64> {
    let mut carried = 0;
    let transaction = into.unchecked_transaction()?;
    let mut add = transaction.prepare(&insert(table, columns))?;
    for direction in ["ASC", "DESC"] {
        let select = format!("SELECT {columns} FROM {table} ORDER BY {order} {direction}");
        let Ok(mut statement) = from.prepare(&select) else { continue };
        let Ok(mut rows) = statement.query([]) else { continue };
        while let Ok(Some(row)) = rows.next() {
            let Ok(values) = values(row) else { break };
            carried += add.execute(params_from_iter(values))? as u64;
        }
    }
    drop(add);
    transaction.commit()?;
    Ok(carried)
}

/// Carries over the replicas of those objects that were, each by itself: one that cannot be read costs no other.
/// The log that one had read is not there any more, so that it reads what comes back of it from the beginning.
fn carry_replicas(from: &Connection, into: &Connection) -> Result<u64> {
    let mut carried = 0;
    let mut objects = into.prepare("SELECT id FROM object")?;
    let objects: Vec<Vec<u8>> = objects.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
    for object in objects {
        let read = from.prepare_cached(REPLICA).and_then(|mut statement| {
            statement.query_row([&object], |row| Ok((row.get(0)?, row.get(1)?)))
        });
        let Ok::<(Vec<u8>, Vec<u8>), _>((digest, data)) = read else { continue };
        if blake3::hash(&data).as_bytes()[..] != digest[..] {
            continue;
        }
        let add = "INSERT OR IGNORE INTO replica (object, digest, data) VALUES (?1, ?2, ?3)";
        carried += into.execute(add, params![object, digest, data])? as u64;
    }
    Ok(carried)
}
