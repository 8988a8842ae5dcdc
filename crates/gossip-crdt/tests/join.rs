//! A late joiner over real gossip: signed runs, reconciliation, sessions in memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use x0x_core::{Clock, PeerAddr};
use x0x_gossip_crdt::{
    Descriptor, Object as _, Objects, ObjectsConfig, Replica,
    testing::{MemoryCrdtStore, Sample, SampleOp},
};
use x0x_gossip_pubsub::{Gossip, GossipConfig, PubSub};
use x0x_identity::testing::key;
use x0x_transport::{
    Node, Transport,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, machine, node},
};

/// Writes under way at a time.
const AT_ONCE: usize = 200;

struct Peer {
    node: Node,
    objects: Objects,
}

fn peer(network: &MemoryNetwork, n: u64) -> Peer {
    let node = node(network, n);
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let transport: Arc<dyn Transport> = Arc::new(node.clone());
    let config = GossipConfig::new("test", n);
    let gossip = Gossip::start(transport, Arc::new(key(500 + n)), config, Arc::clone(&clock));
    let gossip = gossip.expect("the first service");
    let me = gossip.author();
    let pubsub: Arc<dyn PubSub> = Arc::new(gossip);
    let store = Arc::new(MemoryCrdtStore::default());
    Peer { node, objects: Objects::start(ObjectsConfig::new(pubsub, store, me, clock)) }
}

async fn open(peer: &Peer) -> Replica<Sample> {
    peer.objects.open(Descriptor::open(Sample::KIND, "shared")).await.expect("opened")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a figure to print; the clock of the runtime is not real"
)]
fn now() -> Instant {
    Instant::now()
}

/// One writes so many operations; then another one joins, and has them all.
async fn join(operations: usize) {
    let network = MemoryNetwork::new(1, LinkModel::default());
    let (writer, joiner) = (peer(&network, 1), peer(&network, 2));
    let written = open(&writer).await;
    for first in (0..operations).step_by(AT_ONCE) {
        let numbers = first..operations.min(first + AT_ONCE);
        let put = |n: usize| SampleOp::Put((n % 1000).to_string(), n.to_string());
        let writes = join_all(numbers.map(|n| written.write(put(n)))).await;
        assert!(writes.into_iter().all(|write| write.is_ok()));
    }
    let wanted = written.status().await.expect("open").hash;
    let began = now();
    let to = PeerAddr::known(machine(1), [address(1)]);
    joiner.node.connect(to).await.expect("a session");
    let joined = open(&joiner).await;
    let complete = async {
        while joined.status().await.expect("open").applied < operations as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), complete).await.expect("all of it comes");
    println!("{operations} operations after {:?}", began.elapsed());
    assert_eq!(joined.status().await.expect("open").hash, wanted);
}

#[tokio::test(start_paused = true)]
async fn who_joins_late_has_everything() {
    join(3_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes long without optimisation"]
async fn who_joins_an_object_of_50_000_operations_has_everything() {
    join(50_000).await;
}
