//! What this node keeps for others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{MachineId, Tick};

use super::volunteers::Site;
use crate::{
    config::{MAX_HELD_BYTES, MAX_PER_KEY, MAX_PER_PROVIDER, RECORD_VALIDITY},
    key::LookupKey,
};

/// Counted for each record beside its bytes.
const OVERHEAD: usize = 256;

#[derive(Debug)]
struct Held {
    sealed: Bytes,
    expires: Tick,
    /// From where it was filed.
    near: bool,
    site: Option<Site>,
}

/// Who files a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filer {
    pub(super) machine: MachineId,
    /// It is on this site: its record may name addresses that are nobody else's business.
    pub(super) near: bool,
    /// The network that its packets come from.
    pub(super) site: Option<Site>,
}

/// What the machines of one network have here, under keys of agents or of topics.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    by_provider: BTreeMap<MachineId, BTreeSet<(Tick, LookupKey)>>,
}

/// Records by key and by who filed them.
#[derive(Debug)]
pub(super) struct Holder {
    /// Most bytes.
    room: usize,
    records: BTreeMap<(LookupKey, MachineId), Held>,
    by_provider: BTreeMap<MachineId, BTreeSet<(Tick, LookupKey)>>,
    /// By whether the keys are of topics, and by network.
    by_site: BTreeMap<(bool, Option<Site>), Share>,
    by_expiry: BTreeSet<(Tick, LookupKey, MachineId)>,
    bytes: usize,
    /// Those under keys of topics, among them.
    topic_bytes: usize,
}

impl Holder {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room: room.min(MAX_HELD_BYTES),
            records: BTreeMap::new(),
            by_provider: BTreeMap::new(),
            by_site: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            bytes: 0,
            topic_bytes: 0,
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.by_expiry.first().map(|(at, ..)| *at)
    }

    pub(super) fn expire(&mut self, now: Tick) {
        while let Some((_, key, from)) = self.by_expiry.first().filter(|first| first.0 <= now) {
            let (key, from) = (*key, *from);
            self.remove(key, from);
        }
    }

    /// What is kept under a key; what is near only for those who are.
    pub(super) fn records(&self, now: Tick, key: &LookupKey, near: bool) -> Vec<Bytes> {
        let all = (*key, MachineId::new([0; 32]))..=(*key, MachineId::new([0xff; 32]));
        let of = self.records.range(all).map(|(_, held)| held);
        of.filter(|held| held.expires > now && (near || !held.near))
            .map(|held| held.sealed.clone())
            .collect()
    }

    /// Keeps a record instead of the one before from the same machine.
    pub(super) fn keep(
        &mut self,
        now: Tick,
        filer: Filer,
        key: LookupKey,
        sealed: Bytes,
        lifetime: Duration,
    ) {
        let Filer { machine: from, near, site } = filer;
        self.remove(key, from);
        self.make_room(key, filer, sealed.len() + OVERHEAD);
        let expires = now + lifetime.min(RECORD_VALIDITY);
        self.bytes += sealed.len() + OVERHEAD;
        self.topic_bytes += if key.is_topic() { sealed.len() + OVERHEAD } else { 0 };
        let share = self.by_site.entry((key.is_topic(), site)).or_default();
        share.bytes += sealed.len() + OVERHEAD;
        share.by_provider.entry(from).or_default().insert((expires, key));
        self.by_expiry.insert((expires, key, from));
        self.by_provider.entry(from).or_default().insert((expires, key));
        self.records.insert((key, from), Held { sealed, expires, near, site });
    }

    /// Who gives up its place under a full key: of the network with the most records there, the one that
    /// expires first. Ids cost nothing, so that one network's must not displace all others'.
    fn crowding(&self, key: LookupKey, site: Option<Site>) -> Option<MachineId> {
        let all = (key, MachineId::new([0; 32]))..=(key, MachineId::new([0xff; 32]));
        let mut shares = BTreeMap::from([(site, 1)]);
        for (_, held) in self.records.range(all.clone()) {
            *shares.entry(held.site).or_default() += 1;
        }
        let full = shares.values().sum::<usize>() > MAX_PER_KEY;
        let rank = |(_, held): &(&(LookupKey, MachineId), &Held)| {
            (Reverse(shares.get(&held.site).copied()), held.expires)
        };
        let first = self.records.range(all).filter(|_| full).min_by_key(rank);
        first.map(|((_, machine), _)| *machine)
    }

    fn make_room(&mut self, key: LookupKey, filer: Filer, bytes: usize) {
        let from = filer.machine;
        if let Some(machine) = self.crowding(key, filer.site) {
            self.remove(key, machine);
        }
        if let Some(own) = self.by_provider.get(&from)
            && own.len() >= MAX_PER_PROVIDER
            && let Some((_, key)) = own.first().copied()
        {
            self.remove(key, from);
        }
        while self.bytes + bytes > self.room {
            let Some((key, machine)) = self.greediest() else { return };
            self.remove(key, machine);
        }
    }

    /// What makes room when all of it is taken: of the network that takes most, and there of the machine
    /// with the most records, the one that expires first. So whoever makes machines without end on one
    /// network displaces nobody but themselves. Half of the room is for agents, whom nobody finds otherwise:
    /// topics that take more give it back first.
    fn greediest(&self) -> Option<(LookupKey, MachineId)> {
        let topics = self.topic_bytes > self.room / 2;
        let shares = self.by_site.iter().filter(|((of_topic, _), _)| *of_topic || !topics);
        let (_, share) = shares.max_by_key(|(_, share)| share.bytes)?;
        let (machine, own) = share.by_provider.iter().max_by_key(|(_, own)| own.len())?;
        own.first().map(|(_, key)| (*key, *machine))
    }

    fn remove(&mut self, key: LookupKey, from: MachineId) {
        let Some(held) = self.records.remove(&(key, from)) else { return };
        let bytes = held.sealed.len() + OVERHEAD;
        self.bytes -= bytes;
        self.topic_bytes -= if key.is_topic() { bytes } else { 0 };
        self.by_expiry.remove(&(held.expires, key, from));
        drop_from(&mut self.by_provider, from, (held.expires, key));
        let class = (key.is_topic(), held.site);
        if let Some(share) = self.by_site.get_mut(&class) {
            share.bytes -= bytes;
            drop_from(&mut share.by_provider, from, (held.expires, key));
            if share.by_provider.is_empty() {
                self.by_site.remove(&class);
            }
        }
    }
}

