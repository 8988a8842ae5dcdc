//! The memory of a relay: anonymous pages of a process that does nothing else.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::runtime::Builder;
use x0x_core::{PeerAddr, Protocol};
use x0x_identity::testing::key;
use x0x_transport::{Inbound, InboundEvent, Node, PathKind, Transport};

use super::node;

/// Machines of either address family; each of the one is joined with each of the other.
const SIDE: u64 = 16;
/// What goes by each pair, either way.
const PASSED: usize = 64 << 10;
/// For what a process still does after it was asked for something.
const SETTLE: Duration = Duration::from_secs(1);
/// Says that this process is the relay.
const RELAY: &str = "x0x-relay-under-measurement";

/// Whether this process is the relay of another one.
pub(crate) fn is_relay() -> bool {
    std::env::args().any(|argument| argument == RELAY)
}

/// Relays until its standard input ends.
pub(crate) fn relay() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = node(1, "[::]:0", true);
        println!("{}", node.local_addresses()[0].port());
        let end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        let _ = end.await;
        node.shutdown().await;
    });
}

struct Relay {
    process: Child,
    port: u16,
}

impl Relay {
    fn start() -> Self {
        let this = std::env::current_exe().expect("a path");
        let mut process = Command::new(this)
            .arg(RELAY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        Self { process, port: line.trim().parse().expect("a port") }
    }

    /// Anonymous memory in KiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse().ok()).expect("a number")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// One that only has this address family, with a session with the relay.
async fn machine(n: u64, ip: &str, relay: u16) -> (Node, Inbound) {
    let node = node(n, &SocketAddr::new(ip.parse().expect("an address"), 0).to_string(), true);
    let inbox = node.inbound(Protocol::Direct).expect("free");
    let at = SocketAddr::new(ip.parse().expect("an address"), relay);
    let to = PeerAddr::known(key(1).public_key().machine_id(), [at]);
    node.connect(to).await.expect("connects");
    (node, inbox)
}

async fn pass(from: &Node, (to, inbox): &mut (Node, Inbound)) {
    let message = Bytes::from(vec![7; PASSED]);
    from.send(to.local_id(), Protocol::Direct, message).await.expect("up");
    while !matches!(inbox.recv().await, Some(InboundEvent::Message { .. })) {}
}

/// Measures and prints.
pub(crate) fn print() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let relay = Relay::start();
        tokio::time::sleep(SETTLE).await;
        let empty = relay.memory();
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for n in 0..SIDE {
            here.push(machine(2 + n, "127.0.0.1", relay.port).await);
            there.push(machine(2 + SIDE + n, "::1", relay.port).await);
        }
        tokio::time::sleep(SETTLE).await;
        let sessions = relay.memory();
        for from in &mut here {
            for to in &mut there {
                let peer = PeerAddr::known(to.0.local_id(), []);
                let session = from.0.connect(peer).await.expect("relayed");
                assert!(matches!(session.path, PathKind::Relayed { .. }), "{session:?}");
                pass(&from.0, to).await;
                pass(&to.0, from).await;
            }
        }
        tokio::time::sleep(SETTLE).await;
        let pairs = relay.memory();
        println!(
            "memory of a relay: {empty:.0} KiB alone; {:.1} KiB for each of {} sessions; {:.1} KiB for each of {} relayed \
             pairs, {} KiB having passed by each either way",
            (sessions - empty) / (2 * SIDE) as f64,
            2 * SIDE,
            (pairs - sessions) / (SIDE * SIDE) as f64,
            SIDE * SIDE,
            PASSED >> 10,
        );
    });
}
