//! Starting the layers, the lowest first.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, MachineId, SeededRng, SystemClock, UserId};
use x0x_direct::outbox::Outbox;
use x0x_files::{Files, Seeks};
use x0x_gossip_membership::{Membership, MembershipConfig};
use x0x_gossip_pubsub::{Gossip, GossipConfig, LogStore};
use x0x_identity::{Identity, IdentityStore, SecretKey, SignedBinding};
use x0x_presence::Presence;
use x0x_rendezvous::{Discovery, DiscoveryConfig, Finding, LocalAgent};
use x0x_store::{SqliteStore, StoreConfig};
use x0x_transport::{
    ClosedNode, LocalHello, Node, Transport,
    interfaces::{NetworkWatch, SystemInterfaces, follow},
    lan::LanDiscovery,
    quic::{QuicConfig, QuicEngine, QuicMetrics},
};
use x0x_trust::{Trust, TrustEvents};

use crate::{
    Agent, AgentConfig, StartError, Storage,
    agent::Inner,
    certified::Certified,
    effects::Effects,
    files::{seek, start_files},
    groups::{self, start_groups},
    identity::Standing,
    lan, mail,
    objects::{open_kept, start_objects},
    owner, portmap,
    presence::{Below, reach_suspects, start_finding, start_presence, watch_contacts},
    proofs::{Keeper, PROOFS},
    reach::told_addresses,
    sealed_letters::start_letters,
    sought::Sought,
    topic_peers::keep_linked,
    topics::TopicNames,
    trust::{Gate, Notices, Subject},
};

/// The database in the data folder.
pub(crate) const DATABASE: &str = "x0x.db";
/// The contacts in the data folder.
const CONTACTS: &str = "contacts.json";
/// How long the binding shown in session hellos is valid.
const BINDING_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The age at which it is renewed.
const BINDING_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// How often its age is looked at. Validity is wall time while timers stand still in a suspended
/// machine and know nothing of a clock that was set, so a timer of the renewal's length would show
/// peers an expired binding for hours.
const BINDING_CHECK: Duration = Duration::from_secs(60);

/// Starts an [`Agent`].
#[derive(Debug)]
pub struct AgentBuilder {
    config: AgentConfig,
    clock: Arc<dyn Clock>,
}

impl AgentBuilder {
    pub(crate) fn new(config: AgentConfig) -> Self {
        Self { config, clock: Arc::new(SystemClock::new()) }
    }

    /// Uses another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Loads the keys, making them on the first start, opens the socket, and starts every layer.
    /// Joining the network goes on after this returns.
    ///
    /// # Errors
    /// [`StartError`]: unusable key files, a socket that cannot be opened, or a folder that cannot
    /// be written.
    pub async fn start(self) -> Result<Agent, StartError> {
        let Self { config, clock } = self;
        let ((keys, identity), store, trust) = open(&config, &clock).await?;
        let (machine_id, agent_id, user_id) = ids(&identity);
        let gate = Gate::new(trust.clone(), agent_id, identity.generation);
        let changes = trust.events(); // from before the first session on
        let network = watch_network(&config);
        let (closed, engine_metrics, seed) =
            prepare_node(&config, &identity, &gate, &clock, network.clone())?;
        let node = Arc::new(closed.node().clone());
        let lan = network.as_ref().and_then(|network| lan::start(&config, &node, network, &clock));
        let transport: Arc<dyn Transport> = Arc::<Node>::clone(&node);
        let membership = start_membership(&config, Arc::clone(&transport), &clock, seed)?;
        let key = Arc::new(identity.agent.clone());
        let gossip =
            start_gossip(&config, &membership, &key, store.as_ref(), &transport, &clock, seed)?;
        let groups = start_groups(&config, &gossip, &transport, key, &gate, &clock)?;
        let objects = start_objects(&config, &gossip, store.as_ref(), agent_id, &clock).await;
        let (files, seeks) = start_files(&config, agent_id, &transport, &trust, &clock).await?;
        let stop = CancellationToken::new();
        let started = mail::start(&config, store.as_ref(), &gate, transport, &clock, &stop).await?;
        let agent = &identity.agent;
        let below =
            Below { node: &node, membership: &membership, agent, gate: &gate, clock: &clock, seed };
        let (presence, finding, discovery) =
            start_seeing(&config, &identity, &gossip, &below).await?;
        let letters = start_letters(&config, &identity, &started, &below).await?;
        let mail::Started { direct, mail, itself, tasks, .. } = started;
        let kem_public = identity.agent_kem.public_key().as_bytes().to_vec();
        let standing = standing(&config, keys, identity, &gossip, &gate, &clock);
        let effects = effects(&gate, &node, &discovery, &presence, &mail.outbox, &files, changes);
        let inner = Inner {
            agent_id,
            machine_id,
            user_id,
            kem_public,
            started: clock.now(),
            clock,
            role: config.role,
            pure_pq: config.pure_pq,
            relays: config.sessions.relay.enabled,
            node,
            engine_metrics,
            port_maps: Arc::default(),
            lan: lan.as_ref().map(|lan| Arc::clone(lan.metrics())),
            membership,
            gossip,
            objects,
            groups,
            store,
            direct,
            letters,
            files,
            presence,
            finding,
            discovery,
            mail,
            trust,
            standing,
            sought: Sought::default(),
            topics: TopicNames::default(),
            tasks: tokio::sync::Mutex::new(tasks),
            stop,
        };
        let agent = Agent { inner: Arc::new(inner) };
        start_tasks(&agent, &itself, effects, seeks).await;
        drop(closed.open()); // every layer has its consumer: nothing that a peer says first is lost
        start_lan(&agent, &config, network, lan).await;
        Ok(agent)
    }
}

