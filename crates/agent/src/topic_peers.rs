//! Subscribers of one topic that are no overlay neighbours find each other: every subscription is filed
//! with holders, and where a topic has few links others are looked for there.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, PeerAddr, Tick, TopicId};
use x0x_gossip_pubsub::{Gossip, topic_id};
use x0x_identity::NOTICE_TOPIC;
use x0x_rendezvous::{ANNOUNCE_TOPIC, Finding, Record};

/// How often it is looked whether there is anything to do.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often topics that had enough links are looked at, and all topics when nothing seems to have changed.
const CHECK: Duration = Duration::from_secs(60);
/// Links of a topic below which others are looked for: as many as pubsub itself wants.
const ENOUGH: usize = 3;
/// Topics that are looked for in one turn.
const MAX_SEARCHED: usize = 4;
/// How long a search may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pauses between the searches of a topic: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(600);

/// When a topic is looked for again.
#[derive(Debug)]
struct Turn {
    at: Tick,
    pause: Duration,
}

/// Keeps the subscriptions findable and linked, except those of the topics that everybody subscribes.
pub(crate) fn keep_linked(
    gossip: Arc<Gossip>,
    finding: Finding,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let common = [ANNOUNCE_TOPIC, NOTICE_TOPIC].map(topic_id);
        let mut turns: BTreeMap<TopicId, Turn> = BTreeMap::new();
        let (mut counted, mut check_at) = (0, clock.now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            // Looking at the topics costs far more than seeing that there is nothing new.
            let now = clock.now();
            let count = gossip.metrics().subscriptions.value();
            let is_due = check_at <= now || turns.values().any(|turn| turn.at <= now);
            if std::mem::replace(&mut counted, count) == count && !is_due {
                continue;
            }
            check_at = now + CHECK;
            let topics = gossip.snapshot().await.topics.into_iter();
            let subscribed: BTreeMap<TopicId, usize> = topics
                .filter(|topic| topic.subscriptions > 0 && !common.contains(&topic.topic))
                .map(|topic| (topic.topic, topic.eager + topic.lazy))
                .collect();
            for (gone, _) in turns.extract_if(.., |topic, _| !subscribed.contains_key(topic)) {
                finding.withdraw(gone).await;
            }
            let mut due = Vec::new();
            for (topic, links) in subscribed {
                if let Entry::Vacant(turn) = turns.entry(topic) {
                    turn.insert(Turn { at: now, pause: FIRST_PAUSE });
                    finding.offer(topic).await;
                }
                let Some(turn) = turns.get_mut(&topic).filter(|turn| turn.at <= now) else {
                    continue;
                };
                if links < ENOUGH {
                    due.push((turn.at, topic));
                } else {
                    turn.at = now + CHECK;
                }
            }
            due.sort_unstable();
            for (_, topic) in due.into_iter().take(MAX_SEARCHED) {
                if let Some(turn) = turns.get_mut(&topic) {
                    turn.at = now + turn.pause;
                    turn.pause = (turn.pause * 2).min(LAST_PAUSE);
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = look(&gossip, &finding, topic) => {}
                }
            }
        }
    })
}

async fn look(gossip: &Gossip, finding: &Finding, topic: TopicId) {
    // A search that is refused takes place in the next turn.
    let found = finding.subscribers(topic, PATIENCE).await.unwrap_or_default();
    // One without an address is behind a translator: a common peer may help.
    let known = |record: Record| PeerAddr::known(record.machine, record.addresses);
    let peers: Vec<PeerAddr> = found.into_iter().map(known).collect();
    if !peers.is_empty() {
        gossip.introduce(topic, peers).await;
    }
}
