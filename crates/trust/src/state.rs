//! The policy engine: contacts, sightings and revocations, and what follows from them. Pure.

use std::collections::{BTreeMap, VecDeque};

use x0x_core::{AgentId, MachineId, UserId, WallTime};
use x0x_identity::{AgentBinding, Revocation, Subject, shows_as_written};

use crate::{
    contacts::{Contact, MAX_CONTACTS, MAX_LABEL, MachineRecord, Sighting},
    error::ChangeError,
    event::TrustEvent,
    level::{IdentityType, Level},
    policy::{Action, Decision, Reason},
    revocations::{MAX_OWN, RevocationRecord, Revocations, Revoker},
};

mod change;
mod observe;
#[cfg(test)]
mod tests;

pub use change::{Change, Outcome};
pub use observe::Observation;

/// Most agents that are no contacts and whose whereabouts are kept. The one met first goes first.
pub const MAX_STRANGERS: usize = 4096;

/// What a decision about an agent on a machine comes to in a word, for whoever asks about trust as
/// such and not about one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assessment {
    /// Trusted, or pinned to this machine.
    Accept,
    /// Known, but not trusted.
    AcceptWithFlag,
    /// Pinned to another machine, or moved to another one.
    RejectMachineMismatch,
    /// Blocked or revoked.
    RejectBlocked,
    /// Nothing is known about it.
    Unknown,
}

impl From<Reason> for Assessment {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Revoked | Reason::Blocked => Self::RejectBlocked,
            Reason::WrongMachine | Reason::Superseded => Self::RejectMachineMismatch,
            Reason::Unknown => Self::Unknown,
            Reason::Known => Self::AcceptWithFlag,
            Reason::Trusted | Reason::Pinned => Self::Accept,
        }
    }
}

/// Contacts, revocations and whereabouts. Every method is quick and pure; whoever holds it keeps it.
#[derive(Debug, Clone, Default)]
pub struct TrustState {
    contacts: BTreeMap<AgentId, Contact>,
    revocations: Revocations,
    /// The keys of this installation.
    own: Vec<Subject>,
    strangers: BTreeMap<AgentId, Sighting>,
    /// The strangers, the one met first in front.
    order: VecDeque<AgentId>,
    /// Moves of pinned contacts that were refused: the generation and the machine of the last. As many
    /// as there are contacts at most.
    refused_moves: BTreeMap<AgentId, (u64, MachineId)>,
}

impl TrustState {
    /// The state that was kept. Contacts beyond [`MAX_CONTACTS`] and revocations beyond their bound are
    /// left out, which no state that this crate kept has.
    #[must_use]
    pub fn restore(contacts: Vec<Contact>, revocations: Vec<RevocationRecord>) -> Self {
        let mut state = Self::default();
        for contact in contacts.into_iter().take(MAX_CONTACTS) {
            state.contacts.insert(contact.agent_id, contact);
        }
        for record in revocations {
            state.keep(record);
        }
        state
    }

    /// How an agent stands, here and now; the strongest reason counts.
    #[must_use]
    pub fn reason(&self, agent: &AgentId, machine: Option<&MachineId>) -> Reason {
        let contact = self.contacts.get(agent);
        let sighting = contact.map(|contact| &contact.sighting);
        let sighting = sighting.or_else(|| self.strangers.get(agent));
        let user = sighting.and_then(|sighting| sighting.user_id);
        if self.is_revoked(agent, machine, user) {
            return Reason::Revoked;
        }
        if contact.is_some_and(|contact| contact.trust_level == Level::Blocked) {
            return Reason::Blocked;
        }
        if let (Some(contact), Some(machine)) = (contact, machine) {
            match contact.pinned_to(machine) {
                Some(true) => return Reason::Pinned,
                Some(false) => return Reason::WrongMachine,
                None => {}
            }
        }
        if let (Some(sighting), Some(machine)) = (sighting, machine)
            && sighting.superseded(machine)
        {
            return Reason::Superseded;
        }
        match contact.map_or(Level::Unknown, |contact| contact.trust_level) {
            Level::Trusted => Reason::Trusted,
            Level::Known => Reason::Known,
            Level::Unknown | Level::Blocked => Reason::Unknown,
        }
    }

    /// Decides about one action.
    #[must_use]
    pub fn decide(&self, agent: &AgentId, machine: Option<&MachineId>, action: Action) -> Decision {
        Decision::of(self.reason(agent, machine), action)
    }

