//! What people change.

use std::net::SocketAddr;

use super::*;

/// Something that somebody decided.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Adds a contact, or sets its level and label. Its machines stay.
    Put {
        /// The agent.
        agent: AgentId,
        /// Its level.
        level: Level,
        /// Its label; `None` removes it.
        label: Option<String>,
    },
    /// Adds a contact, as known unless a level is given. One that is there keeps what is not given; when
    /// it is blocked a level must be given, so that nobody is unblocked in passing.
    Add {
        /// The agent.
        agent: AgentId,
        /// Its level.
        level: Option<Level>,
        /// Its label.
        label: Option<String>,
    },
    /// Changes what is given of a contact, adding it when it is none.
    Update {
        /// The agent.
        agent: AgentId,
        /// Its level.
        level: Option<Level>,
        /// What it is known by.
        identity_type: Option<IdentityType>,
    },
    /// Removes a contact. What was revoked stays so.
    Remove {
        /// The agent.
        agent: AgentId,
    },
    /// Blocks an agent for ever, here.
    Revoke {
        /// The agent.
        agent: AgentId,
        /// Why; at most [`MAX_LABEL`] bytes.
        reason: String,
    },
    /// Puts a machine on record, or changes its label and pin, adding the contact when it is none.
    PutMachine {
        /// The agent.
        agent: AgentId,
        /// The machine.
        machine: MachineId,
        /// Its label; `None` leaves it.
        label: Option<String>,
        /// Whether to pin the contact to it. False leaves a pin that is there.
        pinned: bool,
    },
    /// Puts a machine on record, adding the contact when it is none, and where a card says that it may be
    /// reached. What an earlier card about the contact said counts no longer.
    PutPlace {
        /// The agent.
        agent: AgentId,
        /// The machine.
        machine: MachineId,
        /// Its addresses; more than [`MAX_ADDRESSES`](x0x_core::MAX_ADDRESSES) are cut off.
        addresses: Vec<SocketAddr>,
    },
    /// Forgets a machine and its pin.
    RemoveMachine {
        /// The agent.
        agent: AgentId,
        /// The machine.
        machine: MachineId,
    },
    /// Pins the contact to a machine on record, or on which it was proven, or takes the pin off.
    Pin {
        /// The agent.
        agent: AgentId,
        /// The machine.
        machine: MachineId,
        /// On or off.
        pinned: bool,
    },
    /// A revocation that was verified.
    Learn(Revocation),
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Something is there now that was not.
    Created,
    /// Something was changed.
    Changed,
    /// All was so already.
    Unchanged,
    /// What was to be changed is not there.
    Missing,
}

