//! A sender that nobody knows: what it may leave holds through a restart, and what it repeats is taken
//! once.

use serde_json::{Value, json};

use crate::{
    lifecycle::Process,
    support::{Api, Node, Ws, eventually, stop},
};

/// Messages that one stranger may leave unread.
const SHARE: u64 = 1024;

async fn listening(api: &Api) -> Vec<std::net::SocketAddr> {
    let status = api.get("/status").await.json();
    let all = status["external_addrs"].as_array().expect("a list").iter();
    all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
}

fn message(to: &Value, id: u64) -> Value {
    let payload = data_encoding::BASE64.encode(b"spam");
    json!({"agent_id": to, "payload": payload, "id": format!("{id:032x}")})
}

#[tokio::test]
async fn what_a_stranger_left_counts_after_a_restart_and_is_not_taken_twice() {
    let mut receiver = Process::spawn(&[]).await;
    let sender = Node::start(&listening(&receiver.api()).await).await;
    let to = receiver.api().get("/agent").await.json()["agent_id"].clone();
    eventually("a session", || async { sender.api.peers().await >= 1 }).await;
    let known = sender.api.post("/direct/send", &message(&to, 1)).await;
    assert_eq!(known.status, 200, "{known:?}");
    let mut ws = Ws::open(&sender.api, "/ws").await;
    let mut frame = message(&to, 0);
    frame.as_object_mut().expect("an object").remove("id");
    (frame["type"], frame["ack"]) = (json!("send_direct"), json!(true));
    for _ in 1..SHARE {
        ws.send(&frame).await;
    }
    for _ in 1..SHARE {
        assert_eq!(ws.next().await["type"], "sent");
    }
    assert_eq!(receiver.api().metric("mailbox_unread").await, SHARE);
    receiver.kill();
    receiver.restart(&sender.daemon.agent().local_addresses()).await;
    let api = receiver.api();
    assert_eq!(api.metric("mailbox_unread").await, SHARE, "what it left is still there");
    let body = json!({"agent_id": to});
    eventually("a session again", || async {
        let answer = sender.api.post("/agents/connect", &body).await.json();
        answer["outcome"] == "Direct" || answer["outcome"] == "AlreadyConnected"
    })
    .await;
    let refused = sender.api.post("/direct/send", &message(&to, 2)).await;
    assert_eq!(refused.json()["code"], "recipient_busy", "{refused:?}");
    // Somebody reads a little: what was taken before is acknowledged again, and not there twice.
    assert_eq!(api.get("/inbox?limit=5").await.status, 200);
    let again = sender.api.post("/direct/send", &message(&to, 1)).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(api.metric("mailbox_unread").await, SHARE - 5);
    assert_eq!(receiver.terminate().await, Some(0));
    stop(vec![sender]).await;
}
