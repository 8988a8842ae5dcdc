//! What a packet costs a relay beside what a datagram costs raw quinn, in processor time: a relay receives and sends
//! each packet once, as the two ends of a raw connection do together. Processor time, since in one process a relayed
//! pair also pays for its own two layers, and other programs share the machine.
//!
//! Then, what a session and a relayed pair take of the memory of a relay, which is a process of its own for that.
//!
//! It reads `/proc/thread-self/schedstat` and `/proc/*/status`, so it runs on Linux alone.

mod memory;
mod raw;

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Builder, sync::oneshot, time::timeout};
use x0x_core::{Clock, PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{
    InboundEvent, Node, PathKind, SessionConfig, Transport,
    quic::{QuicConfig, QuicEngine},
    testing::{TokioClock, hello},
};

use self::raw::raw_pair;

/// Bytes of a datagram: about what a relayed pair comes to send.
const DATAGRAM: usize = 1380;
/// How much goes by each way.
const TRANSFER: usize = 32 << 20;
const CHUNK: usize = 256 << 10;

/// Processor time of this thread.
fn spent() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = stat.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

fn micros(time: Duration, packets: u64) -> f64 {
    time.as_secs_f64() * 1e6 / packets.max(1) as f64
}

/// Both ends of a raw connection on one thread; gives the time of a datagram that arrived.
fn raw_datagrams() -> f64 {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_endpoints, from, to) = raw_pair().await;
        // Until the path carries them.
        while from.max_datagram_size().is_none_or(|most| most < DATAGRAM) {
            from.send_datagram(Bytes::from_static(b"x")).expect("small");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (start, datagram) = (spent(), Bytes::from(vec![7; DATAGRAM]));
        let send = async {
            for _ in 0..TRANSFER / DATAGRAM {
                from.send_datagram_wait(datagram.clone()).await.expect("fits");
            }
        };
        let receive = async {
            let mut arrived = 0;
            while let Ok(Ok(_)) = timeout(Duration::from_millis(200), to.read_datagram()).await {
                arrived += 1;
            }
            arrived
        };
        let ((), arrived) = tokio::join!(send, receive);
        micros(spent() - start, arrived)
    })
}

fn node(n: u64, bind: &str, unlimited: bool) -> Node {
    let bind: SocketAddr = bind.parse().expect("an address");
    let engine = QuicEngine::bind(QuicConfig::new(bind, key(n))).expect("loopback binds");
    let mut config = SessionConfig::default();
    if unlimited {
        config.relay.client_rate = 1 << 40;
        config.relay.client_burst = 1 << 40;
        config.relay.client_daily = 1 << 40;
        config.relay.total_rate = 1 << 40;
    }
    Node::start(engine, config, hello(n, 0), Arc::new(TokioClock::new()))
}

/// A relay on a thread of its own until it is told to report.
fn relay(
    started: oneshot::Sender<Node>,
    begin: oneshot::Receiver<()>,
    end: oneshot::Receiver<()>,
) -> (Duration, u64) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = node(1, "[::]:0", true);
        let metrics = node.metrics().relay.clone();
        let _ = started.send(node);
        let _ = begin.await;
        let (start, before) = (spent(), metrics.forwarded_packets.value());
        let _ = end.await;
        (spent() - start, metrics.forwarded_packets.value() - before)
    })
}

/// Two that have no address family in common, and a relay that has both.
fn relayed() -> (f64, f64) {
    let (started, relay_node) = oneshot::channel();
    let ((begin, begun), (end, ended)) = (oneshot::channel(), oneshot::channel());
    let thread = std::thread::spawn(move || relay(started, begun, ended));
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rate = runtime.block_on(async {
        let relay = relay_node.await.expect("runs");
        let (a, b) = (node(2, "127.0.0.1:0", false), node(3, "[::1]:0", false));
        let mut inbox = b.inbound(Protocol::FileContent).expect("free");
        for node in [&a, &b] {
            let to = PeerAddr::known(relay.local_id(), relay.local_addresses());
            node.connect(to).await.expect("connects");
        }
        let session = a.connect(PeerAddr::known(b.local_id(), [])).await.expect("relayed");
        assert_eq!(session.path, PathKind::Relayed { via: relay.local_id() });
        let clock = TokioClock::new();
        let _ = begin.send(());
        let send = async {
            for _ in 0..TRANSFER / CHUNK {
                let chunk = Bytes::from(vec![7; CHUNK]);
                a.send(b.local_id(), Protocol::FileContent, chunk).await.expect("up");
            }
        };
        let receive = async {
            let mut arrived = 0;
            while arrived < TRANSFER {
                if let Some(InboundEvent::Message { message, .. }) = inbox.recv().await {
                    arrived += message.len();
                }
            }
        };
        tokio::join!(send, receive);
        let rate = TRANSFER as f64 / (clock.now().as_micros() as f64 / 1e6) / f64::from(1 << 20);
        let _ = end.send(());
        rate
    });
    let (time, packets) = thread.join().expect("the relay ran");
    (micros(time, packets), rate)
}

fn main() {
    if memory::is_relay() {
        return memory::relay();
    }
    let raw = raw_datagrams();
    println!("raw quinn: {raw:.2} us of processor time a datagram of {DATAGRAM} bytes");
    let (forwarded, rate) = relayed();
    println!(
        "relay:     {forwarded:.2} us a packet forwarded, either way; {rate:.1} MiB/s between the ends"
    );
    println!("rate of a relay beside that of raw datagrams: {:.0} %", raw / forwarded * 100.0);
    memory::print();
}
