//! Members of a group over a log in memory that loses, delays and reorders, and parts them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use x0x_core::{AgentId, SeededRng, WallTime};
use x0x_identity::{SecretKey, testing};
use x0x_mls::{Groups, MlsGroups, ordering::Standing, testing::MemoryStore, verify_key_package};
use zeroize::Zeroizing;

use crate::{
    error::SessionError,
    policy::GroupPolicy,
    session::{Happened, NamedGroups},
    wire::{GroupId, Profile},
};

/// The time in a swarm.
pub const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

/// A member's groups.
pub type Member = NamedGroups<Groups<Arc<MemoryStore>>>;

/// The key of an agent of a swarm.
#[must_use]
pub fn key(n: usize) -> SecretKey {
    testing::key(n as u64 + 1)
}

/// An agent of a swarm.
#[must_use]
pub fn agent(n: usize) -> AgentId {
    key(n).public_key().agent_id()
}

/// The hash of a member's state, and a secret of its epoch.
pub type At = (Option<[u8; 32]>, Option<Vec<u8>>);

fn open(n: usize, disk: &Disk) -> Result<Member, SessionError> {
    let key = Arc::new(key(n));
    let groups = Groups::open(Arc::clone(&disk.keys), Arc::clone(&key), NOW)?;
    Ok(NamedGroups::over(groups, key))
}

/// What survives the end of a member's process.
#[derive(Debug, Default)]
struct Disk {
    keys: Arc<MemoryStore>,
    operations: BTreeMap<u32, Bytes>,
    spoken: BTreeMap<[u8; 16], Zeroizing<Vec<u8>>>,
}

/// Agents, a group that the first founded, and its log.
#[derive(Debug)]
pub struct Swarm {
    /// Decides what happens.
    pub rng: SeededRng,
    /// The group.
    pub group: GroupId,
    /// The agents' groups.
    pub members: Vec<Member>,
    /// What each has on its disk.
    disks: Vec<Disk>,
    /// All that was published.
    pub log: Vec<Bytes>,
    /// What each has not heard.
    pub unheard: Vec<Vec<usize>>,
    /// What each has read, by author and the author's name for it.
    pub read: Vec<BTreeSet<(AgentId, [u8; 16])>>,
    /// The side that each is on.
    pub sides: Vec<u8>,
    /// Who came back by an own commit: what it had not read of the epochs before is lost to it.
    pub returned: BTreeSet<usize>,
    /// How often each was told of something that it cannot read.
    pub unreadable: Vec<usize>,
    /// What was sent to all.
    pub texts: u64,
}