/// The machine's links, unless only this machine is to be talked to: nobody else is on a loopback.
fn watch_network(config: &AgentConfig) -> Option<NetworkWatch> {
    (!config.bind.ip().is_loopback()).then(|| follow(SystemInterfaces::open()))
}

/// What goes on beside the layers, until the agent stops.
async fn start_tasks(
    agent: &Agent,
    itself: &OnceLock<Weak<Inner>>,
    effects: Effects,
    seeks: Seeks,
) {
    let inner = &agent.inner;
    // Nobody else sets it.
    let _ = itself.set(Arc::downgrade(inner));
    let (standing, clock, stop) = (&inner.standing, &inner.clock, &inner.stop);
    inner.tasks.lock().await.extend([
        tokio::spawn(effects.run(stop.clone())),
        renew_bindings(&inner.node, Arc::clone(standing), Arc::clone(clock), stop.clone()),
        tokio::spawn(standing.notices.clone().run(Arc::clone(standing), stop.clone())),
        watch_contacts(inner.presence.clone(), inner.trust.clone(), stop.clone()),
        tokio::spawn(reach_suspects(agent.clone(), stop.clone())),
        keep_linked(
            Arc::clone(&inner.gossip),
            inner.finding.clone(),
            Arc::clone(clock),
            stop.clone(),
        ),
        tokio::spawn(seek(agent.clone(), seeks, stop.clone())),
        tokio::spawn(open_kept(agent.clone(), stop.clone())),
        tokio::spawn(groups::run(agent.clone(), stop.clone())),
    ]);
}

/// What follows the machine's links.
async fn start_lan(
    agent: &Agent,
    config: &AgentConfig,
    network: Option<NetworkWatch>,
    lan: Option<LanDiscovery>,
) {
    let Some(network) = network else { return };
    let (inner, stop) = (&agent.inner, &agent.inner.stop);
    let mut tasks = inner.tasks.lock().await;
    if config.port_mapping {
        let Inner { node, port_maps, clock, .. } = &**inner;
        tasks.extend(portmap::start(node, port_maps, network.clone(), clock, stop));
    }
    let moves = lan::follow_moves(agent.clone(), network.clone());
    tasks.push(tokio::spawn(stop.clone().run_until_cancelled_owned(moves).map(drop)));
    if let Some(lan) = lan {
        tasks.push(tokio::spawn(lan::meet(agent.clone(), lan, network, stop.clone())));
    }
}

/// What sees others, and is seen by them.
async fn start_seeing(
    config: &AgentConfig,
    identity: &Identity,
    gossip: &Arc<Gossip>,
    below: &Below<'_>,
) -> Result<(Presence, Finding, Discovery), StartError> {
    let presence = start_presence(below, config.presence.clone())?;
    // An endpoint bound to loopback can only have peers on this machine.
    let finding =
        start_finding(below, identity.generation, config.role, config.bind.ip().is_loopback())?;
    let discovery = start_discovery(config, identity, gossip, below).await?;
    Ok((presence, finding.clone(), discovery.with_finding(finding)))
}

/// Who this is.
fn ids(identity: &Identity) -> (MachineId, AgentId, Option<UserId>) {
    let Identity { machine, agent, user, .. } = identity;
    let user = user.as_ref().map(|key| key.public_key().user_id());
    (machine.public_key().machine_id(), agent.public_key().agent_id(), user)
}