fn drop_from(
    by_provider: &mut BTreeMap<MachineId, BTreeSet<(Tick, LookupKey)>>,
    from: MachineId,
    record: (Tick, LookupKey),
) {
    if let Some(own) = by_provider.get_mut(&from) {
        own.remove(&record);
        if own.is_empty() {
            by_provider.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::TopicId;

    use super::*;
    use crate::key::Subject;

    fn machine(n: u64) -> MachineId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        MachineId::new(id)
    }

    fn key(n: u64) -> LookupKey {
        LookupKey::new(*machine(n).as_bytes())
    }

    const ROOM: usize = 8 * 1024 * 1024;
    const HOUR: Duration = Duration::from_secs(3600);

    fn keep(holder: &mut Holder, now: Tick, from: u64, k: u64, size: usize) {
        let filer = Filer { machine: machine(from), near: false, site: None };
        holder.keep(now, filer, key(k), vec![from as u8; size].into(), HOUR);
    }

    #[test]
    fn records_are_replaced_and_expire() {
        let (mut holder, now) = (Holder::new(ROOM), Tick::ZERO);
        keep(&mut holder, now, 1, 1, 100);
        keep(&mut holder, now, 1, 1, 200);
        keep(&mut holder, now, 2, 1, 300);
        let filer = Filer { machine: machine(3), near: true, site: None };
        holder.keep(now, filer, key(1), vec![3; 5].into(), HOUR);
        let sizes = |holder: &Holder, near| -> Vec<usize> {
            holder.records(now, &key(1), near).iter().map(Bytes::len).collect()
        };
        assert_eq!(sizes(&holder, false), [200, 300]);
        assert_eq!(sizes(&holder, true), [200, 300, 5], "of this site");
        let end = now + HOUR;
        assert!(holder.records(end, &key(1), true).is_empty());
        assert_eq!(holder.next(), Some(end));
        holder.expire(end);
        assert_eq!((holder.bytes(), holder.next()), (0, None));
        assert!(holder.by_provider.is_empty() && holder.by_site.is_empty());
    }

    #[test]
    fn one_network_takes_the_places_of_its_own_machines() {
        let (mut holder, mut now) = (Holder::new(ROOM), Tick::ZERO);
        let mut file = |n: u64, site: u8| {
            now = now + Duration::from_secs(1);
            let filer = Filer { machine: machine(n), near: false, site: Some([site, 0, 0, 0]) };
            holder.keep(now, filer, key(1), vec![site].into(), HOUR);
        };
        (1..=4).for_each(|n| file(n, n as u8));
        (100..200).for_each(|n| file(n, 9));
        let sites = holder.records(now, &key(1), false);
        let count = |site| sites.iter().filter(|held| held[0] == site).count();
        assert_eq!([1, 2, 3, 4].map(count), [1; 4], "whoever came first keeps its place");
        assert_eq!(count(9), MAX_PER_KEY - 4);
    }

    #[test]
    fn throwaway_machines_of_one_network_do_not_empty_the_room() {
        let (mut holder, mut now) = (Holder::new(ROOM), Tick::ZERO);
        let mut file = |n: u64, k: u64, site: u8, size: usize| {
            now = now + Duration::from_millis(1);
            let filer = Filer { machine: machine(n), near: false, site: Some([site, 0, 0, 0]) };
            holder.keep(now, filer, key(k), vec![site; size].into(), HOUR);
        };
        // The ids that would go first by themselves: one record each, and the largest.
        (0..200_u64).for_each(|n| file(u64::MAX - n, n, n as u8 % 8, 5000));
        (0..5000_u64).for_each(|n| file(1000 + n, 100_000 + n, 9, 6000));
        let left = (0..200).filter(|n| !holder.records(now, &key(*n), false).is_empty()).count();
        assert_eq!(left, 200, "who was there stays");
        assert!(holder.bytes() <= ROOM);
        let shares: usize = holder.by_site.values().map(|share| share.bytes).sum();
        assert_eq!(shares, holder.bytes());
    }

    #[test]
    fn topics_leave_agents_their_half() {
        let (mut holder, mut now) = (Holder::new(ROOM), Tick::ZERO);
        let mut file = |n: u64, key: LookupKey, site: u8| {
            now = now + Duration::from_millis(1);
            let filer = Filer { machine: machine(n), near: false, site: Some([site, 0, 0, 0]) };
            holder.keep(now, filer, key, vec![site; 6000].into(), HOUR);
        };
        // All agents on one network, and topics from many.
        (0..600_u64).for_each(|n| file(n, key(n), 1));
        for n in 1000..5000_u64 {
            let topic = Subject::Topic(TopicId::new(*machine(n).as_bytes()));
            file(n, LookupKey::of(&topic, 0), n as u8);
        }
        let left = (0..600).filter(|n| !holder.records(now, &key(*n), false).is_empty()).count();
        assert_eq!(left, 600);
        assert!(holder.bytes() > ROOM - 7000 && holder.bytes() <= ROOM, "topics have the rest");
    }

    #[test]
    fn nobody_takes_the_place_of_all() {
        let (mut holder, mut now) = (Holder::new(ROOM), Tick::ZERO);
        keep(&mut holder, now, 7, 1, 100);
        for n in 0..10_000_u64 {
            now = now + Duration::from_millis(1);
            keep(&mut holder, now, 1, 100 + n, 6000);
        }
        assert_eq!(holder.records.len(), 1 + MAX_PER_PROVIDER);
        for n in 0..10_000_u64 {
            keep(&mut holder, now, 1000 + n / 32, 100_000 + n, 6000);
        }
        assert!(holder.bytes() <= ROOM);
        assert_eq!(holder.records(now, &key(1), false).len(), 1, "one record never makes room");
        for n in 0..100 {
            keep(&mut holder, now, n, 5, 10);
        }
        assert_eq!(holder.records(now, &key(5), false).len(), MAX_PER_KEY);
    }
}