impl Swarm {
    /// A group that the first of some agents founded.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn new(seed: u64, agents: usize, policy: GroupPolicy) -> Result<Self, SessionError> {
        let disks: Vec<Disk> = (0..agents).map(|_| Disk::default()).collect();
        let opened: Result<Vec<Member>, _> =
            disks.iter().enumerate().map(|(n, disk)| open(n, disk)).collect();
        let mut members = opened?;
        let profile = Profile { name: "swarm".into(), ..Profile::default() };
        let group = members[0].found(policy, profile, [7; 32], "0", NOW)?;
        let mut swarm = Self {
            rng: SeededRng::from_number(seed),
            group,
            members,
            disks,
            log: Vec::new(),
            unheard: vec![Vec::new(); agents],
            read: vec![BTreeSet::new(); agents],
            sides: vec![0; agents],
            returned: BTreeSet::new(),
            unreadable: vec![0; agents],
            texts: 0,
        };
        swarm.publish(0);
        Ok(swarm)
    }

    /// Writes down what a member has to remember.
    fn save(&mut self, n: usize) {
        let (member, disk) = (&mut self.members[n], &mut self.disks[n]);
        let unsaved = member.unsaved().into_iter();
        disk.operations.extend(unsaved.map(|unsaved| (unsaved.number, unsaved.operation)));
        for spoken in member.spoken() {
            match &spoken.record {
                Some(record) => drop(disk.spoken.insert(spoken.id, record.clone())),
                None => drop(disk.spoken.remove(&spoken.id)),
            }
        }
        let _ = member.saved();
    }

    /// A member's process ends, before it publishes what it has to, and begins again. It is given the whole log anew.
    ///
    /// # Errors
    /// [`SessionError`] when what it kept is not good.
    pub fn restart(&mut self, n: usize) -> Result<(), SessionError> {
        let disk = &self.disks[n];
        let mut member = open(n, disk)?;
        let operations: Vec<Bytes> = disk.operations.values().cloned().collect();
        if !operations.is_empty() {
            member.restore(&operations)?;
        }
        for (id, record) in &disk.spoken {
            member.remember(self.group, *id, record);
        }
        let told = member.resume();
        self.members[n] = member;
        for (_, happened) in told {
            self.note(n, &happened);
        }
        let _ = self.members[n].say_again(self.group);
        self.unheard[n] = (0..self.log.len()).collect();
        self.publish(n);
        Ok(())
    }

    /// Puts what a member has to publish into the log.
    pub fn publish(&mut self, by: usize) {
        self.save(by);
        for (journal, item) in self.members[by].take_outgoing(self.group) {
            self.log.push(item);
            let last = self.log.len() - 1;
            for (n, unheard) in self.unheard.iter_mut().enumerate() {
                if n != by {
                    unheard.push(last);
                }
            }
            if let Some(journal) = journal {
                let _ = self.members[by].mls().acknowledge(&[journal]);
            }
        }
    }

    /// An agent comes in by an invite that a member makes.
    ///
    /// # Errors
    /// [`SessionError`] when a step of it fails.
    pub fn bring_in(&mut self, by: usize, n: usize, seed: [u8; 32]) -> Result<(), SessionError> {
        let link = self.members[by].invite(self.group, seed, None, 1, NOW)?;
        let statement = self.members[n].redeem(&link, &n.to_string(), NOW)?;
        let package = self.members[n].key_packages(1, NOW)?.swap_remove(0);
        let package = verify_key_package(&package, NOW).map_err(x0x_mls::GroupError::from)?;
        let handover = self.members[by].admit_redeemed(statement, Some(package), NOW)?;
        self.publish(by);
        let before = self.epoch(n);
        let entered = self.members[n].enter(self.group, &handover);
        if handover.welcome.is_empty() && self.epoch(n) != before {
            self.returned.insert(n);
        }
        self.note(n, entered.as_deref().unwrap_or_default());
        self.publish(n);
        entered.map(drop)
    }

    /// A member hears one item of its side, whichever. Whether there was one.
    pub fn hear(&mut self, n: usize) -> bool {
        if self.unheard[n].is_empty() {
            return false;
        }
        let at = self.rng.below(self.unheard[n].len());
        let item = self.unheard[n].swap_remove(at);
        self.take(n, item);
        true
    }

    fn take(&mut self, n: usize, item: usize) {
        let item = self.log[item].clone();
        let happened = self.members[n].receive(self.group, &item).unwrap_or_default();
        self.note(n, &happened);
        self.publish(n);
    }

    fn note(&mut self, n: usize, happened: &[Happened]) {
        for event in happened {
            match event {
                Happened::Text { journal, author, id, .. } => {
                    self.read[n].insert((*author, *id));
                    let _ = self.members[n].mls().acknowledge(&[*journal]);
                }
                Happened::Unreadable { .. } => self.unreadable[n] += 1,
                _ => {}
            }
        }
    }

    /// A member writes.
    ///
    /// # Errors
    /// [`SessionError`] when it may not.
    pub fn write(&mut self, n: usize) -> Result<[u8; 16], SessionError> {
        self.texts += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.texts.to_be_bytes());
        let sent = self.members[n].send(self.group, "", id, Bytes::from_static(b"text"));
        self.publish(n);
        sent?;
        self.read[n].insert((agent(n), id));
        Ok(id)
    }

    /// Everybody hears all it has not heard, members tell each other the operations they lack, and do what
    /// is left to be done. Whether anything happened.
    pub fn round(&mut self) -> bool {
        let before = (self.log.len(), self.states());
        for n in 0..self.members.len() {
            while self.hear(n) {}
        }
        for n in 0..self.members.len() {
            for m in 0..self.members.len() {
                self.tell(n, m);
            }
        }
        for n in 0..self.members.len() {
            if self.members[n].turn(self.group).is_some() {
                let _ = self.members[n].follow(self.group);
                self.publish(n);
                for m in 0..self.members.len() {
                    while self.hear(m) {}
                }
            }
        }
        before != (self.log.len(), self.states())
    }

    /// One tells another the operations that it lacks.
    pub fn tell(&mut self, n: usize, m: usize) {
        if n == m || self.members[n].view(self.group).is_err() {
            return;
        }
        let heads: Vec<_> = {
            let known = self.members[m].chains().lock();
            let Some(chain) = known.chains.get(&self.group) else { return };
            chain.heads().collect()
        };
        let Ok(lacks) = self.members[n].since(self.group, agent(m), &heads) else { return };
        if lacks.is_empty() {
            return;
        }
        let happened = self.members[m].catch_up(self.group, &lacks).unwrap_or_default();
        self.note(m, &happened);
        self.publish(m);
    }

    /// Who is in the group by the first member's state.
    #[must_use]
    pub fn active(&self) -> Vec<usize> {
        let view = self.members[0].view(self.group);
        let view = view.unwrap_or_default();
        (0..self.members.len()).filter(|n| view.role(&agent(*n)).is_some()).collect()
    }

    fn secret(&mut self, n: usize) -> Option<Vec<u8>> {
        let keys = self.members[n].view(self.group).ok()?.mls_group?;
        let mls = self.members[n].mls();
        mls.members(keys).ok()?.1.contains(&agent(n)).then_some(())?;
        mls.export(keys, "swarm", b"", 32).ok().map(|secret| secret.to_vec())
    }

    fn epoch(&mut self, n: usize) -> u64 {
        let keys = self.members[n].view(self.group).ok().and_then(|view| view.mls_group);
        let known = keys.and_then(|keys| self.members[n].mls().members(keys).ok());
        known.map_or(0, |(epoch, _)| epoch)
    }

    /// What each is in, to be printed when they do not come together.
    pub fn describe(&mut self) -> String {
        let states = self.states();
        let lines = states.into_iter().enumerate().map(|(n, (state, secret))| {
            let role = self.members[0].view(self.group).ok().and_then(|v| v.role(&agent(n)));
            let short = |bytes: Option<&[u8]>| bytes.map(|b| b[..2].to_vec());
            let standing = self.members[n].standing(self.group).ok();
            let differs = self.members[n].difference(self.group).ok();
            let counts = differs.map(|(many, few)| (many.len(), few.len()));
            format!(
                "{n}: {role:?} state {:?} epoch {} {:?} {standing:?} many, few {counts:?}\n",
                short(state.as_ref().map(|s| &s[..])),
                self.epoch(n),
                short(secret.as_deref()),
            )
        });
        lines.collect()
    }

    /// Of each, the hash of its state and a secret of its epoch.
    pub fn states(&mut self) -> Vec<At> {
        (0..self.members.len())
            .map(|n| {
                let view = self.members[n].view(self.group).ok();
                (view.map(|view| view.state_hash()), self.secret(n))
            })
            .collect()
    }

    /// Rounds until nothing happens any more, and whoever fell behind comes back. The rounds it took; none
    /// when it did not end.
    pub fn settle(&mut self) -> Option<usize> {
        for round in 1..60 {
            let moved = self.round();
            let returned = self.come_back();
            if !moved && !returned {
                return Some(round);
            }
        }
        None
    }

    /// Whoever is in the group and not in the epoch that most are in comes in by an own commit, once it knows.
    fn come_back(&mut self) -> bool {
        let (active, group) = (self.active(), self.group);
        let mut stand = Vec::new();
        for n in active {
            let behind = self.members[n].standing(group).ok() == Some(Standing::Behind);
            stand.push((n, self.secret(n), behind, self.epoch(n)));
        }
        let count = |secret: &Option<Vec<u8>>| stand.iter().filter(|of| of.1 == *secret).count();
        let keyed = stand.iter().filter(|(_, secret, ..)| secret.is_some());
        let ahead = keyed.max_by_key(|(n, secret, behind, epoch)| {
            (!behind, count(secret), *epoch, std::cmp::Reverse(*n))
        });
        let Some((ahead, most, ..)) = ahead.cloned() else { return false };
        for (n, secret, behind, _) in stand {
            if secret == most {
                continue;
            }
            // Who was welcomed into what fell knows of no fork until the others go on.
            if !behind && secret.is_some() {
                if let Ok(view) = self.members[ahead].view(group)
                    && let Some(keys) = view.mls_group
                {
                    let _ = self.members[ahead].refresh(group, keys);
                    self.publish(ahead);
                }
                return true;
            }
            if let Ok(handover) = self.members[ahead].invitation(group, agent(n)) {
                let entered = self.members[n].enter(group, &handover).unwrap_or_default();
                self.note(n, &entered);
                self.returned.insert(n);
                self.publish(n);
            }
            return true;
        }
        false
    }

    /// That all who are in the group have one state, one epoch, and read the same.
    ///
    /// # Panics
    /// When they do not.
    pub fn assert_one(&mut self) {
        let active = self.active();
        let states = self.states();
        let first = &states[active[0]];
        assert!(first.1.is_some(), "the first has keys");
        for n in &active {
            assert_eq!(states[*n].0, first.0, "the state of {n}");
            assert_eq!(states[*n].1, first.1, "the epoch of {n}");
        }
        let view = self.members[0].view(self.group).unwrap_or_default();
        let keys = view.mls_group.unwrap_or(x0x_mls::GroupId([0; 32]));
        let (_, members) = self.members[0].mls().members(keys).unwrap_or_default();
        let members: BTreeSet<AgentId> = members.into_iter().collect();
        let expected: BTreeSet<AgentId> = active.iter().map(|n| agent(*n)).collect();
        assert_eq!(members, expected, "who has the keys");
    }
}
