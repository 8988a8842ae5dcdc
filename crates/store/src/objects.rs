//! Replicated objects in the tables: which are known, and their replicas.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, params};
use x0x_core::{AgentId, TopicId};
use x0x_gossip_crdt::{BoxFuture, CrdtStore, CrdtStoreError, Descriptor, MAX_OBJECTS, Saved};
use x0x_gossip_pubsub::{Cursor, StoreError};

use crate::{
    handle::SqliteStore,
    metrics::StoreMetrics,
    writer::{Command, ObjectsCommit},
};

const REMEMBER: &str =
    "INSERT OR IGNORE INTO object (id, kind, name, owner) VALUES (?1, ?2, ?3, ?4)";
const SAVE: &str = "INSERT INTO replica (object, log, position, digest, data)
    SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM object WHERE id = ?1)
    ON CONFLICT DO UPDATE SET log = excluded.log, position = excluded.position,
    digest = excluded.digest, data = excluded.data";

/// A change of what is known.
#[derive(Debug, Clone)]
pub(crate) enum ObjectChange {
    Remember(Descriptor),
    Save(TopicId, Saved),
    Forget(TopicId),
}

/// Applies a change, within a transaction.
pub(crate) fn apply(connection: &Connection, change: &ObjectChange) -> Result<()> {
    match change {
        ObjectChange::Remember(object) => {
            let owner = object.owner.as_ref().map(AgentId::as_bytes);
            let id = object.id();
            let values = params![id.as_bytes(), object.kind, object.name, owner];
            connection.prepare_cached(REMEMBER)?.execute(values)?;
        }
        ObjectChange::Save(object, saved) => {
            let log = saved.cursor.map(|cursor| cursor.log().cast_signed());
            let position = saved.cursor.map(|cursor| cursor.position().cast_signed());
            let digest = *blake3::hash(&saved.replica).as_bytes();
            let values = params![object.as_bytes(), log, position, digest, &saved.replica[..]];
            connection.prepare_cached(SAVE)?.execute(values)?;
        }
        ObjectChange::Forget(object) => {
            for sql in ["DELETE FROM replica WHERE object = ?1", "DELETE FROM object WHERE id = ?1"]
            {
                connection.prepare_cached(sql)?.execute([object.as_bytes()])?;
            }
        }
    }
    Ok(())
}

/// Bytes that a change adds to the file, nearly.
pub(crate) fn bytes(change: &ObjectChange) -> u64 {
    match change {
        ObjectChange::Save(_, saved) => saved.replica.len() as u64 + 256,
        _ => 512,
    }
}

fn objects(connection: &Connection, metrics: &StoreMetrics) -> Result<Vec<Descriptor>> {
    let most = i64::try_from(MAX_OBJECTS).unwrap_or(i64::MAX);
    let sql = "SELECT id, kind, name, owner FROM object ORDER BY id LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([most], |row| {
        let (id, kind, name): (Vec<u8>, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let owner: Option<[u8; 32]> = row.get(3)?;
        let object = match owner {
            Some(owner) => Descriptor::owned(&kind, &name, AgentId::new(owner)),
            None => Descriptor::open(&kind, &name),
        };
        Ok((object.is_valid() && object.id().as_bytes()[..] == id[..]).then_some(object))
    })?;
    let mut found = Vec::new();
    for row in rows {
        match row? {
            Some(object) => found.push(object),
            None => metrics.rows_damaged.inc(),
        }
    }
    Ok(found)
}

fn replica(
    connection: &Connection,
    object: TopicId,
    metrics: &StoreMetrics,
) -> Result<Option<Saved>> {
    let sql = "SELECT log, position, digest, data FROM replica WHERE object = ?1";
    let row = connection.prepare(sql)?.query_row([object.as_bytes()], |row| {
        let (log, position): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
        let (digest, data): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let place = log.zip(position);
        let cursor = place.map(|(log, at)| Cursor::new(log.cast_unsigned(), at.cast_unsigned()));
        let whole = blake3::hash(&data).as_bytes()[..] == digest[..];
        Ok(whole.then(|| Saved::new(cursor, Bytes::from(data))))
    });
    let found = row.optional()?;
    if matches!(found, Some(None)) {
        metrics.rows_damaged.inc();
    }
    Ok(found.flatten())
}

fn failed(error: &StoreError) -> CrdtStoreError {
    CrdtStoreError(error.to_string().into())
}

impl SqliteStore {
    async fn change(&self, change: ObjectChange) -> std::result::Result<(), CrdtStoreError> {
        let commit = self.ask(|reply| Command::Object(ObjectsCommit { change, reply }));
        commit.await.map_err(|error| failed(&error))
    }
}

impl CrdtStore for SqliteStore {
    fn objects(&self) -> BoxFuture<'_, std::result::Result<Vec<Descriptor>, CrdtStoreError>> {
        Box::pin(async move { self.read(false, objects).await.map_err(|error| failed(&error)) })
    }

    fn remember(
        &self,
        object: Descriptor,
    ) -> BoxFuture<'_, std::result::Result<(), CrdtStoreError>> {
        Box::pin(self.change(ObjectChange::Remember(object)))
    }

    fn load(
        &self,
        object: TopicId,
    ) -> BoxFuture<'_, std::result::Result<Option<Saved>, CrdtStoreError>> {
        Box::pin(async move {
            let read =
                self.read(false, move |connection, metrics| replica(connection, object, metrics));
            read.await.map_err(|error| failed(&error))
        })
    }

    fn save(
        &self,
        object: TopicId,
        saved: Saved,
    ) -> BoxFuture<'_, std::result::Result<(), CrdtStoreError>> {
        Box::pin(self.change(ObjectChange::Save(object, saved)))
    }

    fn forget(&self, object: TopicId) -> BoxFuture<'_, std::result::Result<(), CrdtStoreError>> {
        Box::pin(self.change(ObjectChange::Forget(object)))
    }
}
