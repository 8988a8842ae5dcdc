//! Whom nobody may trust any more. Nothing is ever taken back.

use std::collections::{BTreeMap, VecDeque};

use x0x_core::{UserId, WallTime};
use x0x_identity::{Revocation, Subject};

/// Most keys of an installation; their revocations find room whatever else is kept.
pub(crate) const MAX_OWN: usize = 8;
/// Most revocations. Those of keys that this machine has never met make room for one another; one of a
/// contact, or one that was made here, stays.
pub const MAX_REVOCATIONS: usize = 8192;
/// How many revocations are looked at for one that may go.
const MAX_TRIES: usize = 16;

/// Who revoked a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revoker {
    /// Whoever uses this installation, for it alone.
    Local,
    /// The key itself, for everybody.
    Itself,
    /// The user who had certified the agent, for everybody.
    User(UserId),
}

/// A revocation on record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevocationRecord {
    /// Whose key.
    pub subject: Subject,
    /// By whom.
    pub by: Revoker,
    /// Why, for people to read.
    pub reason: String,
    /// When, by the clock of who did.
    pub at: WallTime,
}

impl From<&Revocation> for RevocationRecord {
    fn from(revocation: &Revocation) -> Self {
        Self {
            subject: revocation.subject,
            by: revocation.by_user.map_or(Revoker::Itself, Revoker::User),
            reason: revocation.reason.clone(),
            at: revocation.revoked_at,
        }
    }
}

/// The revocations on record, bounded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Revocations {
    records: BTreeMap<Subject, RevocationRecord>,
    /// Those that may make room unless they have been met since, the oldest first.
    strangers: VecDeque<Subject>,
}

impl Revocations {
    pub(crate) fn contains(&self, subject: &Subject) -> bool {
        // Asked for every message of every layer, and empty almost always.
        !self.records.is_empty() && self.records.contains_key(subject)
    }

    pub(crate) fn get(&self, subject: &Subject) -> Option<&RevocationRecord> {
        self.records.get(subject)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RevocationRecord> {
        self.records.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Keeps a revocation; false when there is no room. `own` says whether the subject is a key of this
    /// installation, for which there is room always, and `met` whether this machine has to do with a subject.
    pub(crate) fn insert(
        &mut self,
        record: RevocationRecord,
        own: bool,
        met: impl Fn(&Subject) -> bool,
    ) -> bool {
        let subject = record.subject;
        let local = record.by == Revoker::Local;
        if let Some(known) = self.records.get_mut(&subject) {
            // The first word stands, except that a local one gives way to one for everybody.
            if known.by == Revoker::Local && !local {
                *known = record;
            }
            return true;
        }
        let full = self.records.len() >= MAX_REVOCATIONS && !self.make_room(&met);
        if full && !own {
            return false;
        }
        if !local && !met(&subject) {
            self.strangers.push_back(subject);
        }
        self.records.insert(subject, record);
        true
    }

    fn make_room(&mut self, met: impl Fn(&Subject) -> bool) -> bool {
        for _ in 0..MAX_TRIES {
            let Some(oldest) = self.strangers.pop_front() else { return false };
            // Whoever was met since is a stranger no longer, and its revocation stays.
            if !met(&oldest) {
                self.records.remove(&oldest);
                return true;
            }
        }
        false
    }
}
