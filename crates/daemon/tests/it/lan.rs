//! Daemons in network namespaces on one bridge: no default route, no bootstrap node, nobody else.
//!
//! Needs root; otherwise these tests say that they are skipped.

use std::{
    fs::File, future::Future, net::SocketAddr, os::fd::AsFd, process::Command, thread::JoinHandle,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use x0x_daemon::Config;

use crate::support::{EventStream, Node, eventually, payload, within};

/// A bridge in a namespace, and places on it. All are removed in the end.
struct Bridge {
    prefix: String,
    names: Vec<String>,
}

impl Bridge {
    /// `None`, with a message, where namespaces cannot be made.
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let prefix = format!("x0x-{test}-{}", std::process::id());
        let mut bridge = Self { prefix, names: Vec::new() };
        let hub = format!("{}-hub", bridge.prefix);
        if let Err(error) = bridge.add(&hub) {
            eprintln!("skipped: {error}");
            return None;
        }
        run(&["-n", &hub, "link", "add", "bridge", "type", "bridge"]).expect("a bridge");
        run(&["-n", &hub, "link", "set", "bridge", "up"]).expect("a bridge");
        Some(bridge)
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        run(&["netns", "add", name])?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// The name of a namespace with one address on the bridge.
    fn place(&mut self, number: u8) -> String {
        let (hub, port) = (format!("{}-hub", self.prefix), format!("port{number}"));
        let name = format!("{}-{number}", self.prefix);
        self.add(&name).expect("a namespace");
        let address = format!("10.78.0.{number}/24");
        let steps: [&[&str]; 5] = [
            &["-n", &hub, "link", "add", &port, "type", "veth", "peer", "eth0", "netns", &name],
            &["-n", &hub, "link", "set", &port, "master", "bridge", "up"],
            &["-n", &name, "address", "add", &address, "dev", "eth0"],
            &["-n", &name, "link", "set", "lo", "up"],
            &["-n", &name, "link", "set", "eth0", "up"],
        ];
        for step in steps {
            run(step).expect("a place");
        }
        name
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = run(&["netns", "delete", name]) {
                eprintln!("{error}");
            }
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or(format!("ip {}: {told}", arguments.join(" ")))
}

/// Runs a future in a namespace: sockets stay in that of the thread that makes them.
fn there<F: Future<Output = ()>>(
    namespace: &str,
    run: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<()> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let file = File::open(path).expect("the namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(run());
    })
}

async fn start() -> Node {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::isolated(directory.path());
    config.bind_address = SocketAddr::from(([0_u16; 8], 0));
    config.mdns = true;
    Node::start_in(directory, config).await
}

async fn lost_sessions(node: &Node) -> u64 {
    node.api.metric("transport_sessions_lost_total").await
}

/// Says who it is, and tells of each message that it gets.
async fn listen(
    who: oneshot::Sender<String>,
    got: mpsc::Sender<String>,
    stop: oneshot::Receiver<()>,
) {
    let node = start().await;
    let mut direct = EventStream::open(&node.api, "/direct/events", None).await;
    who.send(node.agent_id()).expect("somebody asks");
    let listens = async {
        while let Some(event) = direct.next().await {
            let text = String::from_utf8(payload(&event.data)).expect("text");
            got.send(text).await.expect("somebody waits");
        }
    };
    tokio::select! {
        () = listens => panic!("the stream ended"),
        _ = stop => {}
    }
    assert_eq!(lost_sessions(&node).await, 0);
    within("the daemon stops", node.daemon.shutdown()).await;
}

async fn say(node: &Node, to: &str, text: &str) {
    let encoded = data_encoding::BASE64.encode(text.as_bytes());
    let request = json!({"agent_id": to, "payload": encoded});
    eventually("it is sent", || async {
        node.api.post("/direct/send", &request).await.status == 200
    })
    .await;
}

#[test]
fn two_machines_on_one_bridge_meet_and_stay_together_when_one_moves() {
    let Some(mut bridge) = Bridge::new("meet") else { return };
    let (first, second) = (bridge.place(1), bridge.place(2));
    let (who, is) = oneshot::channel();
    let (got, mut gets) = mpsc::channel(8);
    let (stop, stopped) = oneshot::channel();
    let listener = there(&first, move || listen(who, got, stopped));
    let moving = second.clone();
    let speaker = there(&second, move || async move {
        let node = start().await;
        let begun = Instant::now();
        let to = within("the other one is up", is).await.expect("it says who it is");
        eventually("they have met", || async { node.api.peers().await == 1 }).await;
        eprintln!("met after {:?}", begun.elapsed());
        eventually("they are neighbours", || async { !node.daemon.agent().neighbors().is_empty() })
            .await;
        say(&node, &to, "hello").await;
        assert_eq!(within("the message", gets.recv()).await.as_deref(), Some("hello"));
        eprintln!("talked after {:?}", begun.elapsed());
        // The other one may have found this one first.
        eventually("it heard the other one on the link, too", || async {
            node.api.metric("transport_lan_found_total").await >= 1
        })
        .await;

        // Another address, as after a walk to another access point.
        run(&["-n", &moving, "address", "del", "10.78.0.2/24", "dev", "eth0"]).expect("moves");
        run(&["-n", &moving, "address", "add", "10.78.0.9/24", "dev", "eth0"]).expect("moves");
        eventually("it knows", || async {
            let all = node.daemon.agent().local_addresses();
            all.iter().any(|at| at.ip().to_string() == "10.78.0.9")
        })
        .await;
        let moved = Instant::now();
        say(&node, &to, "again").await;
        assert_eq!(within("the message", gets.recv()).await.as_deref(), Some("again"));
        eprintln!("talked again {:?} after the move", moved.elapsed());
        assert_eq!(node.api.metric("transport_addresses_changed_total").await, 1);
        assert_eq!(lost_sessions(&node).await, 0);
        stop.send(()).expect("it listens");
        within("the daemon stops", node.daemon.shutdown()).await;
    });
    speaker.join().expect("speaks");
    listener.join().expect("listens");
}
