//! Finding groups by their cards, groups by their keys, and how groups are doing, over daemons.

use serde_json::{Value, json};

use crate::{
    lifecycle::Process,
    support::{Answer, Api, Node, eventually, stop},
};

async fn ok(answer: impl Future<Output = Answer>) -> Value {
    let answer = answer.await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    answer.json()
}

async fn with_body(api: &Api, method: &str, path: &str, body: &Value) -> Answer {
    let mut headers = api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    api.send(method, path, &headers, body.to_string().as_bytes()).await
}

async fn found(api: &Api, name: &str, preset: &str) -> String {
    let body = json!({"name": name, "preset": preset});
    ok(api.post("/groups", &body)).await["group_id"].as_str().expect("text").to_owned()
}

/// The ids of the groups that an answer has cards of.
fn ids(answer: &Value) -> Vec<String> {
    let cards = answer["groups"].as_array().expect("cards");
    cards.iter().map(|card| card["group_id"].as_str().expect("text").to_owned()).collect()
}

async fn discovered(api: &Api, path: &str) -> Vec<String> {
    ids(&ok(api.get(path)).await)
}

#[tokio::test]
async fn groups_are_found_by_tag_name_and_id_and_hidden_ones_are_not() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let birds = found(&one.api, "Sea birds", "public_request_secure").await;
    let hidden = found(&one.api, "Hidden birds", "private_secure").await;
    let tags = json!({"tags": ["Birds"]});
    for group in [&birds, &hidden] {
        ok(with_body(&one.api, "PATCH", &format!("/groups/{group}"), &tags)).await;
    }
    let topics = [json!({"kind": "tag", "key": "birds"}), json!({"kind": "name", "key": "BIRDS"})];
    for body in &topics {
        let answer = ok(two.api.post("/groups/discover/subscribe", body)).await;
        let (kind, shard) = (&answer["kind"], &answer["shard"]);
        let topic = format!("x0x.directory.{}.{shard}", kind.as_str().expect("text"));
        assert_eq!((&answer["newly_added"], &answer["topic"]), (&json!(true), &json!(topic)));
        let again = ok(two.api.post("/groups/discover/subscribe", body)).await;
        assert_eq!(again["newly_added"], json!(false));
    }
    let only = vec![birds.clone()];
    // The first card has no tag yet; the next takes its place.
    eventually("the card is found", || async {
        let found = discovered(&two.api, "/groups/discover?q=sea").await == only;
        let card = two.api.get(&format!("/groups/cards/{birds}")).await;
        found && card.json()["tags"] == json!(["Birds"])
    })
    .await;
    assert_eq!(discovered(&two.api, "/groups/discover").await, only);
    assert_eq!(discovered(&two.api, &format!("/groups/discover?q={birds}")).await, only);
    assert!(discovered(&two.api, "/groups/discover?q=fish").await.is_empty());
    assert_eq!(discovered(&one.api, "/groups/discover").await, only);
    let card = two.api.get(&format!("/groups/cards/{birds}")).await.json();
    assert_eq!(card["name"], "Sea birds");
    assert_eq!(card["owner_agent_id"], json!(one.agent_id()));
    assert_eq!(card["policy_summary"]["admission"], "request_access");
    for api in [&one.api, &two.api] {
        assert_eq!(api.get(&format!("/groups/cards/{hidden}")).await.status, 404);
    }
    // Who has the card asks who made it.
    let path = format!("/groups/{birds}/requests");
    let asked = ok(two.api.post(&path, &json!({}))).await;
    let request = asked["request_id"].as_str().expect("text").to_owned();
    ok(two.api.delete(&format!("{path}/{request}"))).await;
    eventually("it is cancelled", || async {
        one.api.get(&path).await.json()["requests"][0]["status"] == "cancelled"
    })
    .await;
    let listed = ok(two.api.get("/groups/discover/subscriptions")).await;
    assert_eq!(listed["count"], json!(2));
    for row in listed["subscriptions"].as_array().expect("a list") {
        let path = format!(
            "/groups/discover/subscribe/{}/{}",
            row["kind"].as_str().expect("text"),
            row["shard"]
        );
        assert_eq!(ok(two.api.delete(&path)).await["existed"], json!(true));
        assert_eq!(ok(two.api.delete(&path)).await["existed"], json!(false));
    }
    stop(nodes).await;
}

