//! The service over the fake of pubsub and the fake store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use x0x_core::{AgentId, Clock, ManualClock, WallTime};
use x0x_gossip_crdt::{
    Descriptor, Note, Object as _, Objects, ObjectsConfig, OpenError, PolicyChange, Reason,
    Replica, WriteContext, WriteError,
    testing::{MemoryCrdtStore, Sample, SampleOp, check_crdt_store},
};
use x0x_gossip_pubsub::testing::{LocalHub, LocalPubSub};

const WALL: WallTime = WallTime::from_millis(1_800_000_000_000);

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn objects(hub: &LocalHub, n: u8, store: &MemoryCrdtStore) -> Objects {
    hub.set_wall(WALL);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(WALL));
    let pubsub = Arc::new(hub.author(agent(n)));
    Objects::start(ObjectsConfig::new(pubsub, Arc::new(store.clone()), agent(n), clock))
}

fn shared() -> Descriptor {
    Descriptor::open(Sample::KIND, "shared")
}

/// Waits until two replicas are equal.
async fn agree(one: &Replica<Sample>, two: &Replica<Sample>) {
    for _ in 0..2000 {
        let (a, b) = (one.status().await.expect("open"), two.status().await.expect("open"));
        if a.hash == b.hash && a.in_flight + b.in_flight == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?} and {:?}", one.status().await, two.status().await);
}

fn put(key: &str, value: &str) -> SampleOp {
    SampleOp::Put(key.to_owned(), value.to_owned())
}

async fn value(replica: &Replica<Sample>, key: &'static str) -> Option<String> {
    let read = |state: &Sample| Some(state.values.get(key)?.winner()?.1.clone());
    replica.read(read).await.expect("open")
}

#[tokio::test(start_paused = true)]
async fn what_one_writes_the_other_reads_and_a_late_joiner_too() {
    let hub = LocalPubSub::hub();
    let stores = [1, 2, 3].map(|_| MemoryCrdtStore::default());
    let hers = objects(&hub, 1, &stores[0]).open::<Sample>(shared()).await.expect("opened");
    let his = objects(&hub, 2, &stores[1]).open::<Sample>(shared()).await.expect("opened");
    let mut watch = his.watch(None);
    hers.write(put("a", "1")).await.expect("written");
    assert_eq!(value(&hers, "a").await.as_deref(), Some("1"), "applied when it is answered");
    agree(&hers, &his).await;
    let (number, note) = watch.next().await.expect("open");
    assert!(matches!(note, Note::Changed(change) if change.author == agent(1)));
    his.write(put("a", "2")).await.expect("written");
    agree(&hers, &his).await;
    assert_eq!(value(&hers, "a").await.as_deref(), Some("2"));
    let (next, note) = his.watch(Some(number)).next().await.expect("open");
    assert!(matches!(note, Note::Changed(change) if change.author == agent(2)));
    assert_eq!(next, number + 1, "who comes back goes on");
    let late = objects(&hub, 3, &stores[2]).open::<Sample>(shared()).await.expect("opened");
    assert_eq!(value(&late, "a").await.as_deref(), Some("2"), "all is there when it is opened");
    agree(&hers, &late).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_conditional_writes_one_holds() {
    let (hub, store) = (LocalPubSub::hub(), MemoryCrdtStore::default());
    let replica = objects(&hub, 1, &store).open::<Sample>(shared()).await.expect("opened");
    let claims = (0..20).map(|n| {
        let replica = replica.clone();
        tokio::spawn(async move {
            let claim = put("lock", &n.to_string());
            let taken = |state: &Sample| state.values.contains_key("lock");
            replica
                .write_with(move |state, _| if taken(state) { Err("taken") } else { Ok(claim) })
                .await
        })
    });
    let mut held = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.expect("no panic") {
            Ok(_) => held += 1,
            Err(error) => assert_eq!(error, WriteError::Condition("taken")),
        }
    }
    assert_eq!(held, 1);
}