/// What follows a change of trust.
fn effects(
    gate: &Gate,
    node: &Arc<Node>,
    discovery: &Discovery,
    presence: &Presence,
    outbox: &Outbox,
    files: &Files,
    events: TrustEvents,
) -> Effects {
    let (gate, node) = (gate.clone(), Arc::clone(node));
    let (discovery, presence) = (discovery.clone(), presence.clone());
    let (outbox, files) = (outbox.clone(), files.clone());
    Effects { gate, node, discovery, presence, outbox, files, events }
}

/// Keys, database and contacts, each on a thread of its own.
async fn open(
    config: &AgentConfig,
    clock: &Arc<dyn Clock>,
) -> Result<((IdentityStore, Identity), Option<SqliteStore>, Trust), StartError> {
    let (identity, store, trust) =
        tokio::join!(load_identity(config, clock), open_store(config), open_trust(config, clock));
    Ok((identity?, store?, trust?))
}

/// Key files are read and written on a blocking thread. A user certifies the agent here, when there
/// is one and it is time.
async fn load_identity(
    config: &AgentConfig,
    clock: &Arc<dyn Clock>,
) -> Result<(IdentityStore, Identity), StartError> {
    let (dir, user_key) = (config.identity_dir.clone(), config.user_key.clone());
    let (now, data) = (clock.wall(), config.kept_in());
    let load = move || {
        let mut store = IdentityStore::open(dir)?;
        if let Some(data) = &data {
            owner::expect_key(data, store.has_agent())?;
        }
        if let Some(path) = user_key {
            store = store.with_user_key(path);
        }
        let mut identity = store.load_or_create()?;
        if let Some(data) = &data {
            owner::claim(data, identity.agent.public_key().agent_id())?;
        }
        identity.certificate = store.certify(&identity, now)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((store, identity))
    };
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(error)) => Err(StartError::Identity(error)),
        Err(error) => Err(StartError::Identity(error.into())),
    }
}

pub(crate) fn layer<E>(layer: &'static str) -> impl FnOnce(E) -> StartError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| StartError::Layer { layer, source: error.into() }
}

/// The machines' random choices only have to differ between nodes and runs.
fn seed(machine: MachineId, instance: &[u8; 16]) -> [u8; 32] {
    let mut seed = *machine.as_bytes();
    seed[..16].copy_from_slice(instance);
    seed
}

fn binding(identity: &Identity, clock: &dyn Clock) -> Bytes {
    let Identity { agent, machine, generation, .. } = identity;
    let machine = machine.public_key().machine_id();
    let now = clock.wall();
    SignedBinding::issue_moved(agent, machine, *generation, now, BINDING_VALIDITY).encode()
}

/// The sessions to be, what the socket counts, and the seed of the layers above.
type Transported = (ClosedNode, Arc<QuicMetrics>, [u8; 32]);

/// Opens the socket.
fn prepare_node(
    config: &AgentConfig,
    identity: &Identity,
    gate: &Gate,
    clock: &Arc<dyn Clock>,
    network: Option<NetworkWatch>,
) -> Result<Transported, StartError> {
    let mut quic = QuicConfig::new(config.bind, identity.machine.clone());
    quic.pure_pq = config.pure_pq;
    quic.clock = Arc::clone(clock);
    quic.network = network;
    quic.streams = config.streams.clone();
    let engine = QuicEngine::bind(quic).map_err(|error| StartError::Transport(error.into()))?;
    let metrics = engine.metrics();
    let hello = LocalHello::random(&*config.network, vec![binding(identity, &**clock)])
        .map_err(|error| StartError::Transport(error.to_string().into()))?;
    let seed = seed(identity.machine.public_key().machine_id(), &hello.instance);
    let (sessions, clock) = (config.sessions.clone(), Arc::clone(clock));
    let node = Node::prepare(engine, sessions, hello, clock, Arc::new(gate.clone()));
    Ok((node, metrics, seed))
}

