//! The mailboxes that this agent gave, and those that it was given.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use x0x_core::{AgentId, MachineId, WallTime};
use x0x_identity::{
    KemSecret, Mailboxes, Pickup, SecretKey, SignedBinding, Tag, mailbox_period, mailbox_period_end,
};

use super::super::{
    collector::Mailbox,
    config::{MAX_CORRESPONDENTS, MAX_GRANTS, MAX_MACHINES},
    letter::{OpenLetterError, Opened, open},
    store::{LetterChange, Met},
    wire::{Digest, Grant, Listed},
};

/// How long a letter may be on its way: a period's mailboxes are looked into so long after the last
/// letter was sealed to them.
const LONGEST_WAY: Duration = Duration::from_secs(8 * 24 * 3600);
/// How long the binding in letters holds, and how soon it is made anew.
const BINDING_VALIDITY: Duration = Duration::from_secs(9 * 24 * 3600);
const BINDING_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// Mailboxes that are asked for at least, so that few correspondents look like some.
const MIN_ASKED: usize = 16;
/// How exactly it is recorded when an agent was met.
const MET_INTERVAL: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Boxes {
    key: SecretKey,
    generation: u64,
    machine: MachineId,
    own: Mailboxes,
    kems: BTreeMap<u64, KemSecret>,
    period: Option<u64>,
    /// See [`MAX_GRANTS`].
    grants: BTreeMap<AgentId, Grant>,
    /// See [`MAX_CORRESPONDENTS`].
    met: BTreeMap<(AgentId, MachineId), WallTime>,
    binding: Option<(WallTime, Arc<SignedBinding>)>,
}

impl Boxes {
    pub(super) fn new(
        key: SecretKey,
        generation: u64,
        machine: MachineId,
        grants: Vec<Grant>,
        met: Vec<Met>,
    ) -> Self {
        // What was given to another machine is of no use on this one.
        let grants = grants.into_iter().filter(|grant| grant.machine == machine).take(MAX_GRANTS);
        let met = met.into_iter().take(MAX_CORRESPONDENTS);
        Self {
            own: key.mailboxes(),
            key,
            generation,
            machine,
            kems: BTreeMap::new(),
            period: None,
            grants: grants.map(|grant| (grant.owner, grant)).collect(),
            met: met.map(|met| ((met.agent, met.machine), met.at)).collect(),
            binding: None,
        }
    }

    pub(super) fn local(&self) -> AgentId {
        self.key.public_key().agent_id()
    }

    pub(super) const fn machine(&self) -> MachineId {
        self.machine
    }

    pub(super) fn grants(&self) -> usize {
        self.grants.len()
    }

    /// Whether another period began since this was asked last.
    pub(super) fn new_period(&mut self, wall: WallTime) -> bool {
        let period = mailbox_period(wall);
        self.period.replace(period).is_some_and(|before| before != period)
    }

    /// The periods in whose mailboxes there may be letters: this one, the one before, whose grants
    /// still count, and the one before that while letters of its end are on their way.
    fn periods(wall: WallTime) -> impl Iterator<Item = u64> + Clone {
        let now = mailbox_period(wall);
        let late = now > 1 && wall < mailbox_period_end(now - 1) + LONGEST_WAY;
        (now.saturating_sub(1 + u64::from(late))..=now).rev()
    }

    fn kem(&mut self, period: u64) -> &KemSecret {
        while self.kems.len() > 3 {
            self.kems.pop_first();
        }
        self.kems.entry(period).or_insert_with(|| self.own.kem(period))
    }

    /// What an agent on a machine is given now; nothing for this one itself. Only contacts are told by
    /// what holders are ranked.
    pub(super) fn grant(
        &mut self,
        (to, machine): (AgentId, MachineId),
        is_contact: bool,
        wall: WallTime,
    ) -> Option<Grant> {
        let owner = self.local();
        if to == owner {
            return None;
        }
        let period = mailbox_period(wall);
        Some(Grant {
            owner,
            correspondent: to,
            machine,
            period,
            kem: self.kem(period).public_key().clone(),
            secret: self.own.secret(&to, &machine, period),
            places: is_contact.then(|| self.own.places(period)),
        })
    }

    /// An agent on a machine was given a mailbox. What is to be recorded.
    pub(super) fn met(
        &mut self,
        (agent, machine): (AgentId, MachineId),
        wall: WallTime,
        is_contact: impl Fn(&AgentId) -> bool,
    ) -> Vec<LetterChange> {
        let known = self.met.get(&(agent, machine));
        if known.is_some_and(|at| wall < *at + MET_INTERVAL) {
            return Vec::new();
        }
        let mut changes = vec![LetterChange::Met(Met { agent, machine, at: wall })];
        if known.is_none() {
            let of_agent = self.met.iter().filter(|((known, _), _)| *known == agent);
            let oldest = if of_agent.clone().count() >= MAX_MACHINES {
                of_agent.min_by_key(|(_, at)| **at)
            } else if self.met.len() >= MAX_CORRESPONDENTS {
                self.met.iter().min_by_key(|((agent, _), at)| (is_contact(agent), **at))
            } else {
                None
            };
            if let Some((agent, machine)) = oldest.map(|(oldest, _)| *oldest) {
                self.met.remove(&(agent, machine));
                changes.push(LetterChange::DropMet { agent, machine });
            }
        }
        self.met.insert((agent, machine), wall);
        changes
    }

