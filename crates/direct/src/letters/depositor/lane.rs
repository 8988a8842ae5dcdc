//! How far the letters of one recipient are.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use x0x_core::{MachineId, Tick};

use super::{
    super::{letter::After, wire::Digest},
    event::PendingEntry,
};
use crate::wire::MessageId;

/// The first pause after letters found too few holders; it doubles each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(10);
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(600);
/// How soon letters are looked at when there is something new.
pub(super) const SOON: Duration = Duration::from_millis(500);

/// The letter that is being left.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) digest: Option<Digest>,
    pub(super) after: Option<MessageId>,
    pub(super) asked: BTreeSet<MachineId>,
    pub(super) deadline: Tick,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) letters: VecDeque<PendingEntry>,
    pub(super) before: Option<After>,
    pub(super) places: Option<[u8; 32]>,
    pub(super) current: Option<Current>,
    /// Some letter has fewer holders than it should.
    pub(super) lacking: bool,
    /// Some letter could not be sealed.
    pub(super) unsealed: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Waiting(Tick),
    Looking,
    Working(Work),
}

/// What keeps letters from being left, until it is looked again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Obstacle {
    NoMailbox,
    /// A message with this number.
    TooLarge(u64),
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stage: Stage,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) failures: u32,
    pub(super) looked: Option<Tick>,
    /// When to look again at the latest, since something was posted while letters were being left.
    pub(super) posted: Option<Tick>,
    /// It looks sooner than its failures would have it.
    pub(super) hurried: bool,
}

impl Lane {
    pub(super) fn pause(failures: u32) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LAST_PAUSE)
    }

    /// Looks sooner, for somebody is there who was not: but an eighth of the pause is kept, since sessions
    /// cost others nothing.
    pub(super) fn hasten(&mut self, now: Tick) {
        let Stage::Waiting(due) = &mut self.stage else { return };
        let kept = (Self::pause(self.failures) / 8).max(FIRST_PAUSE);
        let soon = self.looked.map_or(now, |looked| looked + kept).max(now + SOON);
        *due = (*due).min(soon);
    }
}
