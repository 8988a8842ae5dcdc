//! Local changes: refused with a reason where others would reject them.

use super::{
    Content, KeyView, KvOp, KvStore, Put, Rules, VersionTag, is_own_key,
    op::{MAX_VALUE, flaw, is_key},
};
use crate::WriteContext;

/// Most keys of a store, counted where one is put.
pub const MAX_KEYS: usize = 200_000;

/// On what a change depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum If {
    /// Nothing.
    #[default]
    Always,
    /// The key has no value here.
    Absent,
    /// The key holds exactly this here.
    Holds(VersionTag),
}

/// A change of a store that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The key has no value.
    #[error("key not found: {0}")]
    NotFound(String),
    /// The key holds something else than the change depends on.
    #[error("the key is at another version")]
    Changed {
        /// What it holds; none when it has no value.
        tag: Option<VersionTag>,
    },
    /// The value is too large to be kept in the store.
    #[error(
        "value too large: {0} bytes, at most {MAX_VALUE}; send it as a file, and put its hash, size and name as `file`"
    )]
    TooLarge(usize),
    /// Part of the change is no valid one.
    #[error("{0}")]
    Field(&'static str),
    /// The store's rules forbid it.
    #[error("{0}")]
    Rules(&'static str),
    /// The store has as many keys as it may.
    #[error("limit reached: keys of a store (at most {MAX_KEYS})")]
    TooManyKeys,
}

impl KvStore {
    /// Puts a value.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn set(&self, cx: &WriteContext<'_>, mut put: Put, when: If) -> Result<KvOp, KvError> {
        if let Content::Inline(value) = &put.content
            && value.len() > MAX_VALUE
        {
            return Err(KvError::TooLarge(value.len()));
        }
        if let Some(flaw) = flaw(&put) {
            return Err(KvError::Field(flaw));
        }
        let held = self.get(&put.key, cx.now());
        if Rules::of(cx.policy()) == Some(Rules::AppendOnly) && put.ttl.is_some() {
            return Err(KvError::Rules("values of this store stay, and have no time to live"));
        }
        self.permit(cx, &put.key)?;
        depends(when, held.as_ref())?;
        if held.is_none() && self.len() >= MAX_KEYS {
            return Err(KvError::TooManyKeys);
        }
        put.created = held.map(|held| held.value().created());
        Ok(KvOp::Put(put))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn delete_key(&self, cx: &WriteContext<'_>, key: &str, when: If) -> Result<KvOp, KvError> {
        let held = self.get(key, cx.now()).filter(|_| is_key(key));
        if held.is_none() {
            return Err(KvError::NotFound(key.to_owned()));
        }
        if Rules::of(cx.policy()) == Some(Rules::AppendOnly) {
            return Err(KvError::Rules("values of this store stay"));
        }
        self.permit(cx, key)?;
        depends(when, held.as_ref())?;
        Ok(KvOp::Delete(key.to_owned()))
    }

    fn permit(&self, cx: &WriteContext<'_>, key: &str) -> Result<(), KvError> {
        match Rules::of(cx.policy()) {
            None => return Err(KvError::Rules("the store has rules of a later version")),
            Some(Rules::SelfKeyed) if !is_own_key(&cx.me(), key) => {
                let text = "keys of this store begin with their writer's agent id and `/`";
                return Err(KvError::Rules(text));
            }
            Some(_) => {}
        }
        let entry = self.entries.get(key);
        if entry.is_some_and(|entry| entry.versions.iter().any(|version| version.kept)) {
            return Err(KvError::Rules("the key has a value, which stays"));
        }
        Ok(())
    }
}

fn depends(when: If, held: Option<&KeyView<'_>>) -> Result<(), KvError> {
    let tag = held.map(KeyView::tag);
    let holds = match when {
        If::Always => true,
        If::Absent => tag.is_none(),
        If::Holds(wanted) => tag == Some(wanted),
    };
    if holds { Ok(()) } else { Err(KvError::Changed { tag }) }
}