#[tokio::test]
async fn cards_are_handed_to_who_may_have_them() {
    let nodes = Node::cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!("three nodes") };
    let open = found(&one.api, "Open", "public_open").await;
    let listed = found(&one.api, "Listed", "private_secure").await;
    let axis = json!({"discoverability": "listed_to_contacts"});
    ok(with_body(&one.api, "PATCH", &format!("/groups/{listed}/policy"), &axis)).await;
    // Each of the two is the other's contact; the third is nobody's.
    for (api, agent) in [(&one.api, two.agent_id()), (&two.api, one.agent_id())] {
        let body = json!({"agent_id": agent, "trust_level": "known"});
        ok(api.post("/contacts", &body)).await;
    }
    eventually("its contact is told of both", || async {
        discovered(&two.api, "/groups/discover/nearby").await.len() == 2
    })
    .await;
    eventually("a stranger is told of the public one", || async {
        discovered(&three.api, "/groups/discover/nearby").await == vec![open.clone()]
    })
    .await;
    // A card that is brought by hand; an altered one is none.
    let card = two.api.get(&format!("/groups/cards/{listed}")).await.json();
    let imported = ok(three.api.post("/groups/cards/import", &card)).await;
    assert_eq!((&imported["group_id"], &imported["stub"]), (&json!(listed), &json!(true)));
    let mut altered = card["card"].as_str().expect("text").to_owned();
    altered.replace_range(400..404, "AAAA");
    let refused = three.api.post("/groups/cards/import", &json!({"card": altered})).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    // What is open is joined by oneself, and ended by its owner.
    ok(three.api.post(&format!("/groups/{open}/join"), &json!({"display_name": "Three"}))).await;
    eventually("it is in it", || async {
        let path = format!("/groups/{open}/members");
        one.api.get(&path).await.json()["member_count"] == json!(2)
    })
    .await;
    let ended = ok(one.api.post(&format!("/groups/{open}/state/withdraw"), &json!({}))).await;
    assert_eq!(ended["commit"]["withdrawn"], json!(true));
    eventually("nobody is told of it any more", || async {
        !discovered(&two.api, "/groups/discover/nearby").await.contains(&open)
    })
    .await;
    stop(nodes).await;
}

#[tokio::test]
async fn groups_by_their_keys_seal_content_for_their_members() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let body = json!({"agent_id": one.agent_id(), "trust_level": "known"});
    ok(two.api.post("/contacts", &body)).await;
    let made = ok(one.api.post("/mls/groups", &json!({}))).await;
    let (group, named) = (made["group_id"].clone(), made["named_group_id"].clone());
    let [group, named] = [group, named].map(|id| id.as_str().expect("text").to_owned());
    let path = format!("/mls/groups/{group}");
    assert_eq!(made["members"], json!([one.agent_id()]));
    let added =
        ok(one.api.post(&format!("{path}/members"), &json!({"agent_id": two.agent_id()}))).await;
    assert_eq!(added["member_count"], json!(2));
    eventually("both are in the same epoch", || async {
        let [a, b] = [one.api.get(&path).await, two.api.get(&path).await];
        a.status == 200 && b.status == 200 && a.json() == b.json()
    })
    .await;
    let sealed =
        ok(one.api.post(&format!("{path}/encrypt"), &json!({"payload": "aGVsbG8="}))).await;
    let body = json!({"ciphertext": sealed["ciphertext"], "epoch": sealed["epoch"]});
    let opened = ok(two.api.post(&format!("{path}/decrypt"), &body)).await;
    assert_eq!(opened["payload"], "aGVsbG8=");
    let secure = format!("/groups/{named}/secure");
    let content =
        ok(two.api.post(&format!("{secure}/encrypt"), &json!({"payload_b64": "aGk="}))).await;
    let opened = ok(one.api.post(&format!("{secure}/decrypt"), &content)).await;
    assert_eq!(opened["payload_b64"], "aGk=");
    let mut altered = content.clone();
    altered["nonce_b64"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(one.api.post(&format!("{secure}/decrypt"), &altered).await.status, 400);
    let welcome =
        ok(one.api.post(&format!("{path}/welcome"), &json!({"agent_id": two.agent_id()}))).await;
    assert_eq!(welcome["group_id"], json!(group));
    ok(one.api.delete(&format!("{path}/members/{}", two.agent_id()))).await;
    let late = one.api.post(&format!("{secure}/decrypt"), &content).await;
    assert_eq!(late.status, 409, "{late:?}");
    let listed = ok(one.api.get("/mls/groups")).await;
    assert_eq!(listed["groups"][0]["member_count"], json!(1));
    assert_eq!(one.api.get(&format!("/mls/groups/{named}")).await.status, 404);
    let chosen = one.api.post("/mls/groups", &json!({"group_id": "00"})).await;
    assert_eq!(chosen.status, 400, "{chosen:?}");
    stop(nodes).await;
}

