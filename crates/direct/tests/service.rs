//! The driver and the handle on one machine, in virtual time.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use x0x_core::{AgentId, MachineId};
use x0x_direct::{
    Direct, DirectConfig, DirectError, Inbox, MAX_PAYLOAD, RefuseReason, testing::loopback,
};
use x0x_transport::testing::{EPOCH, TokioClock};

const MACHINE: MachineId = MachineId::new([1; 32]);
const ALICE: AgentId = AgentId::new([2; 32]);
const BOB: AgentId = AgentId::new([3; 32]);

fn start(configure: impl FnOnce(&mut DirectConfig)) -> (Direct, Inbox) {
    let mut config = DirectConfig::new(vec![ALICE, BOB]);
    configure(&mut config);
    loopback(MACHINE, config, Arc::new(TokioClock::new()))
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_in_order_while_many_are_in_flight() {
    let (direct, mut inbox) = start(|config| config.inbox_messages = 4);
    let sender = tokio::spawn(async move {
        let mut sent = Vec::new();
        for n in 0..500_u32 {
            let payload = n.to_be_bytes().to_vec().into();
            let sending = direct.queue(direct.new_id(), MACHINE, ALICE, BOB, payload).await;
            sent.push(sending.expect("it is queued"));
        }
        for sending in sent {
            let id = sending.id();
            assert_eq!(sending.await.expect("it is taken").id, id);
        }
        direct
    });
    for n in 0..500_u32 {
        let message = inbox.next().await.expect("the service runs");
        assert_eq!(message.payload[..], n.to_be_bytes());
        assert_eq!((message.from, message.to, message.machine), (ALICE, BOB, MACHINE));
        assert!(message.received_at >= EPOCH);
    }
    let direct = sender.await.expect("all were acknowledged");
    assert_eq!(direct.metrics().delivered.value(), 500);
    assert_eq!(direct.metrics().acknowledged.value(), 500);
    drop(direct);
    assert_eq!(inbox.next().await, None, "the service ends with its last handle");
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_makes_senders_wait_until_their_deadline() {
    let (direct, mut inbox) = start(|config| config.inbox_messages = 1);
    let id = direct.new_id();
    direct.send(MACHINE, ALICE, BOB, "first".into()).await.expect("there is room");
    let second = direct.send_with_id(id, MACHINE, ALICE, BOB, "second".into());
    assert!(timeout(Duration::from_secs(29), second).await.is_err(), "no room, no answer");
    let again = direct.send_with_id(id, MACHINE, ALICE, BOB, "second".into());
    assert_eq!(again.await, Err(DirectError::Timeout));
    assert_eq!(inbox.next().await.map(|m| m.payload), Some("first".into()));
    assert_eq!(inbox.next().await.map(|m| m.payload), Some("second".into()));
    let receipt = direct.send_with_id(id, MACHINE, ALICE, BOB, "second".into()).await;
    assert_eq!(receipt.map(|receipt| receipt.id), Ok(id), "acknowledged again");
    assert_eq!(inbox.try_next(), None, "and not delivered again");
}

#[tokio::test(start_paused = true)]
async fn a_large_payload_takes_its_share_of_the_window() {
    let (direct, mut inbox) = start(|config| {
        config.window_messages = 4;
        config.window_bytes = 4000;
        config.inbox_messages = 1;
    });
    let queue =
        |len: usize| direct.queue(direct.new_id(), MACHINE, ALICE, BOB, vec![0; len].into());
    queue(1).await.expect("queued").await.expect("the inbox is empty");
    let large = queue(2500).await.expect("three shares");
    let small = queue(1).await.expect("one share");
    assert!(timeout(Duration::from_secs(1), queue(1)).await.is_err(), "no share is left");
    assert!(inbox.next().await.is_some());
    large.await.expect("the first made room");
    assert!(inbox.next().await.is_some());
    small.await.expect("the second made room");
    let last = queue(1).await.expect("shares came back");
    assert!(inbox.next().await.is_some());
    last.await.expect("it is taken");
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_apart() {
    let (direct, mut inbox) = start(|_| {});
    let elsewhere = MachineId::new([9; 32]);
    let stranger = AgentId::new([9; 32]);
    let refused = |reason| Err(DirectError::Refused(reason));
    let sent = direct.send(elsewhere, ALICE, BOB, "x".into()).await;
    assert_eq!(sent, Err(DirectError::NotConnected));
    let sent = direct.send(MACHINE, stranger, BOB, "x".into()).await;
    assert_eq!(sent, refused(RefuseReason::SenderNotProven));
    let sent = direct.send(MACHINE, ALICE, stranger, "x".into()).await;
    assert_eq!(sent, refused(RefuseReason::UnknownRecipient));
    let sent = direct.send(MACHINE, ALICE, BOB, vec![0; MAX_PAYLOAD + 1].into()).await;
    assert_eq!(sent, Err(DirectError::TooLarge { len: MAX_PAYLOAD + 1, max: MAX_PAYLOAD }));
    direct.send(MACHINE, ALICE, BOB, vec![7; MAX_PAYLOAD].into()).await.expect("just fits");
    assert_eq!(inbox.next().await.map(|message| message.payload.len()), Some(MAX_PAYLOAD));
    drop(inbox);
    let sent = direct.send(MACHINE, ALICE, BOB, "x".into()).await;
    assert_eq!(sent, refused(RefuseReason::InboxClosed));
    let names: Vec<_> = direct.metrics().snapshot().iter().map(|metric| metric.name).collect();
    assert!(names.contains(&"direct_refused_unknown_recipient"));
}

#[tokio::test(start_paused = true)]
async fn an_inbox_dropped_while_messages_wait_refuses_them() {
    let (direct, inbox) = start(|config| config.inbox_messages = 1);
    direct.send(MACHINE, ALICE, BOB, "taken".into()).await.expect("there is room");
    let held = direct.queue(direct.new_id(), MACHINE, ALICE, BOB, "held".into()).await;
    tokio::task::yield_now().await;
    drop(inbox);
    let outcome = held.expect("it is queued").await;
    assert_eq!(outcome, Err(DirectError::Refused(RefuseReason::InboxClosed)));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_what_waits_and_keeps_what_arrived() {
    let (direct, mut inbox) = start(|config| config.inbox_messages = 1);
    direct.send(MACHINE, ALICE, BOB, "taken".into()).await.expect("there is room");
    let waiting = direct.queue(direct.new_id(), MACHINE, ALICE, BOB, "x".into()).await;
    direct.close();
    assert_eq!(waiting.expect("it is queued").await, Err(DirectError::Closed));
    let sent = direct.send(MACHINE, ALICE, BOB, "x".into()).await;
    assert_eq!(sent, Err(DirectError::Closed));
    assert_eq!(inbox.next().await.map(|message| message.payload), Some("taken".into()));
    assert_eq!(inbox.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_breaks_nothing() {
    let (direct, mut inbox) = start(|_| {});
    for n in 0..50_u8 {
        drop(direct.queue(direct.new_id(), MACHINE, ALICE, BOB, vec![n].into()).await);
    }
    direct.send(MACHINE, ALICE, BOB, vec![50].into()).await.expect("the service runs");
    for n in 0..=50_u8 {
        assert_eq!(inbox.next().await.map(|message| message.payload), Some(vec![n].into()));
    }
}
