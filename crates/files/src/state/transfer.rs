//! One transfer inside the machine.

use std::{path::PathBuf, time::Duration};

use x0x_core::{MachineId, Tick};

use crate::{
    ranges::RangeSet,
    record::{Direction, Phase, Record},
    tree::{group_len, groups},
};

/// A transfer that has not ended.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) record: Record,
    /// Bytes that the recipient has, verified.
    pub(super) verified: u64,
    pub(super) side: Side,
    /// When something is to be done about it, and how often that was done in vain.
    pub(super) due: Option<Tick>,
    pub(super) tries: u32,
    /// How many bytes the recipient had when that was looked at last, and since when it may have had no more.
    pub(super) moved: Option<(u64, Tick)>,
    /// When its progress was last shown, and when it is to be shown again.
    pub(super) shown: Option<Tick>,
    pub(super) show_at: Option<Tick>,
}

/// What the two directions keep.
#[derive(Debug)]
pub(super) enum Side {
    Out(Outgoing),
    In(Incoming),
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Asked for, and not given to a job yet.
    pub(super) wanted: RangeSet,
    /// Who asked.
    pub(super) via: Option<MachineId>,
    pub(super) peer_paused: bool,
    /// The file cannot be read for now.
    pub(super) held: bool,
}

#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) stage: Stage,
    /// Neither asked for nor there. Disjoint from the other two.
    pub(super) missing: RangeSet,
    pub(super) asked: RangeSet,
    /// Arrived, and being stored.
    pub(super) writing: RangeSet,
    /// Who was asked.
    pub(super) via: Option<MachineId>,
    /// How many groups of all its files that machine had sent when this one was served or asked last.
    pub(super) served_at: u64,
    pub(super) peer_paused: bool,
    pub(super) held: Option<Held>,
    pub(super) accepting: Option<Accepting>,
    /// A rule would accept it, and the disk did not let it: it is tried again, unless the user decides before.
    pub(super) waits_for_disk: bool,
    /// Its place among those that wait to be opened.
    pub(super) turn: u64,
    /// Who cancelled it while it got its name: which of the two came first is not known yet.
    pub(super) cancelling: Option<u64>,
}

/// What of the disk an incoming transfer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It is full.
    Space,
    /// It failed.
    Disk,
}

/// An acceptance that waits for a look at the disk.
#[derive(Debug)]
pub(super) struct Accepting {
    /// Who asked; nobody when a rule did.
    pub(super) ticket: Option<u64>,
    pub(super) folder: Option<PathBuf>,
}

/// How far the file of an incoming transfer is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not open.
    #[default]
    Shut,
    /// What is there is being verified.
    Opening,
    /// Groups are stored.
    Open,
    /// All are there; it gets its name.
    Finishing,
}

impl Transfer {
    pub(super) fn new(record: Record) -> Self {
        let side = match record.direction {
            Direction::Sending => Side::Out(Outgoing::default()),
            Direction::Receiving => Side::In(Incoming::default()),
        };
        Self {
            record,
            verified: 0,
            side,
            due: None,
            tries: 0,
            moved: None,
            shown: None,
            show_at: None,
        }
    }

    pub(super) const fn incoming(&mut self) -> Option<&mut Incoming> {
        match &mut self.side {
            Side::In(incoming) => Some(incoming),
            Side::Out(_) => None,
        }
    }

    pub(super) const fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.side {
            Side::Out(outgoing) => Some(outgoing),
            Side::In(_) => None,
        }
    }

    /// Whether it takes one of the places of files being received.
    pub(super) const fn is_receiving(&self) -> bool {
        matches!(&self.side, Side::In(incoming) if !matches!(incoming.stage, Stage::Shut))
    }

    /// Whether the whole file is there and gets its name: nothing but its disk can stop it now.
    pub(super) const fn is_finishing(&self) -> bool {
        matches!(&self.side, Side::In(Incoming { stage: Stage::Finishing, .. }))
    }

    /// Whether the other end is needed to go on.
    pub(super) const fn needs_peer(&self) -> bool {
        match &self.side {
            Side::Out(_) => matches!(self.record.phase, Phase::Offered | Phase::Active),
            Side::In(_) => matches!(self.record.phase, Phase::Active) && !self.is_finishing(),
        }
    }

    /// Whether a rule is to accept it once the disk lets it.
    pub(super) const fn waits_for_disk(&self) -> bool {
        matches!(&self.side, Side::In(Incoming { waits_for_disk: true, .. }))
    }

    /// Whether it needs the other end and has not come further for so long.
    pub(super) fn is_given_up(&mut self, now: Tick, idle_ttl: Duration) -> bool {
        if !self.needs_peer() || self.record.phase != Phase::Active {
            return false;
        }
        match self.moved {
            Some((verified, since)) if verified == self.verified => now.since(since) >= idle_ttl,
            _ => {
                self.moved = Some((self.verified, now));
                false
            }
        }
    }

    /// Bytes that it still needs of this machine's disk.
    pub(super) const fn remaining(&self) -> u64 {
        match (&self.side, self.record.phase) {
            (Side::In(_), Phase::Active | Phase::Paused) => {
                self.record.size.saturating_sub(self.verified)
            }
            _ => 0,
        }
    }

    /// The bytes of some groups.
    pub(super) fn bytes_of(&self, set: &RangeSet) -> u64 {
        let (size, last) = (self.record.size, groups(self.record.size).saturating_sub(1));
        let all = set.len().saturating_mul(crate::tree::GROUP);
        // Only the last group is shorter.
        let short = crate::tree::GROUP - group_len(size, last) as u64;
        if set.contains(last) { all.saturating_sub(short) } else { all }
    }
}

impl Incoming {
    /// What was asked for will not come.
    pub(super) fn give_up_asked(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.missing.extend(&asked);
        self.via = None;
    }

    /// Forgets what the file has, which is looked at anew when it is opened.
    pub(super) fn shut(&mut self) {
        let Self { peer_paused, held, turn, .. } = *self;
        *self = Self { peer_paused, held, turn, ..Self::default() };
    }
}