/// What this node says of itself and others, and in whose name.
fn standing(
    config: &AgentConfig,
    store: IdentityStore,
    identity: Identity,
    gossip: &Arc<Gossip>,
    gate: &Gate,
    clock: &Arc<dyn Clock>,
) -> Arc<Standing> {
    let (gossip, gate, clock) = (Arc::clone(gossip), gate.clone(), Arc::clone(clock));
    let proofs = config.kept_in().map(|data| data.join(PROOFS));
    let share = *identity.machine.public_key().machine_id().as_bytes();
    let (machine, agent, user) = ids(&identity);
    let own = [Subject::Machine(machine), Subject::Agent(agent)];
    let own: Vec<Subject> = own.into_iter().chain(user.map(Subject::User)).collect();
    gate.trust.claim(&own);
    let keeper = Keeper::new(proofs, share, &own, Arc::clone(&clock));
    let certified = Certified::new(identity.certificate.clone());
    Arc::new(Standing {
        identity,
        store,
        data: config.kept_in(),
        notices: Notices { gossip, gate, keeper, clock, refused: Arc::default() },
        certified,
        loopback: config.bind.ip().is_loopback(),
        disclosed: false.into(),
    })
}

fn start_gossip(
    config: &AgentConfig,
    membership: &Membership,
    key: &Arc<SecretKey>,
    store: Option<&SqliteStore>,
    transport: &Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
    seed: [u8; 32],
) -> Result<Arc<Gossip>, StartError> {
    let mut gossip = GossipConfig::new(&config.network, SeededRng::from_seed(seed).next_u64());
    gossip.limits = config.gossip.clone();
    gossip.neighbors = Some(Arc::new(membership.clone()));
    gossip.store = store.map(|store| Arc::new(store.clone()) as Arc<dyn LogStore>);
    Gossip::start(Arc::clone(transport), Arc::clone(key), gossip, Arc::clone(clock))
        .map(Arc::new)
        .map_err(layer("gossip-pubsub"))
}

/// Reads the contacts; damaged ones are repaired or told.
async fn open_trust(config: &AgentConfig, clock: &Arc<dyn Clock>) -> Result<Trust, StartError> {
    match config.storage {
        Storage::Memory => Ok(Trust::in_memory(Arc::clone(clock))),
        Storage::Disk => {
            let path = config.data_dir.join(CONTACTS);
            Trust::open(path, Arc::clone(clock)).await.map_err(layer("trust"))
        }
    }
}

/// Opens the database on its own thread; a damaged one is set aside by it.
async fn open_store(config: &AgentConfig) -> Result<Option<SqliteStore>, StartError> {
    match config.storage {
        Storage::Memory => Ok(None),
        Storage::Disk => {
            let mut store = StoreConfig::at(config.data_dir.join(DATABASE));
            store.max_bytes = config.store_bytes;
            store.mail_durability = config.mail_durability;
            SqliteStore::open(store).await.map(Some).map_err(layer("store"))
        }
    }
}

async fn start_discovery(
    config: &AgentConfig,
    identity: &Identity,
    gossip: &Arc<Gossip>,
    below: &Below<'_>,
) -> Result<Discovery, StartError> {
    let addresses = Arc::clone(below.node);
    let local = LocalAgent {
        key: identity.agent.clone(),
        machine: below.node.local_id(),
        generation: identity.generation,
        // Told in notices, with the certificate that proves it.
        user: None,
        addresses: Box::new(move || told_addresses(&*addresses)),
    };
    let settings = DiscoveryConfig {
        heartbeat: config.heartbeat,
        freshness: config.announcement_ttl,
        // An endpoint bound to loopback can only have peers on this machine.
        allow_loopback: config.bind.ip().is_loopback(),
        ..DiscoveryConfig::default()
    };
    let (policy, clock) = (Arc::new(below.gate.clone()), Arc::clone(below.clock));
    Discovery::start(Arc::<Gossip>::clone(gossip), local, policy, clock, settings)
        .await
        .map_err(layer("rendezvous"))
}

fn start_membership(
    config: &AgentConfig,
    transport: Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
    seed: [u8; 32],
) -> Result<Membership, StartError> {
    let settings = MembershipConfig {
        bootstrap: config.bootstrap.clone(),
        cache_file: Some(config.data_dir.join("peer_cache/peers.json")),
        ..MembershipConfig::default()
    };
    Membership::start(transport, settings, Arc::clone(clock), seed)
        .map_err(layer("gossip-membership"))
}

/// Shows peers a fresh binding long before the old one expires, and after the clock was set back.
fn renew_bindings(
    node: &Arc<Node>,
    standing: Arc<Standing>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut issued = clock.wall();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BINDING_CHECK) => {}
            }
            let now = clock.wall();
            if now < issued || now >= issued + BINDING_RENEWAL {
                node.set_bindings(vec![binding(&standing.identity, &*clock)]);
                issued = now;
            }
        }
    })
}
