//! Nine daemons in processes of their own, through a stall, a crash and a late join. `cargo xtask lab`
//! runs the same at full size.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    lifecycle::Process,
    support::{Api, Ws, eventually, payload},
};

const TOPIC: &str = "nine";
/// Daemons from the start; the ninth joins late.
const NODES: usize = 8;
/// Who publishes; who stands still; who is killed.
const PUBLISHERS: [usize; 2] = [0, 3];
const STOPPED: usize = 5;
const KILLED: usize = 6;
/// Messages of each publisher, and the pause between them.
const MESSAGES: u64 = 100;
const PAUSE: Duration = Duration::from_millis(40);
/// How long all of it may take to arrive.
const DUST: Duration = Duration::from_secs(25);

/// What a subscriber has seen of each author, in order.
type Seen = BTreeMap<String, Vec<u64>>;

/// Reads a topic until all is there. A session that ends is opened again where it ended.
async fn read_all(api: Api) -> Seen {
    let mut ws = Ws::open(&api, "/ws").await;
    ws.subscribe(TOPIC).await;
    let mut seen = Seen::new();
    while seen.values().map(Vec::len).sum::<usize>() < PUBLISHERS.len() * MESSAGES as usize {
        let frame = ws.try_next().await.expect("the session goes on");
        match frame["type"].as_str() {
            Some("message") => {
                let number = u64::from_be_bytes(payload(&frame).try_into().expect("a number"));
                let author = frame["origin"].as_str().expect("text").to_owned();
                seen.entry(author).or_default().push(number);
            }
            Some("pong") => {}
            _ => panic!("unexpected {frame}"),
        }
    }
    seen
}

async fn publish_all(api: Api) {
    for number in 0..MESSAGES {
        let payload = data_encoding::BASE64.encode(&number.to_be_bytes());
        let answer = api.post("/publish", &json!({"topic": TOPIC, "payload": payload})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        sleep(PAUSE).await;
    }
}

async fn udp_address(process: &Process) -> std::net::SocketAddr {
    let status = process.api().get("/network/status").await.json();
    status["local_addr"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_daemons_lose_nothing_through_a_stall_a_crash_and_a_late_join() {
    let mut processes = vec![Process::spawn(&[]).await];
    let bootstrap = [udp_address(&processes[0]).await];
    for _ in 1..NODES {
        processes.push(Process::spawn(&bootstrap).await);
    }
    for process in &processes {
        eventually("every daemon has peers", || async { process.api().peers().await >= 2 }).await;
    }
    let mut readers: Vec<JoinHandle<Seen>> = Vec::new();
    for (index, process) in processes.iter().enumerate() {
        if index != KILLED {
            readers.push(tokio::spawn(read_all(process.api())));
        }
    }
    let publishers: Vec<_> =
        PUBLISHERS.iter().map(|index| tokio::spawn(publish_all(processes[*index].api()))).collect();

    sleep(PAUSE * 10).await;
    processes[STOPPED].stand_still(true);
    processes[KILLED].kill();
    sleep(PAUSE * 30).await;
    processes[KILLED].restart(&bootstrap).await;
    readers.push(tokio::spawn(read_all(processes[KILLED].api())));
    sleep(PAUSE * 30).await;
    processes.push(Process::spawn(&bootstrap).await);
    readers.push(tokio::spawn(read_all(processes[NODES].api())));
    sleep(PAUSE * 20).await;
    processes[STOPPED].stand_still(false);

    for publisher in publishers {
        timeout(DUST, publisher).await.expect("in time").expect("all are taken");
    }
    let expected: Vec<u64> = (0..MESSAGES).collect();
    for reader in readers {
        let seen = timeout(DUST, reader).await.expect("the dust settles").expect("no loss");
        assert_eq!(seen.len(), PUBLISHERS.len());
        assert!(seen.values().all(|numbers| *numbers == expected), "{seen:?}");
    }
    for process in processes {
        assert_eq!(process.terminate().await, Some(0));
    }
}