    fn is_revoked(
        &self,
        agent: &AgentId,
        machine: Option<&MachineId>,
        user: Option<UserId>,
    ) -> bool {
        let revoked = |subject| self.revocations.contains(&subject);
        revoked(Subject::Agent(*agent))
            || machine.is_some_and(|machine| revoked(Subject::Machine(*machine)))
            || user.is_some_and(|user| revoked(Subject::User(user)))
    }

    /// Whether a machine's key has been revoked.
    #[must_use]
    pub fn machine_revoked(&self, machine: &MachineId) -> bool {
        self.revocations.contains(&Subject::Machine(*machine))
    }

    /// The level of an agent: that of its contact, forced to blocked when it was revoked.
    #[must_use]
    pub fn level(&self, agent: &AgentId) -> Level {
        match self.reason(agent, None) {
            Reason::Revoked | Reason::Blocked => Level::Blocked,
            _ => self.contacts.get(agent).map_or(Level::Unknown, |contact| contact.trust_level),
        }
    }

    /// One contact.
    #[must_use]
    pub fn contact(&self, agent: &AgentId) -> Option<&Contact> {
        self.contacts.get(agent)
    }

    /// The contacts, by id.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.values()
    }

    /// The revocations, by subject.
    pub fn revocations(&self) -> impl Iterator<Item = &RevocationRecord> {
        self.revocations.iter()
    }

    /// The revocation of a key, if there is one.
    #[must_use]
    pub fn revocation(&self, subject: &Subject) -> Option<&RevocationRecord> {
        self.revocations.get(subject)
    }

    /// How many contacts, blocked ones among them, revocations and strangers there are.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let blocked = |contact: &&Contact| contact.trust_level == Level::Blocked;
        let blocked = self.contacts.values().filter(blocked).count();
        [self.contacts.len(), blocked, self.revocations.len(), self.strangers.len()]
    }

    /// Where an agent runs, as far as its bindings were seen.
    #[must_use]
    pub fn sighting(&self, agent: &AgentId) -> Option<&Sighting> {
        let contact = self.contacts.get(agent).map(|contact| &contact.sighting);
        contact.or_else(|| self.strangers.get(agent))
    }

    /// The machine that a pinned contact says it moved to, while that is refused.
    #[must_use]
    pub fn refused_move(&self, agent: &AgentId) -> Option<MachineId> {
        self.refused_moves.get(agent).map(|(_, machine)| *machine)
    }

    /// All of these: who, and to which machine.
    pub fn refused_moves(&self) -> impl Iterator<Item = (AgentId, MachineId)> + '_ {
        self.refused_moves.iter().map(|(agent, (_, machine))| (*agent, *machine))
    }

    /// Names the keys of this installation, few: what revokes them never makes room, and finds it.
    pub fn claim(&mut self, own: &[Subject]) {
        self.own = own.iter().copied().take(MAX_OWN).collect();
    }

    /// Whether a key has to do with a contact: is its own, of a machine it runs on, of its user.
    #[must_use]
    pub fn concerns_contact(&self, subject: &Subject) -> bool {
        concerns(&self.contacts, subject)
    }

    /// Keeps a revocation; false when there is no room for it.
    fn keep(&mut self, record: RevocationRecord) -> bool {
        let (contacts, own) = (&self.contacts, &self.own);
        let is_own = own.contains(&record.subject);
        let met = |subject: &Subject| own.contains(subject) || concerns(contacts, subject);
        self.revocations.insert(record, is_own, met)
    }
}

/// Whether a key has to do with a contact: is its own, of a machine it runs on, of its user.
fn concerns(contacts: &BTreeMap<AgentId, Contact>, subject: &Subject) -> bool {
    match subject {
        Subject::Agent(agent) => contacts.contains_key(agent),
        Subject::Machine(machine) => contacts.values().any(|contact| {
            contact.machine(machine).is_some() || contact.sighting.machines.contains(machine)
        }),
        Subject::User(user) => {
            contacts.values().any(|contact| contact.sighting.user_id == Some(*user))
        }
        _ => false,
    }
}

/// Takes a label, or refuses it: it is shown in terminals and pages.
fn check_label(label: &str) -> Result<(), ChangeError> {
    let fine = label.len() <= MAX_LABEL && shows_as_written(label);
    if fine { Ok(()) } else { Err(ChangeError::Label { max: MAX_LABEL }) }
}