#[tokio::test]
async fn how_groups_are_doing_is_told() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    assert_eq!(ok(two.api.get("/diagnostics/groups")).await["groups"], json!([]));
    assert_eq!(two.api.metric("mls_messages_decrypted_total").await, 0);
    let group = found(&one.api, "Seen", "private_secure").await;
    let invite = ok(one.api.post(&format!("/groups/{group}/invite"), &json!({}))).await;
    ok(two.api.post("/groups/join", &json!({"invite": invite["invite_link"]}))).await;
    let room = format!("/groups/{group}/rooms/general");
    ok(with_body(&one.api, "PUT", &room, &json!({"topic": "all else"}))).await;
    ok(one.api.post(&format!("/groups/{group}/send"), &json!({"body": "hi"}))).await;
    eventually("the message is counted", || async {
        let all = ok(two.api.get("/diagnostics/groups")).await;
        let seen = &all["groups"][0];
        seen["messages_received"] == json!(1)
            && seen["members_v2_size"] == json!(2)
            && seen["subscribed_metadata"] == json!(true)
            && seen["behind"] == json!(false)
    })
    .await;
    assert_eq!(two.api.metric("groups_messages_read_total").await, 1);
    assert!(two.api.metric("mls_messages_decrypted_total").await >= 1);
    let shown = ok(two.api.get(&format!("/groups/{group}"))).await;
    let rooms = json!([{"room": "general", "topic": "all else", "closed": false}]);
    assert_eq!(shown["rooms"], rooms);
    let refused = two.api.post(&format!("/groups/{group}/state/seal"), &json!({})).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    stop(nodes).await;
}

#[tokio::test]
async fn subscriptions_to_cards_outlive_a_kill() {
    let maker = Node::start(&[]).await;
    let bootstrap = maker.daemon.agent().local_addresses();
    let mut process = Process::spawn(&bootstrap).await;
    let api = process.api();
    for key in ["birds", "fish"] {
        let body = json!({"kind": "tag", "key": key});
        assert_eq!(ok(api.post("/groups/discover/subscribe", &body)).await["newly_added"], true);
    }
    let listed = ok(api.get("/groups/discover/subscriptions")).await;
    let fish = listed["subscriptions"].as_array().expect("a list").iter();
    let fish = fish.into_iter().find(|row| row["key"] == "fish").expect("the one of fish");
    let path = format!("/groups/discover/subscribe/tag/{}", fish["shard"]);
    assert_eq!(ok(api.delete(&path)).await["existed"], json!(true));
    let before = ok(api.get("/groups/discover/subscriptions")).await;
    process.kill();
    let birds = found(&maker.api, "Sea birds", "public_request_secure").await;
    let tags = json!({"tags": ["Birds"]});
    ok(with_body(&maker.api, "PATCH", &format!("/groups/{birds}"), &tags)).await;
    process.restart(&bootstrap).await;
    let api = process.api();
    eventually("the subscription is there", || async {
        ok(api.get("/groups/discover/subscriptions")).await == before
    })
    .await;
    assert_eq!(
        (&before["count"], &before["subscriptions"][0]["key"]),
        (&json!(1), &json!("birds"))
    );
    eventually("the card is found", || async {
        discovered(&api, "/groups/discover?q=birds").await == vec![birds.clone()]
    })
    .await;
    assert_eq!(process.terminate().await, Some(0));
    stop(vec![maker]).await;
}
