//! Starting the layers, the lowest first.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, MachineId, SeededRng, SystemClock};
use x0x_direct::{Direct, DirectConfig, Inbox};
use x0x_gossip_membership::{Membership, MembershipConfig};
use x0x_gossip_pubsub::{Gossip, GossipConfig, LogStore};
use x0x_identity::{Identity, IdentityStore, SecretKey, SignedBinding};
use x0x_rendezvous::{Discovery, DiscoveryConfig, LocalAgent};
use x0x_store::{SqliteStore, StoreConfig};
use x0x_transport::{
    LocalHello, Node, Transport,
    quic::{QuicConfig, QuicEngine},
};

use crate::{
    Agent, AgentConfig, StartError, Storage, agent::Inner, mailbox::Mailbox, topics::TopicNames,
};

/// The database in the data folder.
const DATABASE: &str = "x0x.db";
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
        let identity = load_identity(&config).await?;
        let store = open_store(&config).await?;
        let machine_id = identity.machine.public_key().machine_id();
        let agent_id = identity.agent.public_key().agent_id();
        let user_id = identity.user.as_ref().map(|key| key.public_key().user_id());

        let mut quic = QuicConfig::new(config.bind, identity.machine.clone());
        quic.pure_pq = config.pure_pq;
        quic.clock = Arc::clone(&clock);
        let engine = QuicEngine::bind(quic).map_err(|error| StartError::Transport(error.into()))?;
        let engine_metrics = engine.metrics();
        let binding = binding(&identity.agent, machine_id, &*clock);
        let hello = LocalHello::random(&*config.network, vec![binding])
            .map_err(|error| StartError::Transport(error.to_string().into()))?;
        let seed = seed(machine_id, &hello.instance);
        let sessions = config.sessions.clone();
        let node = Arc::new(Node::start(engine, sessions, hello, Arc::clone(&clock)));
        let transport: Arc<dyn Transport> = Arc::<Node>::clone(&node);

        let membership = start_membership(&config, Arc::clone(&transport), &clock, seed)?;
        let mut gossip = GossipConfig::new(&config.network, SeededRng::from_seed(seed).next_u64());
        gossip.neighbors = Some(Arc::new(membership.clone()));
        gossip.store = store.clone().map(|store| Arc::new(store) as Arc<dyn LogStore>);
        let key = Arc::new(identity.agent.clone());
        let gossip = Gossip::start(Arc::clone(&transport), key, gossip, Arc::clone(&clock));
        let gossip = Arc::new(gossip.map_err(layer("gossip-pubsub"))?);
        let (direct, inbox) = Direct::start(
            Arc::clone(&transport),
            DirectConfig::new(vec![agent_id]),
            Arc::clone(&clock),
        )
        .map_err(layer("direct"))?;
        let discovery = start_discovery(&config, &identity, &gossip, &node, &clock).await?;

        let mailbox = Mailbox::new();
        let stop = CancellationToken::new();
        let tasks = vec![
            deliver(inbox, mailbox.clone()),
            renew_bindings(&node, identity.agent, machine_id, Arc::clone(&clock), stop.clone()),
        ];
        Ok(Agent {
            inner: Arc::new(Inner {
                agent_id,
                machine_id,
                user_id,
                kem_public: identity.agent_kem.public_key().as_bytes().to_vec(),
                started: clock.now(),
                clock,
                node,
                engine_metrics,
                membership,
                gossip,
                store,
                direct,
                discovery,
                mailbox,
                topics: TopicNames::default(),
                tasks: tokio::sync::Mutex::new(tasks),
                stop,
            }),
        })
    }
}

/// Key files are read and written on a blocking thread.
async fn load_identity(config: &AgentConfig) -> Result<Identity, StartError> {
    let dir = config.identity_dir.clone();
    let loaded =
        tokio::task::spawn_blocking(move || IdentityStore::open(dir)?.load_or_create()).await;
    match loaded {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(error)) => Err(StartError::Identity(error.into())),
        Err(error) => Err(StartError::Identity(error.into())),
    }
}

fn layer<E>(layer: &'static str) -> impl FnOnce(E) -> StartError
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

fn binding(agent: &SecretKey, machine: MachineId, clock: &dyn Clock) -> Bytes {
    SignedBinding::issue(agent, machine, clock.wall(), BINDING_VALIDITY).encode()
}

/// Opens the database on its own thread; a damaged one is set aside by it.
async fn open_store(config: &AgentConfig) -> Result<Option<SqliteStore>, StartError> {
    match config.storage {
        Storage::Memory => Ok(None),
        Storage::Disk => {
            let config = StoreConfig::at(config.data_dir.join(DATABASE));
            SqliteStore::open(config).await.map(Some).map_err(layer("store"))
        }
    }
}

async fn start_discovery(
    config: &AgentConfig,
    identity: &Identity,
    gossip: &Arc<Gossip>,
    node: &Arc<Node>,
    clock: &Arc<dyn Clock>,
) -> Result<Discovery, StartError> {
    let addresses = Arc::clone(node);
    let local = LocalAgent {
        key: identity.agent.clone(),
        machine: node.local_id(),
        // Told only with the user's consent, which no operation of this version asks for.
        user: None,
        addresses: Box::new(move || addresses.local_addresses()),
    };
    let settings = DiscoveryConfig {
        heartbeat: config.heartbeat,
        freshness: config.announcement_ttl,
        // An endpoint bound to loopback can only have peers on this machine.
        allow_loopback: config.bind.ip().is_loopback(),
        ..DiscoveryConfig::default()
    };
    Discovery::start(Arc::<Gossip>::clone(gossip), local, Arc::clone(clock), settings)
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

/// Moves messages from the direct layer's inbox into the mailbox; ends with the direct layer.
fn deliver(mut inbox: Inbox, mailbox: Mailbox) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(message) = inbox.next().await {
            mailbox.push(message).await;
        }
    })
}

/// Shows peers a fresh binding long before the old one expires, and after the clock was set back.
fn renew_bindings(
    node: &Arc<Node>,
    agent: SecretKey,
    machine: MachineId,
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
                node.set_bindings(vec![binding(&agent, machine, &*clock)]);
                issued = now;
            }
        }
    })
}