impl TrustState {
    /// Makes a change. Events are appended to `events`.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub fn apply(
        &mut self,
        now: WallTime,
        change: &Change,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        match change {
            Change::Put { agent, level, label } => {
                if let Some(label) = label {
                    check_label(label)?;
                }
                self.edit(*agent, now, events, |contact| {
                    contact.set_level(*level);
                    contact.label.clone_from(label);
                })
            }
            Change::Add { agent, level, label } => {
                self.add(*agent, *level, label.as_deref(), now, events)
            }
            Change::Update { agent, level, identity_type } => {
                self.edit(*agent, now, events, |contact| {
                    if let Some(level) = level {
                        contact.set_level(*level);
                    }
                    contact.identity_type = identity_type.unwrap_or(contact.identity_type);
                })
            }
            Change::Remove { agent } => Ok(self.remove(agent, events)),
            Change::Revoke { agent, reason } => self.revoke(*agent, reason, now, events),
            Change::PutMachine { agent, machine, label, pinned } => {
                self.put_machine(*agent, *machine, label.as_deref(), *pinned, now, events)
            }
            Change::PutPlace { agent, machine, addresses } => {
                self.put_place(*agent, *machine, addresses, now, events)
            }
            Change::RemoveMachine { agent, machine } => {
                Ok(self.edit_machine(agent, events, |contact| {
                    let before = contact.machines.len();
                    contact.machines.retain(|record| record.machine_id != *machine);
                    (contact.machines.len() < before).then_some(true)
                }))
            }
            Change::Pin { agent, machine, pinned } => {
                Ok(self.edit_machine(agent, events, |contact| {
                    if *pinned {
                        contact.recall(*machine, now);
                    }
                    let record = contact.machine_mut(machine)?;
                    Some(std::mem::replace(&mut record.pinned, *pinned) != *pinned)
                }))
            }
            Change::Learn(revocation) => self.learn(revocation, events),
        }
    }

    fn add(
        &mut self,
        agent: AgentId,
        level: Option<Level>,
        label: Option<&str>,
        now: WallTime,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        if let Some(label) = label {
            check_label(label)?;
        }
        let known = self.contacts.get(&agent).map(|contact| contact.trust_level);
        let level = match (level, known) {
            (Some(level), _) => level,
            (None, Some(Level::Blocked)) => return Err(ChangeError::Blocked),
            (None, known) => known.unwrap_or(Level::Known),
        };
        self.edit(agent, now, events, |contact| {
            contact.set_level(level);
            contact.label = label.map(str::to_owned).or(contact.label.take());
        })
    }

    /// Changes a contact, adding it when it is none, and tells what followed.
    fn edit(
        &mut self,
        agent: AgentId,
        now: WallTime,
        events: &mut Vec<TrustEvent>,
        change: impl FnOnce(&mut Contact),
    ) -> Result<Outcome, ChangeError> {
        let before = self.level(&agent);
        let known = self.contacts.get(&agent).cloned();
        if known.is_none() && self.contacts.len() >= MAX_CONTACTS {
            return Err(ChangeError::Full { max: MAX_CONTACTS });
        }
        let mut contact = known.clone().unwrap_or_else(|| {
            // What was seen of a stranger is known of the contact that it becomes.
            let sighting = self.strangers.remove(&agent);
            self.order.retain(|stranger| *stranger != agent);
            let mut contact = Contact::new(agent, sighting.unwrap_or_default(), now);
            for machine in contact.sighting.machines.clone() {
                contact.add_machine(MachineRecord::new(machine, now));
            }
            contact
        });
        change(&mut contact);
        if self.revocations.contains(&Subject::Agent(agent)) {
            contact.trust_level = Level::Blocked;
        }
        let outcome = match &known {
            None => Outcome::Created,
            Some(known) if *known == contact => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        };
        self.contacts.insert(agent, contact);
        if outcome != Outcome::Unchanged {
            events.push(TrustEvent::Contact { agent });
        }
        self.tell_level(agent, before, events);
        Ok(outcome)
    }

    fn tell_level(&self, agent: AgentId, before: Level, events: &mut Vec<TrustEvent>) {
        let after = self.level(&agent);
        if before != after {
            events.push(TrustEvent::Level { agent, from: before, to: after });
        }
    }

    fn remove(&mut self, agent: &AgentId, events: &mut Vec<TrustEvent>) -> Outcome {
        let before = self.level(agent);
        let Some(contact) = self.contacts.remove(agent) else { return Outcome::Missing };
        self.refused_moves.remove(agent);
        // A superseded machine does not come back because a contact was removed.
        self.remember(*agent, contact.sighting);
        events.push(TrustEvent::Removed { agent: *agent });
        self.tell_level(*agent, before, events);
        Outcome::Changed
    }

    fn revoke(
        &mut self,
        agent: AgentId,
        reason: &str,
        now: WallTime,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        check_label(reason)?;
        let subject = Subject::Agent(agent);
        let known = self.revocations.contains(&subject);
        let before = self.level(&agent);
        let (by, reason) = (Revoker::Local, reason.to_owned());
        if !self.keep(RevocationRecord { subject, by, reason, at: now }) {
            return Err(ChangeError::Full { max: crate::MAX_REVOCATIONS });
        }
        if let Some(contact) = self.contacts.get_mut(&agent) {
            contact.trust_level = Level::Blocked;
        }
        if known {
            return Ok(Outcome::Unchanged);
        }
        events.push(TrustEvent::Revoked { subject });
        self.tell_level(agent, before, events);
        Ok(Outcome::Created)
    }

    fn learn(
        &mut self,
        revocation: &Revocation,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        let subject = revocation.subject;
        let known = self.revocations.get(&subject).map(|record| record.by);
        let before = match subject {
            Subject::Agent(agent) => Some((agent, self.level(&agent))),
            _ => None,
        };
        if !self.keep(RevocationRecord::from(revocation)) {
            return Err(ChangeError::Full { max: crate::MAX_REVOCATIONS });
        }
        match known {
            Some(Revoker::Local) => Ok(Outcome::Changed),
            Some(_) => Ok(Outcome::Unchanged),
            None => {
                events.push(TrustEvent::Revoked { subject });
                if let Some((agent, before)) = before {
                    self.tell_level(agent, before, events);
                }
                Ok(Outcome::Created)
            }
        }
    }

    fn put_machine(
        &mut self,
        agent: AgentId,
        machine: MachineId,
        label: Option<&str>,
        pinned: bool,
        now: WallTime,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        if let Some(label) = label {
            check_label(label)?;
        }
        let known = self.contacts.get(&agent);
        let record = known.and_then(|contact| contact.machine(&machine)).cloned();
        let new = record.is_none();
        if new && known.is_some_and(|contact| !contact.has_room()) {
            return Err(ChangeError::Full { max: crate::MAX_MACHINES });
        }
        let mut record = record.unwrap_or_else(|| MachineRecord::new(machine, now));
        record.pinned |= pinned;
        record.label = label.map(str::to_owned).or(record.label);
        let outcome = self.edit(agent, now, events, |contact| {
            match contact.machine_mut(&machine) {
                Some(there) => *there = record,
                // There is room: it was looked at above.
                None => contact.add_machine(record),
            }
            if pinned {
                contact.identity_type = IdentityType::Pinned;
            }
        })?;
        if pinned && outcome != Outcome::Unchanged {
            self.refused_moves.remove(&agent);
            events.push(TrustEvent::Pins { agent });
        }
        Ok(if new { Outcome::Created } else { outcome })
    }

    fn put_place(
        &mut self,
        agent: AgentId,
        machine: MachineId,
        addresses: &[SocketAddr],
        now: WallTime,
        events: &mut Vec<TrustEvent>,
    ) -> Result<Outcome, ChangeError> {
        let known = self.contacts.get(&agent);
        let new = known.is_none_or(|contact| contact.machine(&machine).is_none());
        if new && known.is_some_and(|contact| !contact.has_room()) {
            return Err(ChangeError::Full { max: crate::MAX_MACHINES });
        }
        let outcome = self.edit(agent, now, events, |contact| {
            if contact.machine(&machine).is_none() {
                contact.add_machine(MachineRecord::new(machine, now));
            }
            contact.put_place(&machine, addresses);
        })?;
        Ok(if new { Outcome::Created } else { outcome })
    }

    /// Changes a machine of a contact; the closure says whether anything changed, `None` that it is
    /// not there. Whether the contact is pinned follows from its machines.
    fn edit_machine(
        &mut self,
        agent: &AgentId,
        events: &mut Vec<TrustEvent>,
        change: impl FnOnce(&mut Contact) -> Option<bool>,
    ) -> Outcome {
        let Some(contact) = self.contacts.get_mut(agent) else { return Outcome::Missing };
        let pins = |contact: &Contact| contact.machines.iter().filter(|m| m.pinned).count();
        let before = pins(contact);
        let Some(changed) = change(contact) else { return Outcome::Missing };
        let after = pins(contact);
        if after > before {
            contact.identity_type = IdentityType::Pinned;
        } else if after == 0 && before > 0 && contact.identity_type == IdentityType::Pinned {
            contact.identity_type = IdentityType::Known;
        }
        if !changed {
            return Outcome::Unchanged;
        }
        events.push(TrustEvent::Contact { agent: *agent });
        if after != before {
            self.refused_moves.remove(agent);
            events.push(TrustEvent::Pins { agent: *agent });
        }
        Outcome::Changed
    }
}
