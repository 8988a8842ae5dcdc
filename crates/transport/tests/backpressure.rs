//! A consumer that lags slows its senders down, and nothing else.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use x0x_core::{PeerAddr, Protocol};
use x0x_transport::{
    Inbound, InboundEvent, Node, SessionConfig, Transport,
    error::SendError,
    testing::{LinkModel, MemoryNetwork, TokioClock, address, eventually, hello, machine, node},
};

async fn connected() -> (Node, Node) {
    let network = MemoryNetwork::new(3, LinkModel::default());
    let (a, b) = (node(&network, 1), node(&network, 2));
    a.connect(PeerAddr::known(machine(2), [address(2)])).await.expect("connects");
    (a, b)
}

fn numbered(number: u32, len: usize) -> Bytes {
    let mut message = BytesMut::zeroed(len);
    message[..4].copy_from_slice(&number.to_be_bytes());
    message.freeze()
}

/// Reads messages up to `end`, which must come without a gap from `start`.
async fn read_numbers(inbound: &mut Inbound, start: u32, end: u32) {
    let mut expected = start;
    while expected < end {
        match inbound.recv().await.expect("the node runs") {
            InboundEvent::Message { message, .. } => {
                let number = u32::from_be_bytes(message[..4].try_into().expect("a number"));
                assert_eq!(number, expected);
                expected += 1;
            }
            InboundEvent::Up(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

const LARGE: usize = 64 * 1024;

#[tokio::test(start_paused = true)]
async fn a_lagging_consumer_stops_its_senders_only() {
    let (a, b) = connected().await;
    let mut direct = b.inbound(Protocol::Direct).expect("free");
    let mut gossip = b.inbound(Protocol::Pubsub).expect("free");
    let sender = tokio::spawn({
        let a = a.clone();
        async move {
            for number in 0..1500 {
                let message = numbered(number, LARGE);
                a.send(machine(2), Protocol::Direct, message).await.expect("connected");
            }
        }
    });
    let sent = || a.metrics().classes[1].messages_sent.value();
    // Until nothing moves any more.
    let mut before = u64::MAX;
    eventually("the sender waits", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::mem::replace(&mut before, sent()) == sent()
    })
    .await;
    assert!(!sender.is_finished());
    // The consumer's 32 MiB, the stream's window, and a batch being written and one being read.
    let waiting = sent() as usize * LARGE;
    assert!(waiting <= 34 * 1024 * 1024, "{waiting} bytes");
    assert!((direct.len() - 1) * LARGE <= 32 * 1024 * 1024, "besides the announcement");

    for number in 0..3000 {
        let message = numbered(number, 100);
        a.send(machine(2), Protocol::Pubsub, message).await.expect("other classes flow");
        if number % 100 == 99 {
            read_numbers(&mut gossip, number - 99, number + 1).await;
        }
    }
    a.ping(machine(2)).await.expect("so does control");

    read_numbers(&mut direct, 0, 1500).await;
    sender.await.expect("all were taken");
}

#[tokio::test(start_paused = true)]
async fn small_messages_are_bounded_by_their_number() {
    let (a, b) = connected().await;
    let mut inbound = b.inbound(Protocol::Pubsub).expect("free");
    let sender = tokio::spawn({
        let a = a.clone();
        async move {
            for number in 0..10_000 {
                a.send(machine(2), Protocol::Pubsub, numbered(number, 64))
                    .await
                    .expect("connected");
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!((900..=1024).contains(&inbound.len()));
    assert!(!sender.is_finished());
    read_numbers(&mut inbound, 0, 10_000).await;
    sender.await.expect("all were taken");
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_hears_of_room() {
    let (a, b) = connected().await;
    let mut inbound = b.inbound(Protocol::Pubsub).expect("free");
    let mut events = a.inbound(Protocol::Pubsub).expect("free");
    assert!(matches!(events.recv().await, Some(InboundEvent::Up(_))));
    let mut next = 0;
    for round in 0..3 {
        let first = next;
        let refused = loop {
            match a.try_send(machine(2), Protocol::Pubsub, numbered(next, LARGE)) {
                Ok(()) => next += 1,
                Err(refused) => break refused,
            }
            if next % 8 == 0 {
                // Lets the writer run, until the stream's window is full too.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert_eq!(refused, SendError::Busy);
        assert!(events.try_recv().is_err(), "no room yet in round {round}");
        read_numbers(&mut inbound, first, next).await;
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        assert!(matches!(event, Ok(Some(InboundEvent::Writable(peer))) if peer == machine(2)));
    }
    assert_eq!(a.metrics().sends_busy.value(), 3);
}

#[tokio::test(start_paused = true)]
async fn waiting_senders_fail_when_the_session_ends() {
    let (a, b) = connected().await;
    let _inbound = b.inbound(Protocol::Direct).expect("free");
    let mut payload = BytesMut::new();
    payload.put_bytes(0, LARGE);
    let payload = payload.freeze();
    let senders: Vec<_> = (0..20)
        .map(|_| {
            let (a, payload) = (a.clone(), payload.clone());
            tokio::spawn(async move {
                loop {
                    let sent = a.send(machine(2), Protocol::Direct, payload.clone()).await;
                    if let Err(error) = sent {
                        return error;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    b.disconnect(machine(1));
    for sender in senders {
        assert_eq!(sender.await.expect("no panic"), SendError::NotConnected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lagging_consumer_hears_of_two_sessions_in_turn() {
    let network = MemoryNetwork::new(3, LinkModel::default());
    let mut config = SessionConfig::default();
    config.inbound_events = 4;
    let engine = network.engine(machine(1), address(1));
    let a = Node::start(engine, config, hello(1, 0), Arc::new(TokioClock::new()));
    let mut inbound = a.inbound(Protocol::Direct).expect("free");
    let mut restarted = None;
    for run in 0..2 {
        let engine = network.engine(machine(2), address(2));
        let clock = Arc::new(TokioClock::new());
        let b = Node::start(engine, SessionConfig::default(), hello(2, run), clock);
        let to = PeerAddr::known(machine(1), [address(1)]);
        b.connect(to).await.expect("connects");
        for number in 0..20 {
            let number = 100 * run as u32 + number;
            b.send(machine(1), Protocol::Direct, numbered(number, 8)).await.expect("connected");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if run == 0 {
            network.kill(machine(2));
            b.shutdown().await;
        } else {
            restarted = Some(b);
        }
    }
    assert!(restarted.is_some_and(|b| b.sessions().len() == 1), "replaced, not waiting");
    // Of the first session what had been read when it ended, of the second one everything.
    read_numbers(&mut inbound, 0, 4).await;
    let mut ended = false;
    let mut expected = 4;
    while expected < 120 {
        match inbound.recv().await.expect("the node runs") {
            InboundEvent::Message { message, .. } => {
                assert_eq!(message[..4], u32::to_be_bytes(expected));
                expected += 1;
            }
            InboundEvent::Down(_) => ended = true,
            InboundEvent::Up(_) => {
                assert!(ended, "the first session ends before the second begins");
                expected = 100;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
