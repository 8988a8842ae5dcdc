//! An object that outlives its log: its owner makes checkpoints, the log lets go of what is behind them, and
//! who was away, or comes late, has everything.

use std::{sync::Arc, time::Duration};

use x0x_core::{AgentId, Clock, PeerAddr, WallTime};
use x0x_gossip_crdt::{
    CHECKPOINT_BYTES, Descriptor, Object as _, Objects, ObjectsConfig, PolicyChange, Replica,
    kv::{KvOp, KvStore, Put},
    testing::MemoryCrdtStore,
};
use x0x_gossip_pubsub::{
    Gossip, GossipConfig, PubSub,
    testing::{LocalHub, LocalPubSub},
};
use x0x_identity::testing::key;
use x0x_transport::{
    Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, machine, node},
};

/// What a topic's log takes, in the fake as in pubsub.
const LOG: u64 = 16 * 1024 * 1024;
const VALUE: usize = 60_000;
/// Values that make more than a log takes.
const VALUES: usize = 320;

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn local(hub: &LocalHub, n: u8, store: &MemoryCrdtStore) -> Objects {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    hub.set_wall(clock.wall());
    let pubsub = Arc::new(hub.author(agent(n)));
    Objects::start(ObjectsConfig::new(pubsub, Arc::new(store.clone()), agent(n), clock))
}

async fn open(objects: &Objects, owner: AgentId) -> Replica<KvStore> {
    let object = Descriptor::owned(KvStore::KIND, "shared", owner);
    objects.open::<KvStore>(object).await.expect("opened")
}

/// Puts one of a few large values; waits where a checkpoint has to come first.
async fn put(replica: &Replica<KvStore>, n: usize) {
    let value = format!("{n:06}").repeat(VALUE / 6);
    let op = KvOp::Put(Put::new(format!("key-{}", n % 10), value));
    for _ in 0..1000 {
        match replica.write(op.clone()).await {
            Ok(_) => return,
            Err(x0x_gossip_crdt::WriteError::Full) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{n} is not taken: {:?}", replica.status().await);
}

/// Waits until replicas are equal.
async fn agree(replicas: &[&Replica<KvStore>]) {
    for _ in 0..4000 {
        let mut hashes = Vec::new();
        for replica in replicas {
            hashes.push(replica.status().await.expect("open").hash);
        }
        if hashes.iter().all(|hash| *hash == hashes[0]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for replica in replicas {
        println!("{:?}", replica.status().await);
    }
    panic!("they differ");
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_on_beyond_its_log() {
    let hub = LocalPubSub::hub();
    hub.set_durable_limit(LOG);
    let stores = [1, 2, 3, 4].map(|_| MemoryCrdtStore::default());
    let (first, second) = (local(&hub, 1, &stores[0]), local(&hub, 2, &stores[1]));
    let third = local(&hub, 3, &stores[2]);
    let (owner, writer) = (open(&first, agent(1)).await, open(&second, agent(1)).await);
    let everyone = PolicyChange::Rules { kind: 0, everyone: true };
    owner.change_policy(everyone).await.expect("it is the owner");
    let away = open(&third, agent(1)).await;
    agree(&[&owner, &away, &writer]).await;
    away.write(KvOp::Put(Put::new("away".to_owned(), "kept"))).await.expect("written");
    third.shutdown().await;
    for n in 0..VALUES {
        put(if n % 2 == 0 { &owner } else { &writer }, n).await;
    }
    agree(&[&owner, &writer]).await;
    assert!((VALUES * VALUE) as u64 > LOG);
    let id = Descriptor::owned(KvStore::KIND, "shared", agent(1)).id();
    for n in [1, 2] {
        let held = hub.durable_bytes(id, agent(n));
        assert!(held < 4 * CHECKPOINT_BYTES, "{n} holds {held} bytes");
    }
    let status = writer.status().await.expect("open");
    assert!(status.checkpoint > 4, "{status:?}");
    let third = local(&hub, 3, &stores[2]);
    let (away, late) = (open(&third, agent(1)).await, local(&hub, 4, &stores[3]));
    let late = open(&late, agent(1)).await;
    agree(&[&owner, &away, &late]).await;
    let value = |store: &KvStore| store.get("away", WallTime::from_millis(0)).is_some();
    assert!(late.read(value).await.expect("open"), "what was written long ago is there");
    put(&late, 1).await;
    put(&away, 2).await;
    agree(&[&owner, &writer, &away, &late]).await;
    // The next start begins with what was stored.
    second.shutdown().await;
    let writer = open(&local(&hub, 2, &stores[1]), agent(1)).await;
    agree(&[&owner, &writer]).await;
}

#[tokio::test(start_paused = true)]
async fn who_joins_over_gossip_has_what_the_log_let_go() {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let peer = |n: u64| {
        let node = node(&network, n);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let transport: Arc<dyn Transport> = Arc::new(node.clone());
        let config = GossipConfig::new("test", n);
        let gossip = Gossip::start(transport, Arc::new(key(500 + n)), config, Arc::clone(&clock));
        let gossip = gossip.expect("the first service");
        let me = gossip.author();
        let pubsub: Arc<dyn PubSub> = Arc::new(gossip);
        let store = Arc::new(MemoryCrdtStore::default());
        (node, Objects::start(ObjectsConfig::new(pubsub, store, me, clock)), me)
    };
    let (writer, joiner) = (peer(1), peer(2));
    let written = open(&writer.1, writer.2).await;
    written.write(KvOp::Put(Put::new("early".to_owned(), "kept"))).await.expect("written");
    for n in 0..VALUES {
        put(&written, n).await;
    }
    let status = written.status().await.expect("open");
    assert!(status.checkpoint > 4, "{status:?}");
    joiner.0.connect(PeerAddr::known(machine(1), [address(1)])).await.expect("a session");
    let joined = open(&joiner.1, writer.2).await;
    agree(&[&written, &joined]).await;
    assert!(
        joined
            .read(|store: &KvStore| store.get("early", WallTime::from_millis(0)).is_some())
            .await
            .expect("open")
    );
    put(&written, 0).await;
    agree(&[&written, &joined]).await;
}
