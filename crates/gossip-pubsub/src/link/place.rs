//! The peer's place in one topic that it subscribes.

use std::collections::BTreeMap;

use x0x_core::Tick;

use crate::{compare::Gone, config::Limits, log::TopicLog};

use super::ChainId;

/// What is noted of one author's chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The peer has entries up to here: from its heads, from what it sent and announced, and from
    /// what was sent to it.
    pub(crate) have: u64,
    /// It was told of entries up to here.
    pub(crate) told: u64,
    /// Entries up to here were asked for on this link, so that they may come twice.
    pub(crate) asked: u64,
    /// When the last of them was asked for, or came.
    pub(crate) asked_at: Option<Tick>,
    /// It sent entries up to here, new ones or not.
    pub(crate) brought: u64,
    /// Whether the author's runs are pushed to the peer, when that differs from the shared tree.
    pub(crate) eager: Option<bool>,
    /// The peer was asked to push the author's runs.
    pub(crate) grafted: bool,
    /// When it was last grafted for its shorter way, or failed as the author's parent.
    pub(crate) tested: Option<Tick>,
    /// When the peer was asked not to push the author's runs.
    pub(crate) pruned: Option<Tick>,
    /// What the peer has of it is not accepted, and not asked for, until then.
    pub(crate) put_off: Option<Tick>,
}

impl View {
    /// Notes that entries up to `upto` are asked for on this link.
    pub(crate) fn ask(&mut self, now: Tick, upto: u64) {
        self.asked = self.asked.max(upto);
        self.asked_at = Some(now);
    }
}

/// The peer's place in one topic that it subscribes.
#[derive(Debug, Default)]
pub(crate) struct LinkTopic {
    /// Position up to which everything was sent, announced, or not needed.
    pub(crate) cursor: u64,
    /// The link is a part of the topic's shared tree: runs are pushed, unless a view says otherwise.
    pub(crate) eager: bool,
    pub(crate) views: BTreeMap<ChainId, View>,
    /// Chains of which the peer retains nothing and this node has less; at most [`Limits::link_heads`]
    /// in all topics of the link.
    pub(crate) gone: Gone,
    /// The log's digest when it was last found equal to the peer's.
    pub(crate) equal: Option<[u8; 16]>,
    /// Whether the topic is in the link's queue.
    pub(super) queued: bool,
    /// It had caught up, and is not slow since: only then it holds publishers back.
    pub(super) live: bool,
    /// Since when it is far behind.
    behind_since: Option<Tick>,
}

impl LinkTopic {
    /// A peer that gets what follows this position.
    pub(crate) fn at(cursor: u64, eager: bool) -> Self {
        Self { cursor, eager, live: true, ..Self::default() }
    }

    /// Begins again in a log that is new.
    pub(crate) fn restart(&mut self) {
        (self.cursor, self.live, self.behind_since, self.equal) = (0, true, None, None);
    }

    /// Whether the peer holds a publisher back: it has caught up once, is far behind since, and works
    /// on it. What it asked for does not count.
    pub(crate) fn holds(&mut self, now: Tick, log: &TopicLog, limits: &Limits) -> bool {
        if !self.live {
            return false;
        }
        let entries = log.end().saturating_sub(self.cursor);
        let bytes = log.bytes_after(self.cursor);
        let exceeds = |share| {
            entries > limits.backlog_entries / share || bytes > limits.backlog_bytes / share
        };
        match self.behind_since {
            None if exceeds(1) => self.behind_since = Some(now),
            // Released at half the limit, so that it does not flicker.
            Some(_) if !exceeds(2) => self.behind_since = None,
            Some(since) if now.since(since) >= limits.stalled_after => {
                self.behind_since = None;
                self.live = false;
            }
            _ => {}
        }
        self.behind_since.is_some()
    }
}