    /// An agent gave a mailbox. What is to be recorded. Strangers do not push out contacts.
    pub(super) fn granted(
        &mut self,
        grant: Grant,
        is_contact: impl Fn(&AgentId) -> bool,
    ) -> Vec<LetterChange> {
        if self
            .grants
            .get(&grant.owner)
            .is_some_and(|known| *known == grant || known.period > grant.period)
        {
            return Vec::new();
        }
        let mut changes = vec![LetterChange::Grant(grant.clone())];
        if self.grants.len() >= MAX_GRANTS && !self.grants.contains_key(&grant.owner) {
            let oldest = self
                .grants
                .values()
                .map(|known| (is_contact(&known.owner), known))
                .min_by_key(|(contact, known)| (*contact, known.period));
            if let Some((contact, oldest)) = oldest.map(|(contact, known)| (contact, known.owner)) {
                if contact && !is_contact(&grant.owner) {
                    return Vec::new();
                }
                self.grants.remove(&oldest);
                changes.push(LetterChange::DropGrant(oldest));
            }
        }
        self.grants.insert(grant.owner, grant);
        changes
    }

    /// The mailbox that an agent gave, unless it is so old that the agent looks into it no more.
    pub(super) fn grant_of(&self, agent: &AgentId, wall: WallTime) -> Option<&Grant> {
        let timely = |grant: &&Grant| grant.period + 1 >= mailbox_period(wall);
        self.grants.get(agent).filter(timely)
    }

    /// Who signs letters, and the proof of where it runs.
    pub(super) fn signer(&mut self, wall: WallTime) -> (SecretKey, Arc<SignedBinding>) {
        if let Some((made, binding)) = &self.binding
            && *made <= wall
            && wall < *made + BINDING_RENEWAL
        {
            return (self.key.clone(), Arc::clone(binding));
        }
        let (machine, generation) = (self.machine, self.generation);
        let signed =
            SignedBinding::issue_moved(&self.key, machine, generation, wall, BINDING_VALIDITY);
        let signed = Arc::new(signed);
        self.binding = Some((wall, Arc::clone(&signed)));
        (self.key.clone(), signed)
    }

    /// By what holders of letters for this agent are ranked.
    pub(super) fn places(&self, wall: WallTime) -> Vec<[u8; 32]> {
        Self::periods(wall).map(|period| self.own.places(period)).collect()
    }

    /// What opens a mailbox of this agent at a holder.
    pub(super) fn pickup(&self, mailbox: &Mailbox, holder: &MachineId) -> Pickup {
        self.own.secret(&mailbox.from, &mailbox.machine, mailbox.period).pickup(holder)
    }

    /// All mailboxes of this agent in which there may be letters.
    fn mailboxes(&self, wall: WallTime) -> impl Iterator<Item = Mailbox> + '_ {
        let of = move |(from, machine): &(AgentId, MachineId)| {
            let (from, machine) = (*from, *machine);
            Self::periods(wall).map(move |period| Mailbox { from, machine, period })
        };
        self.met.keys().flat_map(of)
    }

    /// All of them, among others that open nothing: who is asked does not learn how many there are.
    pub(super) fn pickups(&self, holder: &MachineId, wall: WallTime) -> Vec<Pickup> {
        let mut pickups: Vec<Pickup> =
            self.mailboxes(wall).map(|mailbox| self.pickup(&mailbox, holder)).collect();
        if pickups.is_empty() {
            return pickups;
        }
        let padded = pickups.len().next_power_of_two().max(MIN_ASKED);
        for number in pickups.len()..padded {
            let mut nobody = [0xff; 32];
            nobody[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let (from, period) = (AgentId::new(nobody), mailbox_period(wall));
            pickups.push(self.pickup(&Mailbox { from, machine: *holder, period }, holder));
        }
        pickups.sort_unstable_by_key(|pickup| *pickup.as_bytes());
        pickups
    }

    /// Whose letters a holder lists, and whether they are wanted. What was not asked for is left out.
    pub(super) fn senders(
        &self,
        holder: &MachineId,
        letters: &[Listed],
        wall: WallTime,
        wanted: impl Fn(&AgentId, &MachineId) -> bool,
    ) -> Vec<(Mailbox, Digest, bool)> {
        if letters.is_empty() {
            return Vec::new();
        }
        let tag = |mailbox: Mailbox| (self.pickup(&mailbox, holder).tag(), mailbox);
        let tags: BTreeMap<Tag, Mailbox> = self.mailboxes(wall).map(tag).collect();
        let sender = |letter: &Listed| {
            let mailbox = *tags.get(&letter.tag)?;
            Some((mailbox, letter.digest, wanted(&mailbox.from, &mailbox.machine)))
        };
        letters.iter().filter_map(sender).collect()
    }

    /// Opens a letter that lay in a mailbox of this agent.
    pub(super) fn open(
        &mut self,
        sealed: &[u8],
        mailbox: &Mailbox,
        wall: WallTime,
    ) -> Result<Opened, OpenLetterError> {
        let Mailbox { from, machine, period } = mailbox;
        let local = self.local();
        let secret = self.own.secret(from, machine, *period);
        open(sealed, (self.kem(*period), &secret), (from, machine), &local, wall)
    }
}

