//! Whom the policy refuses: machines get no session, agents are not counted as proven.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, PeerAddr, Protocol};
use x0x_identity::{AgentBinding, BindingPolicy, Shown, testing::key};
use x0x_transport::{
    Node, SessionConfig, Transport,
    testing::{
        LinkModel, MemoryNetwork, TokioClock, address, agent_key, eventually, hello, machine, node,
    },
};

#[derive(Debug, Default)]
struct Refusals {
    machines: Mutex<BTreeSet<MachineId>>,
    agents: Mutex<BTreeSet<AgentId>>,
    preferred: Mutex<BTreeSet<AgentId>>,
}

impl BindingPolicy for Refusals {
    fn accepts(&self, binding: &AgentBinding, shown: Shown) -> bool {
        assert_eq!(shown, Shown::Session);
        !self.agents.lock().unwrap_or_else(PoisonError::into_inner).contains(&binding.agent)
    }

    fn refuses(&self, machine: &MachineId) -> bool {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).contains(machine)
    }

    fn prefers(&self, agent: &AgentId) -> bool {
        self.preferred.lock().unwrap_or_else(PoisonError::into_inner).contains(agent)
    }
}

fn at(n: u64) -> PeerAddr {
    PeerAddr::known(machine(n), [address(n)])
}

fn agent(n: u64) -> AgentId {
    key(agent_key(n)).public_key().agent_id()
}

#[tokio::test(start_paused = true)]
async fn whoever_is_preferred_finds_a_place_among_strangers() {
    let network = MemoryNetwork::new(3, LinkModel::default());
    let policy = Arc::new(Refusals::default());
    policy.preferred.lock().expect("not poisoned").insert(agent(9));
    let mut config = SessionConfig::default();
    config.max_sessions = 4;
    let (engine, clock) = (network.engine(machine(1), address(1)), Arc::new(TokioClock::new()));
    let a = Node::start_with(engine, config, hello(1, 0), clock, policy);
    let others: Vec<Node> = (2..=5).map(|n| node(&network, n)).collect();
    for other in &others {
        drop(other.connect(at(1)).await);
    }
    assert_eq!(a.sessions().len(), 3, "a quarter of the places is kept from strangers");
    let friend = node(&network, 9);
    friend.connect(at(1)).await.expect("preferred");
    eventually("four", async || a.sessions().len() == 4).await;
}

fn guarded(network: &MemoryNetwork, n: u64, policy: &Arc<Refusals>) -> Node {
    let engine = network.engine(machine(n), address(n));
    let (config, clock) = (SessionConfig::default(), Arc::new(TokioClock::new()));
    Node::start_with(engine, config, hello(n, 0), clock, policy.clone())
}

#[tokio::test(start_paused = true)]
async fn a_refused_machine_gets_no_session_from_either_side() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let policy = Arc::new(Refusals::default());
    let (a, b) = (guarded(&network, 1, &policy), node(&network, 2));
    policy.machines.lock().expect("not poisoned").insert(machine(2));
    a.connect(at(2)).await.expect_err("refused");
    eventually("refused again", async || {
        // An arbiter may have its session for a moment.
        drop(b.connect(at(1)).await);
        a.metrics().hellos_refused_policy.value() >= 2
    })
    .await;
    eventually("none", async || a.sessions().is_empty() && b.sessions().is_empty()).await;
    policy.machines.lock().expect("not poisoned").clear();
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    a.connect(at(2)).await.expect("accepted again");
}

#[tokio::test(start_paused = true)]
async fn an_expelled_peer_comes_back_without_its_refused_agent() {
    let network = MemoryNetwork::new(2, LinkModel::default());
    let policy = Arc::new(Refusals::default());
    let (a, b) = (guarded(&network, 1, &policy), node(&network, 2));
    let session = a.connect(at(2)).await.expect("connects");
    assert_eq!(session.agents, [agent(2)]);

    policy.agents.lock().expect("not poisoned").insert(agent(2));
    let mut at_b = b.inbound(Protocol::Direct).expect("free");
    a.disconnect(machine(2));
    a.expel(machine(2));
    eventually("cut off", async || a.sessions().is_empty() && b.sessions().is_empty()).await;
    assert_eq!(a.metrics().sessions_expelled.value(), 1, "harder than the disconnect before it");
    let late = a.try_send(machine(2), Protocol::Direct, Bytes::from_static(b"late"));
    late.expect_err("there is no session");
    while let Ok(event) = at_b.try_recv() {
        assert!(!format!("{event:?}").contains("Message"), "{event:?}");
    }
    let again = b.connect(at(1)).await.expect("the machine itself is welcome");
    assert_eq!(again.agents, [agent(1)]);
    eventually("up", async || a.session(machine(2)).is_some_and(|it| it.agents.is_empty())).await;
}
