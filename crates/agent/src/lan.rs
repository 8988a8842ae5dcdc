//! Machines on the same links: they are dialled, and lead into the overlay like bootstrap peers.
//!
//! A link may have hundreds of machines, and anybody on it may announce as many as it likes. So strangers are
//! dialled one after the other, while few of those on the links have sessions or the overlay is short of
//! neighbours; a contact that says who it is is dialled in any case.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, MachineId, PeerAddr, Tick, TokenBucket};
use x0x_transport::{
    Node, Transport,
    interfaces::{Network, NetworkWatch},
    lan::{self, Find, Instance, LanConfig, LanDiscovery, SystemStation},
};
use x0x_trust::Level;

use crate::{Agent, AgentConfig};

/// Sessions with machines on the links from which on no further strangers are dialled there.
const NEAR_ENOUGH: usize = 8;
/// Neighbours below which they are dialled all the same: those near may all be of no use.
const NEIGHBOURS_ENOUGH: usize = 3;
/// Dials at once.
const MAX_DIALS: usize = 4;
/// Dials begun at once, and the time in which another may be.
const DIALS_BURST: u32 = 8;
const DIALS_REFILL: Duration = Duration::from_secs(2);
/// Names that are remembered as dialled; the oldest gives way.
const MAX_DIALLED: usize = 256;
/// How long a machine that was dialled is left alone.
const REST: Duration = Duration::from_secs(60);
/// Two machines find each other at once: the one with the greater address lets the other dial.
const HEAD_START: Duration = Duration::from_millis(400);
/// How often a machine without neighbours looks for others.
const LONELY: Duration = Duration::from_secs(30);

/// What is known when a machine was found.
#[derive(Debug, Clone, Copy)]
struct Around {
    /// Sessions with machines on the links.
    near: usize,
    /// Neighbours in the overlay.
    neighbours: usize,
    /// Whether it says that it is a contact's.
    contact: bool,
}

/// Which of the machines found are dialled.
#[derive(Debug)]
struct Choice {
    dialled: BTreeMap<Instance, Tick>,
    dials: TokenBucket,
}

impl Choice {
    const fn new(now: Tick) -> Self {
        Self { dialled: BTreeMap::new(), dials: TokenBucket::new(DIALS_BURST, DIALS_REFILL, now) }
    }

    /// Whether to dial this one; if so, it is noted.
    fn take(&mut self, now: Tick, instance: Instance, around: Around) -> bool {
        self.dialled.retain(|_, at| now.since(*at) < REST);
        let wanted =
            around.contact || around.near < NEAR_ENOUGH || around.neighbours < NEIGHBOURS_ENOUGH;
        if !wanted || self.dialled.contains_key(&instance) || !self.dials.take(now) {
            return false;
        }
        if self.dialled.len() >= MAX_DIALLED {
            let oldest = self.dialled.iter().min_by_key(|(_, at)| **at).map(|(name, _)| *name);
            oldest.map(|oldest| self.dialled.remove(&oldest));
        }
        self.dialled.insert(instance, now);
        true
    }
}

/// Announces this machine on its links, if it is to be.
pub(crate) fn start(
    config: &AgentConfig,
    node: &Node,
    network: &NetworkWatch,
    clock: &Arc<dyn Clock>,
) -> Option<LanDiscovery> {
    if !config.mdns {
        return None;
    }
    let port = node.local_addresses().first()?.port();
    let station = SystemStation::open()
        .inspect_err(|error| tracing::warn!(%error, "no discovery on the local links"))
        .ok()?;
    let mut lan = LanConfig::new(&config.network, SocketAddr::new(config.bind.ip(), port));
    lan.machine = config.mdns_announce_id.then(|| node.local_id());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .inspect_err(|error| tracing::warn!(%error, "no discovery on the local links"))
        .ok()?;
    Some(lan::start(station, network.clone(), lan, Arc::clone(clock), seed))
}

/// When this machine moves, those who pass its addresses on learn the new ones.
pub(crate) async fn follow_moves(agent: Agent, mut network: NetworkWatch) {
    let mut known = agent.local_addresses();
    while network.changed().await.is_ok() {
        let addresses = agent.local_addresses();
        if std::mem::replace(&mut known, addresses) == known {
            continue;
        }
        agent.inner.membership.refresh().await;
        if let Err(error) = agent.inner.discovery.announce().await {
            tracing::debug!(%error, "the new addresses are announced later");
        }
    }
}

/// Makes use of what is found.
pub(crate) async fn meet(
    agent: Agent,
    mut discovery: LanDiscovery,
    network: NetworkWatch,
    stop: CancellationToken,
) {
    let clock = Arc::clone(&agent.inner.clock);
    let (mut choice, mut dials) = (Choice::new(clock.now()), JoinSet::new());
    let mut lonely = tokio::time::interval(LONELY);
    lonely.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = dials.join_next() => {}
            find = discovery.next(), if dials.len() < MAX_DIALS => {
                let Some(find) = find else { break };
                let links = network.borrow().clone();
                let around = around(&agent, &find, &links);
                if !is_met(&agent, &find) && choice.take(clock.now(), find.instance, around) {
                    let waits = !goes_first(&agent.local_addresses(), &find, &links);
                    dials.spawn(dial(agent.clone(), find, waits));
                }
            }
            _ = lonely.tick() => {
                if agent.neighbors().is_empty() {
                    discovery.search();
                }
            }
        }
    }
    discovery.shutdown().await;
}