/// What depends on one part waits for that part alone.
#[tokio::test(start_paused = true)]
async fn conditional_writes_to_different_parts_do_not_wait_for_each_other() {
    let (hub, store) = (LocalPubSub::hub(), MemoryCrdtStore::default());
    let replica = objects(&hub, 1, &store).open::<Sample>(shared()).await.expect("opened");
    // Writes that were decided to be made, and the most of them that were not applied at once.
    let (decided, on_their_way) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let claims = (0..40).map(|n| {
        let replica = replica.clone();
        let (decided, on_their_way) = (Arc::clone(&decided), Arc::clone(&on_their_way));
        tokio::spawn(async move {
            let key = format!("lock {}", n % 4);
            let (part, claim) = (key.clone(), put(&key, &n.to_string()));
            let decide = move |state: &Sample, _: &WriteContext<'_>| {
                if state.values.contains_key(&key) {
                    return Err("taken");
                }
                let waiting = decided.fetch_add(1, Ordering::Relaxed) - state.values.len();
                on_their_way.fetch_max(waiting, Ordering::Relaxed);
                Ok(claim)
            };
            replica.write_part_with(&part, decide).await
        })
    });
    let mut held = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.expect("no panic") {
            Ok(_) => held += 1,
            Err(error) => assert_eq!(error, WriteError::Condition("taken")),
        }
    }
    assert_eq!((held, decided.load(Ordering::Relaxed)), (4, 4), "one of each");
    assert!(on_their_way.load(Ordering::Relaxed) > 0, "together");
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_everything() {
    let (hub, store) = (LocalPubSub::hub(), MemoryCrdtStore::default());
    let first = objects(&hub, 1, &store);
    let replica = first.open::<Sample>(shared()).await.expect("opened");
    for n in 0..1500 {
        replica.write(SampleOp::Step(n)).await.expect("written");
    }
    let before = replica.status().await.expect("open");
    first.shutdown().await;
    assert!(matches!(replica.write(SampleOp::Step(1)).await, Err(WriteError::Closed)));
    let again = objects(&hub, 1, &store);
    let known = again.known().await.expect("read");
    assert_eq!((known.len(), known[0].open), (1, false));
    let replica = again.open_known::<Sample>(shared().id()).await.expect("opened");
    let after = replica.status().await.expect("open");
    assert_eq!((after.hash, after.lagged), (before.hash, 0));
    assert!(after.applied < 1500, "it was not all read again");
    replica.write(SampleOp::Step(1)).await.expect("goes on");
    again.forget(shared().id()).await.expect("forgotten");
    assert_eq!(again.known().await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_write_is_refused_here_and_skipped_there() {
    let hub = LocalPubSub::hub();
    let stores = [MemoryCrdtStore::default(), MemoryCrdtStore::default()];
    let object = Descriptor::owned(Sample::KIND, "hers", agent(1));
    let hers = objects(&hub, 1, &stores[0]).open::<Sample>(object.clone()).await.expect("opened");
    let his = objects(&hub, 2, &stores[1]).open::<Sample>(object.clone()).await.expect("opened");
    let refused = Err(WriteError::Refused(Reason::NotWriter));
    assert_eq!(his.write(put("a", "1")).await, refused);
    // Somebody who does not ask.
    use x0x_gossip_pubsub::{PubSub as _, Retention};
    let raw = hub.author(agent(3));
    raw.try_publish_as(object.id(), Retention::Durable, b"*\x01x"[..].into()).expect("accepted");
    hers.change_policy(PolicyChange::Allow { agent: agent(2), admin: false }).await.expect("ok");
    agree(&hers, &his).await;
    his.write(put("a", "1")).await.expect("allowed now");
    hers.remove(agent(2)).await.expect("ok");
    agree(&hers, &his).await;
    assert_eq!(his.write(put("a", "2")).await, refused);
    assert_eq!(value(&hers, "a").await.as_deref(), Some("1"), "what the owner had seen stays");
    let status = hers.status().await.expect("open");
    assert_eq!((status.invalid, status.refusals[0].author), (1, agent(3)));
    let change = PolicyChange::Rules { kind: 0, everyone: true };
    assert_eq!(his.change_policy(change).await, Err(WriteError::Refused(Reason::Policy)));
}

#[tokio::test(start_paused = true)]
async fn limits_and_names_are_checked() {
    let (hub, store) = (LocalPubSub::hub(), MemoryCrdtStore::default());
    let objects = objects(&hub, 1, &store);
    let open = |object| objects.open::<Sample>(object);
    assert!(matches!(open(Descriptor::open(Sample::KIND, "")).await, Err(OpenError::Name)));
    assert!(matches!(open(Descriptor::open("other/1", "a")).await, Err(OpenError::Type)));
    let unknown = objects.open_known::<Sample>(shared().id()).await;
    assert!(matches!(unknown, Err(OpenError::Unknown)));
    let replica = open(shared()).await.expect("opened");
    let large = "x".repeat(x0x_gossip_crdt::MAX_OP);
    assert!(matches!(replica.write(put("a", &large)).await, Err(WriteError::TooLarge { .. })));
    assert!(objects.close(shared().id()).await);
    assert!(!objects.close(shared().id()).await);
    assert!(replica.status().await.is_none());
    store.set_failing(true);
    assert!(matches!(open(shared()).await, Err(OpenError::Store(_))));
    objects.shutdown().await;
    store.set_failing(false);
    assert!(matches!(open(shared()).await, Err(OpenError::Closed)));
}

#[tokio::test]
async fn the_fake_store_does_what_every_store_does() {
    check_crdt_store(MemoryCrdtStore::default(), async |store| store).await;
}
