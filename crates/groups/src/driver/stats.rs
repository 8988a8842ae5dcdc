//! What came in each group's log, by cause, for who looks for what is wrong.

use std::sync::Arc;

use x0x_core::WallTime;

use crate::{
    error::{ActError, SessionError},
    metrics::GroupsMetrics,
    session::Happened,
    wall::BANNED,
};

/// What came in a group's log since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Items of it.
    pub taken: u64,
    /// Refused: they do not open, or are malformed.
    pub malformed: u64,
    /// Refused: a signature or what it covers does not hold.
    pub signature: u64,
    /// Refused: their author was banned.
    pub banned: u64,
    /// Refused: their author may not do that.
    pub role: u64,
    /// Refused for another reason.
    pub other: u64,
    /// Messages read.
    pub messages: u64,
    /// Messages that cannot be read here.
    pub unreadable: u64,
    /// Operations that were new.
    pub operations: u64,
    /// Times that it had other keys.
    pub epochs: u64,
    /// When the last message came.
    pub last: Option<WallTime>,
}

impl GroupStats {
    pub(super) fn refused(&mut self, error: &SessionError, all: &Arc<GroupsMetrics>) {
        let (own, of_all) = match error {
            SessionError::Sealed | SessionError::Decode(_) => {
                (&mut self.malformed, &all.refused_malformed)
            }
            SessionError::Signed(_) => (&mut self.signature, &all.refused_signature),
            SessionError::Act(ActError::Role(BANNED)) => (&mut self.banned, &all.refused_banned),
            SessionError::Act(_) => (&mut self.role, &all.refused_role),
            _ => (&mut self.other, &all.refused_other),
        };
        *own += 1;
        of_all.inc();
    }

    pub(super) fn happened(&mut self, event: &Happened, now: WallTime, all: &Arc<GroupsMetrics>) {
        match event {
            Happened::Text { .. } | Happened::Message { .. } => {
                self.messages += 1;
                self.last = Some(now);
                all.read.inc();
            }
            Happened::Unreadable { .. } => {
                self.unreadable += 1;
                all.unreadable.inc();
            }
            Happened::State { .. } => self.operations += 1,
            Happened::Epoch { .. } => self.epochs += 1,
            Happened::Out | Happened::Refused => {}
        }
    }
}