fn around(agent: &Agent, find: &Find, links: &Network) -> Around {
    let sessions = agent.sessions();
    let near = sessions.iter().filter(|session| links.is_on_link(session.remote_address.ip()));
    Around {
        near: near.count(),
        neighbours: agent.neighbors().len(),
        contact: find.machine.is_some_and(|machine| is_contacts(agent, &machine)),
    }
}

fn is_contacts(agent: &Agent, machine: &MachineId) -> bool {
    let contacts = agent.inner.trust.contacts();
    let mut known = contacts.iter().filter(|contact| contact.trust_level >= Level::Known);
    known.any(|contact| contact.machine(machine).is_some())
}

/// Whether there is a session with it.
fn is_met(agent: &Agent, find: &Find) -> bool {
    if find.machine == Some(agent.machine_id()) {
        return true;
    }
    agent.sessions().iter().any(|session| {
        let is_there = |address: &SocketAddr| find.addresses.contains(address);
        find.machine == Some(session.peer)
            || is_there(&session.remote_address)
            || session.listen_addresses.iter().any(is_there)
    })
}

/// Whether this end dials at once: of two, exactly one does, if each knows the other by one address.
fn goes_first(own: &[SocketAddr], find: &Find, links: &Network) -> bool {
    let Some(theirs) = find.addresses.first() else { return false };
    let port = own.first().map_or(0, SocketAddr::port);
    let mut near = links.interfaces().iter().filter(|interface| interface.contains(theirs.ip()));
    near.next().is_some_and(|near| SocketAddr::new(near.ip, port) < *theirs)
}

async fn dial(agent: Agent, find: Find, waits: bool) {
    if waits {
        tokio::time::sleep(HEAD_START).await;
        if is_met(&agent, &find) {
            return;
        }
    }
    let to = PeerAddr { id: find.machine, addresses: find.addresses };
    match agent.inner.node.connect(to).await {
        Ok(session) => {
            tracing::debug!(peer = %session.peer.short(), "met on the link");
            agent.inner.membership.introduce(session.peer_addr()).await;
        }
        Err(error) => tracing::debug!(instance = %find.instance, %error, "not met"),
    }
}

#[cfg(test)]
mod tests {
    use x0x_transport::interfaces::Interface;

    use super::*;

    const FEW: Around = Around { near: 0, neighbours: 0, contact: false };
    const MANY: Around = Around { near: NEAR_ENOUGH, neighbours: 9, contact: false };

    fn name(n: u16) -> Instance {
        let mut name = [0; 10];
        name[..2].copy_from_slice(&n.to_be_bytes());
        Instance(name)
    }

    fn secs(secs: u64) -> Tick {
        Tick::from_millis(secs * 1000)
    }

    #[test]
    fn strangers_are_dialled_while_there_is_need_and_contacts_always() {
        let mut choice = Choice::new(Tick::ZERO);
        assert!(choice.take(secs(0), name(1), FEW));
        assert!(!choice.take(secs(1), name(1), FEW), "it was dialled a moment ago");
        assert!(!choice.take(secs(1), name(2), MANY));
        assert!(choice.take(secs(1), name(2), Around { contact: true, ..MANY }));
        assert!(choice.take(secs(1), name(3), Around { neighbours: 1, ..MANY }));
        assert!(choice.take(secs(1), name(4), Around { near: 1, ..MANY }));
        assert!(choice.take(secs(61), name(1), FEW), "it is tried again");
    }

    #[test]
    fn a_crowd_is_dialled_one_after_the_other() {
        let mut choice = Choice::new(Tick::ZERO);
        let at_once = (0..1000).filter(|n| choice.take(secs(0), name(*n), FEW)).count();
        assert_eq!(at_once, DIALS_BURST as usize);
        let later = (0..1000).filter(|n| choice.take(secs(20), name(*n), FEW)).count();
        assert_eq!(later, DIALS_BURST as usize);
        for n in 0..60_000 {
            choice.take(secs(100 + u64::from(n) / 10), name(n), FEW);
        }
        assert!(choice.dialled.len() <= MAX_DIALLED);
    }

    #[test]
    fn of_two_that_find_each_other_one_goes_first() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        for (a, b) in [("10.0.0.1:5483", "10.0.0.2:5483"), ("10.0.0.1:5483", "10.0.0.1:5484")] {
            let (a, b) = (at(a), at(b));
            let first = |own: SocketAddr, other: SocketAddr| {
                let links = Network::new([Interface::new(2, own.ip(), 24)]);
                goes_first(&[own], &Find::new(name(1), vec![other]), &links)
            };
            assert!(first(a, b) && !first(b, a));
        }
    }
}
