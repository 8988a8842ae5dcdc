//! What is known of one machine.

use bytes::Bytes;
use x0x_core::AgentId;

use super::{incoming::Incoming, outgoing::Outgoing};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u64,
    pub(super) agents: Vec<AgentId>,
    /// The transport takes nothing until it says so.
    pub(super) blocked: bool,
    /// What it did not take.
    pub(super) unsent: Option<Bytes>,
    /// The peer broke the protocol; nothing more is believed or said.
    pub(super) broken: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: Option<Session>,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// Listed in `ready`.
    pub(super) ready: bool,
    /// Listed in `holding`.
    pub(super) holding: bool,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            session: None,
            outgoing: Outgoing::new(),
            incoming: Incoming::default(),
            ready: false,
            holding: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.session.is_none() && self.outgoing.is_empty() && self.incoming.is_empty()
    }
}

impl Session {
    pub(super) const fn new(generation: u64, agents: Vec<AgentId>) -> Self {
        Self { generation, agents, blocked: false, unsent: None, broken: false }
    }
}
