//! What the service needs to keep mail.

use std::sync::Arc;

use tokio::sync::broadcast;
use x0x_core::{AgentId, WallTime};

use crate::{
    admission::Admittance,
    mail::{LetterState, MailStore},
    wire::MessageId,
};

/// Events that a slow listener may be behind.
const MAX_EVENTS: usize = 1024;

/// A letter came further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterEvent {
    /// The letter.
    pub id: MessageId,
    /// Its recipient.
    pub to: AgentId,
    /// Its state now.
    pub state: LetterState,
    /// Since when.
    pub at: WallTime,
}

impl LetterEvent {
    pub(crate) const fn new(id: MessageId, to: AgentId, state: LetterState, at: WallTime) -> Self {
        Self { id, to, state, at }
    }

    pub(crate) const fn read(id: MessageId, by: AgentId, at: WallTime) -> Self {
        Self::new(id, by, LetterState::Read, at)
    }
}

/// The store of mail, who may leave some, and who hears of letters. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mailing {
    pub(crate) store: Arc<dyn MailStore>,
    pub(crate) admittance: Admittance,
    pub(crate) events: broadcast::Sender<LetterEvent>,
    /// Agents with which a session begins.
    pub(crate) arrivals: broadcast::Sender<AgentId>,
}

impl Mailing {
    /// Over a store.
    #[must_use]
    pub fn new(store: Arc<dyn MailStore>, admittance: Admittance) -> Self {
        let (events, arrivals) =
            (broadcast::Sender::new(MAX_EVENTS), broadcast::Sender::new(MAX_EVENTS));
        Self { store, admittance, events, arrivals }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn MailStore> {
        &self.store
    }

    /// What lies unread, and may.
    #[must_use]
    pub const fn admittance(&self) -> &Admittance {
        &self.admittance
    }

    /// A letter was handed to a session with its recipient's machine.
    pub fn note_sent(&self, id: MessageId, to: AgentId, at: WallTime) {
        // Nobody may be listening.
        let _ = self.events.send(LetterEvent::new(id, to, LetterState::Sent, at));
    }

    /// How letters come further from now on; a listener that is far behind is told how many it
    /// missed.
    #[must_use]
    pub fn letter_events(&self) -> broadcast::Receiver<LetterEvent> {
        self.events.subscribe()
    }
}