#[cfg(test)]
mod tests {
    use x0x_identity::testing::key;

    use super::*;

    #[test]
    fn strangers_do_not_push_out_the_mailboxes_of_contacts() {
        let wall = WallTime::from_millis(1_800_000_000_000);
        let agent = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            AgentId::new(id)
        };
        let boxes = |n| Boxes::new(key(n), 0, MachineId::new([1; 32]), Vec::new(), Vec::new());
        let to = (boxes(1).local(), MachineId::new([1; 32]));
        let given = boxes(2).grant(to, true, wall).expect("to another");
        let of =
            |n, later| Grant { owner: agent(n), period: given.period + later, ..given.clone() };
        let mut boxes = boxes(1);
        let known = 10;
        let is_contact = |who: &AgentId| (0..known).any(|n| agent(n) == *who);
        for n in 0..known {
            assert_eq!(boxes.granted(of(n, 0), is_contact).len(), 1);
        }
        for n in known..known + 2 * MAX_GRANTS as u64 {
            boxes.granted(of(n, 1), is_contact);
        }
        assert_eq!(boxes.grants(), MAX_GRANTS);
        assert!((0..known).all(|n| boxes.grant_of(&agent(n), wall).is_some()));
        // When there are only contacts, a stranger's is not taken, and a contact's is.
        let changes = boxes.granted(of(9_999, 1), |who| *who != agent(9_999));
        assert_eq!((changes.len(), boxes.grants()), (0, MAX_GRANTS));
        let changes = boxes.granted(of(9_999, 1), |_| true);
        assert_eq!((changes.len(), boxes.grants()), (2, MAX_GRANTS));
    }
    #[test]
    fn an_agent_on_many_machines_pushes_out_none_but_its_own() {
        let wall = WallTime::from_millis(1_800_000_000_000);
        let machine = |n: u8| MachineId::new([n; 32]);
        let mut boxes = Boxes::new(key(1), 0, machine(0), Vec::new(), Vec::new());
        let (many, other) = (AgentId::new([7; 32]), AgentId::new([8; 32]));
        let is_contact = |_: &AgentId| false;
        boxes.met((other, machine(1)), wall, is_contact);
        for n in 0..=MAX_MACHINES as u8 {
            let later = wall + Duration::from_secs(u64::from(n) + 1);
            let changes = boxes.met((many, machine(n)), later, is_contact);
            assert_eq!(changes.len(), 1 + usize::from(usize::from(n) == MAX_MACHINES));
        }
        assert_eq!(boxes.met.len(), 1 + MAX_MACHINES);
        assert!(boxes.met.contains_key(&(other, machine(1))));
        assert!(!boxes.met.contains_key(&(many, machine(0))), "the oldest of its own");
    }

    #[test]
    fn ranks_are_told_to_contacts_alone_and_mailboxes_hold_for_one_machine() {
        let wall = WallTime::from_millis(1_800_000_000_000);
        let machine = |n: u8| MachineId::new([n; 32]);
        let boxes = |n, at, grants| Boxes::new(key(n), 0, machine(at), grants, Vec::new());
        let (mut owner, to) = (boxes(1, 1, Vec::new()), key(2).public_key().agent_id());
        let mut granted = |at, contact| owner.grant((to, machine(at)), contact, wall);
        let [stranger, contact, elsewhere] =
            [(2, false), (2, true), (3, true)].map(|(at, is)| granted(at, is).expect("another"));
        assert_eq!((stranger.places, contact.places.is_some()), (None, true));
        assert_ne!(contact.secret, elsewhere.secret);
        // A store that moves with its agent holds what was given to the machine before.
        let moved = boxes(2, 3, vec![contact.clone()]);
        assert_eq!(moved.grants(), 0);
        assert_eq!(boxes(2, 2, vec![contact]).grants(), 1);
    }
}
