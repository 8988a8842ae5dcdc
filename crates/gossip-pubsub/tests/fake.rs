//! The fake behaves like the service, as far as its users can tell.

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};
use x0x_gossip_pubsub::{
    Delivery, PubSub, PublishError, Start, SubscribeError, Subscription, testing::LocalPubSub,
    topic_id,
};

fn drain(subscription: &mut Subscription) -> Vec<(AgentId, u64, Bytes)> {
    std::iter::from_fn(|| subscription.next_ready())
        .map(|delivery| match delivery {
            Delivery::Message(message) => (message.author, message.seq, message.payload),
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn authors_on_a_hub_reach_all_subscriptions() {
    let hub = LocalPubSub::hub();
    hub.set_wall(WallTime::from_millis(5));
    let (a, b) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
    let (first, second) = (hub.author(a), hub.author(b));
    let topic = topic_id("t");
    let mut early = second.subscribe(topic, Start::Live).await.expect("open");
    assert_eq!(first.publish(topic, "x".into()).await.map(|p| p.seq), Ok(1));
    assert_eq!(second.try_publish(topic, "y".into()), Ok(()));
    assert_eq!(first.publish(topic_id("u"), "z".into()).await.map(|p| p.seq), Ok(1));
    let mut late = first.subscribe(topic, Start::Retained).await.expect("open");
    let mut live = first.subscribe(topic, Start::Live).await.expect("open");
    let expected = [(a, 1, Bytes::from("x")), (b, 1, Bytes::from("y"))];
    assert_eq!(drain(&mut early), expected);
    assert_eq!(drain(&mut late), expected);
    assert_eq!(drain(&mut live), []);
    assert_eq!(hub.subscriptions(topic), 3);
    drop((early, live));
    assert_eq!(hub.subscriptions(topic), 1);
    hub.set_busy(true);
    assert_eq!(first.try_publish(topic, Bytes::new()), Err(PublishError::Busy));
    hub.close();
    assert_eq!(late.next().await, None);
    assert_eq!(first.publish(topic, Bytes::new()).await, Err(PublishError::Closed));
    let closed = first.subscribe(topic, Start::Live).await;
    assert!(matches!(closed, Err(SubscribeError::Closed)));
}
